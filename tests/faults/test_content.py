"""HDF5 files of right digests and wrong content, as other software could write them: every reader refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipcifar.core.errors import DataError
from clipcifar.store import container, splits
from clipcifar.store.dataset import PreparedSplit, read_dataset, write_dataset
from clipcifar.store.embeddings import read_texts
from clipcifar.store.images import read_images
from clipcifar.store.predictions import read_set_predictions, write_set_predictions
from stages import download, prepare
from tests.faults.test_small_data import run, write_run
from tests.support import stage_runs
from tests.support.made import write_embeddings

IDS = ["train/0", "train/1", "train/2"]


def _write(folder: Path) -> None:
    write_embeddings(folder)
    part = PreparedSplit(np.array([b"a" * 64] * 3), np.array([0, 1, 0]), IDS)
    options: dict[str, Any] = {"class_names": ["a", "b"], "name": "x", "max_per_class": 0}
    write_dataset(folder / "dataset.h5", part, part, **options)
    rows = splits.TrainVal(np.array([0, 1]), np.array([2]))
    splits.write_splits(folder / "few.h5", IDS, rows, attributes={"dataset_digest": "1"})
    images = read_images(folder / "images")
    scores = np.zeros((len(images.test.ids), 3), np.float32)
    write_set_predictions(folder / "sets.h5", {"photo": scores}, images)


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "images/manifest.h5": ("image embeddings", read_images),
    "images/part-00000.h5": ("part of image embeddings", lambda path: read_images(path.parent)),
    "texts/photo.h5": ("text embeddings", read_texts),
    "dataset.h5": ("dataset", read_dataset),
    "few.h5": ("splits", lambda path: splits.read_splits(path, IDS, dataset_digest="1")),
    "sets.h5": ("prompt set predictions", read_set_predictions),
}
# File, what to put in place of an array (None: leave it out) or of an attribute, and what is said of it.
WRONG: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    (
        "images/manifest.h5",
        {},
        {"logit_scale": "20"},
        "'logit_scale' is '20', expected a number",
    ),
    ("images/manifest.h5", {}, {"dataset_digest": 1}, "the attribute 'dataset_digest' is 1, expected text"),
    ("images/manifest.h5", {}, {"class_names": '{"cat": 1}'}, "the class names are not a list of text"),
    ("images/manifest.h5", {}, {"class_names": "[" * 50_000}, "the class names cannot be read"),
    ("images/manifest.h5", {"test/labels": np.full(90, 3)}, {}, "class indices outside 0 to 2"),
    ("images/manifest.h5", {"test/ids": np.full(90, b"x")}, {}, "a sample id occurs twice"),
    ("images/manifest.h5", {"parts/counts": np.array([329])}, {}, "329 rows for 330 images"),
    ("images/part-00000.h5", {"embeddings": np.zeros((330, 8), np.float32)}, {}, "of other embeddings than"),
    ("images/part-00000.h5", {"embeddings": None}, {}, "of other embeddings than the manifest"),
    ("images/part-00000.h5", {}, {"number": 3}, "expected part 1 of 1, found part 4"),
    ("texts/photo.h5", {"class_index": np.array([0, 1, 3])}, {}, "class indices outside 0 to 2"),
    ("texts/photo.h5", {"sentences": np.array([b"\xff", b"b", b"c"])}, {}, "a string is not UTF-8"),
    ("dataset.h5", {"test/labels": np.array([0, 1])}, {}, "expected 3 int64 class indices"),
    ("dataset.h5", {"test/labels": np.array([0, 1, 2])}, {}, "class indices outside 0 to 1"),
    ("dataset.h5", {"test/ids": np.array([b"a", b"a", b"b"])}, {}, "a sample id occurs twice"),
    ("dataset.h5", {"train/ids": np.array([b"a", b"../../x", b"b"])}, {}, "an image lies outside the folder"),
    ("dataset.h5", {"train/ids": np.array([b"a", b"/etc/passwd", b"b"])}, {}, "lies outside the folder"),
    ("dataset.h5", {"train/content": np.zeros((3, 2, 2), np.uint8)}, {}, "content uint8 (3, 2, 2) for 3"),
    (
        "dataset.h5",
        {"train/content": np.zeros((2, 2, 2, 3), np.uint8)},
        {},
        "content uint8 (2, 2, 2, 3) for 3",
    ),
    ("dataset.h5", {"train/content": np.zeros(3)}, {}, "content float64 (3,)"),
    ("dataset.h5", {}, {"max_per_class": "many"}, "not a prepared dataset"),
    ("dataset.h5", {}, {"left_out": "[]"}, "left_out is no dict"),
    ("dataset.h5", {}, {"left_out": '{".heic": [1]}'}, "not a prepared dataset"),
    ("dataset.h5", {}, {"left_out": "[" * 30_000}, "left_out cannot be read"),
    ("dataset.h5", {}, {"notes": "null"}, "notes is no list"),
    ("few.h5", {"is_val": None}, {}, "not a split"),
    ("few.h5", {"is_val": np.zeros(2, np.uint8)}, {}, "is_val is uint8 (2,) for 3 images"),
    ("few.h5", {"is_val": np.full(3, 2, np.uint8)}, {}, "is_val is uint8 (3,) for 3 images"),
    ("few.h5", {"is_val": np.zeros(3)}, {}, "is_val is float64 (3,) for 3 images"),
    ("few.h5", {"ids": np.array([b"train/0"] * 3)}, {}, "a sample id occurs twice"),
    ("few.h5", {"ids": np.arange(3)}, {}, "expected strings"),
    ("few.h5", {}, {"dataset_digest": 1}, "the split is of another dataset"),
    ("sets.h5", {"scores/photo": np.zeros((90, 2), np.float32)}, {}, "expected float32 scores (90, 3)"),
    ("sets.h5", {"scores/photo": np.full((90, 3), np.inf, np.float32)}, {}, "a score is not finite"),
    ("sets.h5", {"labels": np.zeros((90, 1), np.int64)}, {}, "expected 90 int64 class indices"),
    ("sets.h5", {}, {"class_names": "null"}, "the class names are not a list of text"),
    ("sets.h5", {}, {"images_fingerprint": 1}, "the attribute 'images_fingerprint' is 1, expected text"),
]


@pytest.mark.parametrize(("name", "arrays", "attributes", "expected"), WRONG)
def test_what_a_right_digest_does_not_rule_out_is_refused(
    name: str, arrays: dict[str, Any], attributes: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    _write(tmp_path)
    kind, read = READERS[name]
    read(tmp_path / name)  # nothing was wrong with it
    file = container.read(tmp_path / name, kind=kind)
    changed = {key: array for key, array in {**file.arrays, **arrays}.items() if array is not None}
    own = {key: value for key, value in file.attributes.items() if key not in container._DIGESTS}
    container.write(tmp_path / name, kind=kind, arrays=changed, attributes={**own, **attributes})
    with pytest.raises(DataError) as caught:
        read(tmp_path / name)
    assert expected in caught.value.what
    assert (caught.value.exit_code, caught.value.where) == (3, str(tmp_path / name))
    assert caught.value.fix


def test_a_split_whose_parts_differ_in_length_is_exit_3_in_a_stage(tmp_path: Path) -> None:
    folder = write_run(tmp_path, np.arange(60) % 3, np.arange(30) % 3)
    file = container.read(folder / "splits.h5", kind="splits")
    arrays = {**file.arrays, "is_val": file.arrays["is_val"][1:]}
    container.write(folder / "splits.h5", kind="splits", arrays=arrays, attributes={"dataset_digest": "1"})
    ended = run("zero_shot", folder)
    assert ended.code == 3
    assert "not a split: is_val is uint8 (59,) for 60 images" in ended.error


def test_a_class_whose_name_commands_a_terminal_is_refused(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("a", "b\x1b[2J"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (8, 8)).save(tmp_path / "photos" / split / name / f"{i}.png")
    dataset = {"name": "imagefolder", "path": str(tmp_path / "photos")}
    stage_runs.write_params(tmp_path, {"dataset": dataset})
    assert stage_runs.run(download.main, "raw", folder=tmp_path).code == 0
    ended = stage_runs.run(prepare.main, "raw", "d.h5", "s.h5", "c.json", folder=tmp_path)
    assert ended.code == 3
    assert r"the class name 'b\x1b[2J' holds a control character" in ended.error
    assert "\x1b" not in ended.error
