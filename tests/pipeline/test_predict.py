"""`clipcifar predict` on the test images of a folder of JPEGs: what the stages say of the same files."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipcifar.api.classifier import probabilities
from clipcifar.datasets import array_sets
from clipcifar.prompts.save import overlay
from clipcifar.store.predictions import read_predictions
from tests.support.workspace import Workspace

pytestmark = pytest.mark.pipeline
NAMES = ["nine", "one", "seven"]  # in label order
OF_EACH = {"train": 24, "test": 12}


def write_photographs(root: Path) -> None:
    """JPEGs of many sizes, some turned by their EXIF and some gray."""
    digits = array_sets.load_digits()
    for split, each in OF_EACH.items():
        images, labels = getattr(digits, split).images, getattr(digits, split).labels
        for name in NAMES:
            rows = np.flatnonzero(labels == digits.class_names.index(name))[:each].tolist()
            for number, row in enumerate(rows):
                image = Image.fromarray(images[row]).resize((90 + 3 * number, 120), Image.Resampling.BICUBIC)
                exif = Image.Exif()
                if number % 5 == 1:
                    exif[0x0112], image = 6, image.transpose(Image.Transpose.ROTATE_90)
                path = root / split / name / f"{number:02d}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                (image.convert("L") if number % 5 == 2 else image).save(path, quality=80, exif=exif)


def test_of_jpegs_too_a_prediction_is_the_pipelines_own(workspace: Workspace) -> None:
    photos = workspace.folder.with_name("photos")
    write_photographs(photos)
    workspace.edit(
        lambda settings: overlay(settings, {"dataset": {"name": "imagefolder", "path": str(photos)}})
    )
    workspace.repro("zero_shot", "linear_probe")
    for method in ("zero_shot", "linear_probe"):
        said = workspace.command("clipcifar", "predict", str(photos / "test"), "--csv", "--method", method)
        assert said.stderr == ""
        stored = read_predictions(workspace.folder / "data" / "predictions" / f"{method}.h5")
        shares = probabilities(stored.scores, float(stored.attributes["temperature"]))
        rows = {name: row for row, name in enumerate(stored.ids)}
        _, *lines = csv.reader(io.StringIO(said.stdout))
        assert len(lines) == len(rows) == len(NAMES) * OF_EACH["test"]
        for path, *cells in lines:
            row = rows[Path(path).relative_to(photos).as_posix()]
            assert cells[0] == NAMES[stored.predicted[row]]
            for name, share in zip(cells[::2], cells[1::2], strict=True):
                assert float(share) == pytest.approx(shares[row, NAMES.index(name)], abs=2e-4)
