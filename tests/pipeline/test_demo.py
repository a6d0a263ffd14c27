"""`make demo` as a user sees it, and what it promises."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipcifar.datasets import array_sets
from tests.house.test_readme import README, blocks
from tests.pipeline.test_pipeline import MOST_ROWS
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


class Walked:
    """The demo as `make demo` leaves it in `build/demo` of a folder; `said` is all that it printed."""

    def __init__(self, folder: Path) -> None:
        self.folder, before = folder, _listing(ROOT)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        cache = {"CLIPCIFAR_CACHE": str(folder / "build/demo-cache")}
        self.environment = {**os.environ, "PATH": path, **cache}
        self.said = self.run(sys.executable, str(ROOT / "data/demo/walk.py"), "build/demo")
        assert _listing(ROOT) == before

    def run(self, *command: str, at: str = ".") -> str:
        done = subprocess.run(
            command,
            cwd=self.folder / at,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert not re.search("Traceback|Warning", done.stdout + done.stderr)
        return done.stdout


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Walked:
    return Walked(tmp_path_factory.mktemp("walked"))


def test_the_walk_runs_changes_a_prompt_and_shows_the_difference(walked: Walked) -> None:
    first, second = walked.said.split("$ dvc status")
    ran = re.findall(r"Running stage '(\w+)'", first)
    assert len(ran) == 17
    assert set(re.findall(r"Running stage '(\w+)'", second)) == TEXT_SIDE
    assert "Stage 'embed_images' didn't change, skipping" in second
    row = re.search(r"metrics/zero_shot.json\s+accuracy\s+(\S+)\s+(\S+)\s+(\S+)", second)
    assert row is not None
    _, shown = second.split("$ dvc metrics diff\n")
    assert 5 <= len(re.findall(r"^metrics/", shown, re.MULTILINE)) <= MOST_ROWS, "a table that one reads"
    old, new, change = map(float, row.groups())
    assert abs(change) >= 0.02, "the change of prompt is meant to be visible"
    assert change == pytest.approx(new - old, abs=2e-5)
    assert "5 numbers compared, 0 failed" in first  # the committed table of the stand-in
    assert "say nothing about CLIP" in walked.said


def test_readme_shows_the_answer_of_the_demo_word_for_word(walked: Walked) -> None:
    command, answer = blocks(README, "console")[0].split("\n", 1)
    assert command.removeprefix("$ ") in walked.said  # as something to go on with
    assert walked.run(*shlex.split(command.removeprefix("$ ")), at="build/demo") == answer


def test_the_python_of_readme_runs_on_the_demo_and_says_what_the_commands_say(walked: Walked) -> None:
    (code,) = blocks(README, "python")
    for label, name in enumerate(("cat.jpg", "dog.jpg")):
        Image.fromarray(array_sets.load_digits().test.images[label]).save(walked.folder / name)
    said = walked.run(sys.executable, "-c", f"{code}\nprint(probe.predict_proba(images.embeddings).shape)")
    (template,) = re.findall(r"templates=\[\"(.*?)\"\]", code)
    tried = walked.run("clipcifar", "try", template, "--on", "test", at="build/demo")
    assert f"top-1 {float(said.split()[0]):.4f}," in tried
    a, b = re.findall(r'compare\("(\w+)", "(\w+)"\)', code)[0]
    compared = walked.run("clipcifar", "compare", a, b, at="build/demo")
    assert said.split(maxsplit=1)[1].splitlines()[0] in compared
    assert said.endswith("(397, 10)\n")


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
