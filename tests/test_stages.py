"""What all stages promise: one message and an exit code, and no import that a stage does not use."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.import_closure import ROOT, closure

LIBRARY = sorted((ROOT / "clipcifar").rglob("*.py"))


def _run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=100)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    return tmp_path


def test_a_configuration_error_is_one_message_and_exit_code_2(folder: Path) -> None:
    (folder / "params.yaml").write_text("dataset: {}\n")
    done = _run(folder, "stages.prompts", "classes.json", "prompts")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "fix:" in done.stderr
    assert "Traceback" not in done.stderr


def test_bad_data_is_exit_code_3_and_the_traceback_comes_on_demand(folder: Path) -> None:
    arguments = ("stages.zero_shot", "images.h5", "texts", "splits.h5", "p.h5", "m.json", "plots")
    done = _run(folder, *arguments)
    assert done.returncode == 3
    assert "images.h5" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in _run(folder, *arguments, CLIPCIFAR_TRACEBACK="1").stderr


def test_an_unusable_folder_is_exit_code_4(folder: Path) -> None:
    (folder / "file").write_text("")
    (folder / "classes.json").write_text('{"dataset": "cifar10", "class_names": ["cat"]}')
    text = (folder / "params.yaml").read_text().replace("dataset: cifar10\n", "dataset: digits\n", 1)
    (folder / "params.yaml").write_text(text)
    done = _run(folder, "stages.prompts", "classes.json", "file/prompts")
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_number_of_paths_is_refused(folder: Path) -> None:
    done = _run(folder, "stages.prompts", "classes.json")
    assert done.returncode == 2
    assert "classes_path prompts_folder" in done.stderr


HEAVY = {"torch", "open_clip", "sklearn", "scipy", "torchvision", "PIL", "pandas", "dvc", "matplotlib"}


@pytest.mark.parametrize(
    ("stage", "forbidden"),
    [
        ("prompts", HEAVY | {"numpy", "h5py"}),
        ("zero_shot", HEAVY),
        ("prompt_sets", HEAVY - {"scipy"}),
        ("embed_texts", HEAVY),  # the text tower is imported when a sentence is new
        ("linear_probe", HEAVY - {"sklearn", "scipy"}),
        ("mlp_probe", HEAVY - {"torch"}),
    ],
)
def test_a_stage_imports_nothing_that_it_does_not_use(stage: str, forbidden: set[str]) -> None:
    code = f"import stages.{stage}, sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not forbidden & set(done.stdout.split())


def _imports(path: Path) -> set[str]:
    tree = ast.walk(ast.parse(path.read_text()))
    return {
        name
        for node in tree
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }


def test_only_three_modules_import_open_clip_and_only_the_command_line_parses_arguments() -> None:
    importers = {path.name for path in LIBRARY if any(n.split(".")[0] == "open_clip" for n in _imports(path))}
    assert importers == {"backbone.py", "image_tower.py", "weights.py"}
    assert {path.name for path in LIBRARY if "argparse" in _imports(path)} == {"cli.py"}
    for path in LIBRARY:
        text = path.read_text()
        assert path.name == "cli.py" or not any(word in text for word in ("sys.argv", "Path.cwd", "getcwd"))


def test_nothing_in_the_library_imports_a_stage_and_the_ground_imports_no_method() -> None:
    methods = {
        f"clipcifar/{name}.py" for name in ("zero_shot", "linear_probe", "mlp_probe", "projection", "seeds")
    }
    for path in LIBRARY:
        assert not any(name.split(".")[0] == "stages" for name in _imports(path)), path
    for ground in ("backbone", "store", "container", "memo", "shards", "extract", "weights"):
        assert not methods & closure(ROOT / "clipcifar" / f"{ground}.py")


def test_nothing_evaluates_unpickles_formats_or_shells_out() -> None:
    for path in [*LIBRARY, *(ROOT / "stages").glob("*.py")]:
        assert not {"pickle", "subprocess", "marshal", "shelve"} & _imports(path), path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = node.func
                if isinstance(called, ast.Name):  # model.eval() is another thing
                    assert called.id not in ("eval", "exec"), f"{path}:{node.lineno}"
                if isinstance(called, ast.Attribute):
                    assert called.attr not in ("format", "system", "popen"), f"{path}:{node.lineno}"
