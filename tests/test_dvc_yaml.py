from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.import_closure import ROOT, closure

FILES = [ROOT / "dvc.yaml", *sorted(ROOT.glob("studies/*/dvc.yaml"))]
STAGES: dict[str, Any] = {}
for file in FILES:
    STAGES |= yaml.safe_load(file.read_text())["stages"]


def test_every_stage_is_a_script_and_every_script_a_stage() -> None:
    assert {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"} == set(STAGES)


@pytest.mark.parametrize("name", STAGES)
def test_deps_are_the_import_closure(name: str) -> None:
    """Packages' __init__ files are left out: they hold no code that a number depends on."""
    declared = {dep for dep in STAGES[name]["deps"] if dep.endswith(".py")}
    assert declared == {
        file for file in closure(ROOT / "stages" / f"{name}.py") if not file.endswith("__init__.py")
    }


@pytest.mark.parametrize("package", ["clipcifar", "clipcifar/report"])
def test_init_files_left_out_of_deps_hold_no_code(package: str) -> None:
    body = ast.parse((ROOT / package / "__init__.py").read_text()).body
    assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


def test_the_closure_follows_indirect_imports() -> None:
    """Negative control: metrics.py is reached from the zero_shot stage through results.py only."""
    script = ROOT / "stages" / "zero_shot.py"
    assert "import metrics" not in script.read_text()
    assert "clipcifar/metrics.py" in closure(script)


@pytest.mark.parametrize("name", STAGES)
def test_commands_run_the_workspaces_own_modules_and_take_no_params(name: str) -> None:
    command = STAGES[name]["cmd"]
    assert command.startswith(f"python -m stages.{name} ")
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


def _templates(path: Path) -> set[Path]:
    """What a page is made of: the template, and those that it names, directly or not."""
    named = {path.parent / name for name in re.findall(r'"([a-z]+\.(?:html|css))"', path.read_text())}
    return {path}.union(*(_templates(other) for other in named))


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_that_writes_a_page_depends_on_what_the_page_is_made_of(name: str) -> None:
    folder = ROOT / "clipcifar" / "report"
    deps = STAGES[name]["deps"]
    wanted: set[Path] = set()
    if "clipcifar/report/page.py" in deps:
        wanted |= _templates(folder / "page.html")
        assert len(wanted) == 4
    if "clipcifar/report/study.py" in deps:
        wanted |= _templates(folder / "study.html")
    declared = {ROOT / dep for dep in deps if dep.endswith((".html", ".css"))}
    assert declared == wanted
