"""What all stages promise: one message and an exit code, and no import that a stage does not use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.import_closure import ROOT
from tests.support.waiting import PATIENCE_S

LIBRARY = sorted((ROOT / "clipcifar").rglob("*.py"))


def _run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, timeout=PATIENCE_S
    )


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
    arguments = (
        "stages.zero_shot",
        "images",
        "texts",
        "splits.h5",
        "p.h5",
        "m.json",
        "details/m.json",
        "plots",
    )
    done = _run(folder, *arguments)
    assert done.returncode == 3
    assert "images" in done.stderr
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
        ("embed_active", HEAVY),
        ("embed_texts", HEAVY),  # the text tower is imported when a sentence is new
        ("prompt_weighting", HEAVY - {"scipy"}),
        ("gda", HEAVY),
        ("linear_probe", HEAVY - {"scipy"}),  # scikit-learn is imported when a fit begins
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
