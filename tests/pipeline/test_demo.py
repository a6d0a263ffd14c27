"""`make demo` as a user sees it, and what it promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clipcifar.datasets import array_sets
from tests.support.waiting import PATIENCE_S
from tests.support.workspace import ROOT, TEXT_SIDE

pytestmark = pytest.mark.pipeline


def _listing(folder: Path) -> set[str]:
    skipped = {
        ".git",
        ".venv",
        "build",
        "__pycache__",
        ".pytest_cache",
        ".mypy_cache",
        ".ruff_cache",
        ".hypothesis",
    }
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    mine = (path for path in files if not path.name.startswith(".coverage"))  # of `make coverage`
    return {path.as_posix() for path in mine if not skipped & set(path.parts)}


def test_the_walk_runs_changes_a_prompt_and_shows_the_difference(tmp_path: Path) -> None:
    before = _listing(ROOT)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, str(ROOT / "data/demo/walk.py"), str(tmp_path / "demo")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = done.stdout.split("$ dvc status")
    ran = re.findall(r"Running stage '(\w+)'", first)
    assert len(ran) == 15
    assert set(re.findall(r"Running stage '(\w+)'", second)) == TEXT_SIDE
    assert "Stage 'embed_images' didn't change, skipping" in second
    row = re.search(r"metrics/zero_shot.json\s+accuracy\s+(\S+)\s+(\S+)\s+(\S+)", second)
    assert row is not None
    _, shown = second.split("$ dvc metrics diff\n")
    assert 5 <= len(re.findall(r"^metrics/", shown, re.MULTILINE)) <= 20, "a table that one reads"
    old, new, change = map(float, row.groups())
    assert abs(change) >= 0.02, "the change of prompt is meant to be visible"
    assert change == pytest.approx(new - old, abs=2e-5)
    assert "5 numbers compared, 0 failed" in first  # the committed table of the stand-in
    assert "say nothing about CLIP" in done.stdout
    assert not re.search("Traceback|Warning", done.stdout + done.stderr)
    assert _listing(ROOT) == before


def test_the_stand_in_never_saw_an_image_of_the_dataset() -> None:
    reserved, _ = array_sets.reserved_digits()
    used = array_sets.load_digits()
    assert len(reserved) + len(used.train.images) + len(used.test.images) == 1797
    seen = {image.tobytes() for image in reserved}
    images = np.concatenate([used.train.images, used.test.images])
    assert not [image for image in images if image.tobytes() in seen]


def test_the_stand_in_is_small() -> None:
    weights = ROOT / "data/demo/clip/open_clip_model.safetensors"
    assert weights.stat().st_size <= 4_000_000
