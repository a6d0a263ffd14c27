from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.import_closure import ROOT, closure

FILES = [ROOT / "dvc.yaml", *sorted(ROOT.glob("studies/*/dvc.yaml"))]
STAGES: dict[str, Any] = {}
for file in FILES:
    STAGES |= yaml.safe_load(file.read_text())["stages"]
CODE = ("clipcifar/", "stages/", "studies/")
MAX_LINES = 240  # a person reads it


def script(name: str) -> Path:
    """The file that a stage's command runs."""
    return Path(*STAGES[name]["cmd"].split()[2].split(".")).with_suffix(".py")


def covers(dep: str, file: str) -> bool:
    return Path(dep) == Path(file) or Path(dep) in Path(file).parents


def code_deps(name: str) -> list[str]:
    return [dep for dep in STAGES[name]["deps"] if dep.startswith(CODE)]


def needed(name: str) -> set[str]:
    """Every file of the import closure; packages' __init__ hold no code that a number depends on."""
    return {file for file in closure(ROOT / script(name)) if not file.endswith("__init__.py")}


def test_dvc_yaml_is_a_page_that_a_person_reads() -> None:
    assert len(FILES[0].read_text().splitlines()) <= MAX_LINES


def test_every_stage_is_a_script_and_every_script_a_stage() -> None:
    scripts = {*(ROOT / "stages").glob("[a-z]*.py"), *(ROOT / "studies").glob("*/*.py")}
    assert {ROOT / script(name) for name in STAGES} == scripts
    assert all(script(name).stem == name for name in yaml.safe_load(FILES[0].read_text())["stages"])


@pytest.mark.parametrize("name", STAGES)
def test_deps_cover_the_import_closure_and_nothing_is_idle(name: str) -> None:
    deps, files = code_deps(name), needed(name)
    missing = [file for file in files if not any(covers(dep, file) for dep in deps)]
    idle = [dep for dep in deps if not any(covers(dep, file) for file in files)]
    doubled = [dep for dep in deps if sum(covers(other, dep) for other in deps) > 1]
    assert (missing, idle, doubled) == ([], [], [])
    assert all((ROOT / dep).exists() for dep in deps)


@pytest.mark.parametrize("name", STAGES)
def test_a_reader_sees_data_first_and_code_second(name: str) -> None:
    kinds = [dep.startswith(CODE) for dep in STAGES[name]["deps"]]
    assert kinds == sorted(kinds)
    assert Path(STAGES[name]["deps"][-1]) == script(name)


def test_init_files_hold_no_code() -> None:
    """But the library's own, which hands out the names for Python, and imports nothing until it is asked."""
    library = ROOT / "clipcifar" / "__init__.py"
    for path in {*library.parent.rglob("__init__.py"), ROOT / "studies" / "__init__.py"} - {library}:
        body = ast.parse(path.read_text()).body
        assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body), path


def test_the_closure_follows_indirect_imports() -> None:
    """Negative control: metrics.py is reached from the zero_shot stage through results.py only."""
    path = ROOT / "stages" / "zero_shot.py"
    assert "import metrics" not in path.read_text()
    assert "clipcifar/evaluation/metrics.py" in closure(path)


@pytest.mark.parametrize("name", STAGES)
def test_commands_run_the_workspaces_own_modules_and_take_no_params(name: str) -> None:
    command = STAGES[name]["cmd"]
    assert command.startswith(
        "python -m stages." if (ROOT / "stages" / f"{name}.py").exists() else "python -m studies."
    )
    assert "${" not in command, "params.yaml is untrusted and a shell reads the command"
    assert not set("&|;<>$`\\\"'") & set(command)


@pytest.mark.parametrize("name", STAGES)
def test_outputs_are_on_the_command_line(name: str) -> None:
    stage = STAGES[name]
    words = stage["cmd"].split()
    for out in stage.get("outs", []) + [
        next(iter(entry)) for entry in stage.get("metrics", []) + stage.get("plots", [])
    ]:
        assert any(Path(word) == Path(out) or Path(word) in Path(out).parents for word in words), out


@pytest.mark.parametrize("name", STAGES)
def test_metrics_and_plots_live_in_git_and_outs_in_dvc(name: str) -> None:
    stage = STAGES[name]
    for entry in stage.get("metrics", []) + stage.get("plots", []):
        (options,) = entry.values()
        assert options["cache"] is False
    assert all(isinstance(out, str) for out in stage.get("outs", [])), (
        "an uncached out switches the run-cache off"
    )


@pytest.mark.parametrize("file", FILES[1:], ids=lambda path: path.parent.name)
def test_a_study_runs_from_the_root_and_writes_into_a_folder_of_its_own(file: Path) -> None:
    for stage in yaml.safe_load(file.read_text())["stages"].values():
        assert stage["wdir"] == "../.."
        own = (f"data/studies/{file.parent.name}", f"report/{file.parent.name}.html")
        assert all(out.startswith(own) for out in stage["outs"])
        assert not {"metrics", "plots"} & set(stage), "DVC would miss them loudly until the study is run"


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_that_writes_a_page_depends_on_all_that_the_page_is_made_of(name: str) -> None:
    """Templates and styles lie in the folders of the code that fills them."""
    pages = {
        "clipcifar/report/page.py": ["clipcifar/report", "clipcifar/render"],
        "clipcifar/render/study.py": ["clipcifar/render"],
    }
    for module, folders in pages.items():
        if module in needed(name):
            assert set(folders) <= set(code_deps(name))


def test_templates_lie_in_those_folders() -> None:
    found = {path.parent for kind in ("*.html", "*.css", "*.js") for path in (ROOT / "clipcifar").rglob(kind)}
    assert found == {ROOT / "clipcifar" / name for name in ("explorer", "render", "report")}


def test_what_editors_leave_behind_stales_no_stage() -> None:
    """The patterns of .dvcignore as DVC reads them, on what vim, emacs, Jupyter and macOS write."""
    from dvc.ignore import DvcIgnorePatterns, PatternInfo

    lines = (ROOT / ".dvcignore").read_text().splitlines()
    patterns = DvcIgnorePatterns([PatternInfo(line, "") for line in lines], str(ROOT), "/")
    folder, base = str(ROOT / "clipcifar" / "core"), "errors.py"
    litter = [f".{base}.swp", f".{base}.swo", f"{base}~", "4913", f".#{base}", f"#{base}#", ".DS_Store"]
    assert all(patterns.matches(folder, name, is_dir=False) for name in litter)
    for name in (".ipynb_checkpoints", "__pycache__"):
        assert patterns.matches(folder, name, is_dir=True)
    assert not any(patterns.matches(folder, name, is_dir=False) for name in (base, "page.css", "4913.py"))
