"""What the source itself promises, beside tests/test_stages.py: sizes, direction, and nothing dynamic."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from clipcifar.params_edit import overlay
from tests.import_closure import ROOT, closure, imported_files
from tests.made import write_embeddings

LIBRARY = sorted((ROOT / "clipcifar").rglob("*.py"))
SOURCES = [*LIBRARY, *sorted((ROOT / "stages").glob("*.py"))]
MAX_LINES = 250  # a library file this long is two ideas; a stage has no room for one
MAX_STAGE_LINES = 75


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_file_can_be_read_without_getting_lost(path: Path) -> None:
    limit = MAX_STAGE_LINES if path.parent.name == "stages" else MAX_LINES
    assert len(path.read_text().splitlines()) <= limit


def test_no_two_modules_import_each_other_directly_or_not() -> None:
    for path in LIBRARY:
        if path.name != "__init__.py":
            assert all(name(path) not in closure(other) for other in imported_files(path) - {path}), path


def test_nothing_imports_the_command_line_or_a_stage_but_the_stages_package_itself() -> None:
    for path in SOURCES:
        imported = {name(other) for other in imported_files(path)} - {name(path)}
        assert "clipcifar/cli.py" not in imported, path
        assert all(other == "stages/__init__.py" for other in imported if other.startswith("stages/")), path
        assert path.parent.name == "stages" or not any(other.startswith("stages/") for other in imported)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_imports_are_absolute_and_by_name(path: Path) -> None:
    """What dvc.yaml lists as dependencies is read off the import statements."""
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert [alias.name for alias in node.names] != ["*"]


def names_used(path: Path) -> set[str]:
    """Names, dotted names such as `os.getcwd`, and names imported from elsewhere likewise dotted."""
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


AMBIENT = {"sys.argv", "os.getcwd", "os.chdir", "Path.cwd", "argparse.ArgumentParser"}
DYNAMIC = {
    "__import__",
    "builtins.eval",
    "compile",
    "eval",
    "exec",
    "importlib.import_module",
    "importlib.util",
    "npy.read_array",  # numpy.lib.format, of which the library reads headers alone
    "numpy.lib.format.read_array",
    "numpy.load",
    "np.load",
    "pickle.loads",
    "yaml.load",
    "yaml.unsafe_load",
}


@pytest.mark.parametrize("path", LIBRARY, ids=name)
def test_the_library_knows_neither_its_arguments_nor_the_current_directory(path: Path) -> None:
    if path.name != "cli.py":
        assert not names_used(path) & AMBIENT


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_nothing_is_loaded_or_run_that_the_source_does_not_name(path: Path) -> None:
    assert not names_used(path) & DYNAMIC
    for node in nodes(path):
        if isinstance(node, ast.Call):
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            assert not {"shell", "allow_pickle"} & set(keywords), node.lineno
            if ast.unparse(node.func) == "torch.load":
                assert ast.unparse(keywords["weights_only"]) == "True", node.lineno


def test_the_checks_above_would_see_what_they_look_for(tmp_path: Path) -> None:
    source = tmp_path / "bad.py"
    source.write_text("from sys import argv\nimport os\nos.getcwd()\nexec('1')\n")
    assert names_used(source) & AMBIENT == {"sys.argv", "os.getcwd"}
    assert names_used(source) & DYNAMIC == {"exec"}


BLOCKED = (
    "torch",
    "open_clip",
    "sklearn",
    "scipy",
    "torchvision",
    "PIL",
    "pandas",
    "dvc",
    "tqdm",
    "requests",
)
RUN = """
import sys
for blocked in {blocked!r}:
    sys.modules[blocked] = None  # importing it now fails
sys.argv = {argv!r}
import runpy
runpy.run_module("stages.{stage}", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("stage", "outputs", "works"),
    [
        ("zero_shot", ["p.h5", "m.json", "plots"], True),
        ("mlp_probe", ["head.h5", "p.h5", "m.json", "plots"], False),
    ],
)
def test_zero_shot_runs_to_its_end_without_torch_and_the_like(
    stage: str, outputs: list[str], works: bool, tmp_path: Path
) -> None:
    write_embeddings(tmp_path)
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    overlay(settings, {"model": {"name": "tiny", "pretrained": None}, "prompts": {"active": "photo"}})
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    argv = [stage, "images.h5", *(["texts"] if works else []), "splits.h5", *outputs]
    code = RUN.format(blocked=BLOCKED, argv=argv, stage=stage)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode == 0) == works, done.stderr
    assert (tmp_path / "m.json").exists() == works
    assert works or "import of torch halted" in done.stderr
