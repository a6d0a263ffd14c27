from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from clipcifar.core.errors import DataError
from clipcifar.datasets.imagefolder import image_folder
from clipcifar.datasets.source import collect
from clipcifar.store import container
from clipcifar.store.dataset import Prepared, PreparedSplit, digest_of, read_dataset, write_dataset
from clipcifar.store.fields import class_names_attribute
from clipcifar.store.inputs import check_embedded
from tests.support import synthetic

CLASSES = ["cat", "dog"]


def pixels_split(prefix: str, n: int, seed: int) -> PreparedSplit:
    content = np.random.default_rng(seed).integers(0, 256, (n, 4, 5, 3), dtype=np.uint8)
    return PreparedSplit(content, np.arange(n, dtype=np.int64) % 2, [f"{prefix}/{i}" for i in range(n)])


TRAIN, TEST = pixels_split("train", 6, 0), pixels_split("test", 3, 1)


def write(path: Path, train: PreparedSplit = TRAIN, test: PreparedSplit = TEST, **changes: Any) -> str:
    options = {"class_names": CLASSES, "name": "toy", "max_per_class": 0} | changes
    return write_dataset(path, train, test, **options)


def assert_same(found: PreparedSplit, wanted: PreparedSplit) -> None:
    assert (found.content.dtype, found.content.shape) == (wanted.content.dtype, wanted.content.shape)
    assert found.content.tobytes() == wanted.content.tobytes()
    np.testing.assert_array_equal(found.labels, wanted.labels)
    assert found.ids == wanted.ids


def hashed_split(prefix: str, n: int) -> PreparedSplit:
    digests = [hashlib.sha256(bytes([i])).hexdigest() for i in range(n)]
    labels = np.zeros(n, np.int64)
    return PreparedSplit(np.array(digests, "S64"), labels, [f"{prefix}/é {i}.png" for i in range(n)])


@pytest.mark.parametrize(
    ("train", "test", "in_memory"),
    [(TRAIN, TEST, True), (hashed_split("train", 4), hashed_split("test", 2), False)],
)
def test_a_dataset_comes_back_as_it_was(
    train: PreparedSplit, test: PreparedSplit, in_memory: bool, tmp_path: Path
) -> None:
    digest = write(tmp_path / "d.h5", train, test, name="toy", max_per_class=7)
    found = read_dataset(tmp_path / "d.h5")
    assert_same(found.train, train)
    assert_same(found.test, test)
    assert (found.class_names, found.name, found.max_per_class) == (CLASSES, "toy", 7)
    assert found.digest == digest == digest_of(train, test, CLASSES)
    assert found.train.in_memory == in_memory


def test_equal_datasets_give_equal_files(tmp_path: Path) -> None:
    write(tmp_path / "a.h5")
    write(tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def with_one_pixel_changed(split: PreparedSplit, place: int) -> PreparedSplit:
    content = split.content.copy()
    content.flat[place] ^= 1
    return replace(split, content=content)


@given(place=st.integers(0, TRAIN.content.size - 1))
@settings(max_examples=40)
def test_any_pixel_changes_the_digest(place: int) -> None:
    before = digest_of(TRAIN, TEST, CLASSES)
    assert digest_of(with_one_pixel_changed(TRAIN, place), TEST, CLASSES) != before
    in_test = place % TEST.content.size
    assert digest_of(TRAIN, with_one_pixel_changed(TEST, in_test), CLASSES) != before


def flipped(labels: Any, row: int) -> Any:
    changed = labels.copy()
    changed[row] = 1 - changed[row]
    return changed


CHANGES: dict[str, tuple[PreparedSplit, PreparedSplit, list[str]]] = {
    **{f"label {i}": (replace(TRAIN, labels=flipped(TRAIN.labels, i)), TEST, CLASSES) for i in range(6)},
    "a test label": (TRAIN, replace(TEST, labels=flipped(TEST.labels, 2)), CLASSES),
    "an id": (replace(TRAIN, ids=[*TRAIN.ids[:5], "train/x"]), TEST, CLASSES),
    "a test id": (TRAIN, replace(TEST, ids=["test/x", *TEST.ids[1:]]), CLASSES),
    "a class name": (TRAIN, TEST, ["cat", "Dog"]),
    "a class more": (TRAIN, TEST, ["cat", "dog", "frog"]),
    "the class order": (TRAIN, TEST, ["dog", "cat"]),
    "the row order": (TRAIN.take(np.array([1, 0, 2, 3, 4, 5])), TEST, CLASSES),
    "a row less": (TRAIN.take(np.arange(5)), TEST, CLASSES),
    "the shape": (replace(TRAIN, content=TRAIN.content.reshape(6, 5, 4, 3)), TEST, CLASSES),
    "the splits swapped": (TEST, TRAIN, CLASSES),
    "a row moved between the splits": (
        TRAIN.take(np.arange(5)),
        TRAIN.take(np.array([5])) + TEST,
        CLASSES,
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_a_result_depends_on_changes_the_digest(change: str) -> None:
    assert digest_of(*CHANGES[change]) != digest_of(TRAIN, TEST, CLASSES)


def test_all_those_changes_have_digests_of_their_own() -> None:
    assert len({digest_of(*change) for change in CHANGES.values()}) == len(CHANGES)


def test_the_name_of_the_dataset_and_the_layout_in_memory_are_not_part_of_the_digest(tmp_path: Path) -> None:
    assert write(tmp_path / "a.h5", name="one") == write(tmp_path / "b.h5", name="two")
    strided = replace(TRAIN, content=np.asfortranarray(TRAIN.content))
    assert digest_of(strided, TEST, CLASSES) == digest_of(TRAIN, TEST, CLASSES)


def folder_digest(root: Path) -> str:
    folder = collect(image_folder(root, max_megapixels=1), on_bad_image="error")
    return digest_of(folder.splits["train"], folder.splits["test"], folder.class_names)


def test_a_folder_may_move_but_not_change(tmp_path: Path) -> None:
    root = tmp_path / "here"
    for i, place in enumerate(("train/cat", "train/dog", "test/cat", "test/dog")):
        (root / place).mkdir(parents=True)
        Image.new("RGB", (4, 4), (i, 0, 0)).save(root / place / "1.png")
    before = folder_digest(root)
    root = root.rename(tmp_path / "there")
    assert folder_digest(root) == before
    Image.new("RGB", (4, 4), (9, 0, 0)).save(root / "train/cat/1.png")
    changed = folder_digest(root)
    assert changed != before
    Image.new("RGB", (4, 4), (0, 0, 0)).save(root / "train/cat/1.png")
    assert folder_digest(root) == before
    (root / "train/cat/1.png").rename(root / "train/cat/2.png")
    assert folder_digest(root) not in (before, changed)


def test_taking_rows_and_joining_splits_keep_content_labels_and_ids_together() -> None:
    both = TRAIN + TEST
    assert both.ids == TRAIN.ids + TEST.ids
    rows = np.array([8, 0, 6])
    found = both.take(rows)
    assert found.ids == ["test/2", "train/0", "test/0"]
    np.testing.assert_array_equal(found.content, both.content[rows])
    np.testing.assert_array_equal(found.labels, both.labels[rows])
    assert_same(both.take(np.arange(6)), TRAIN)
    assert_same(both.take(np.arange(6, 9)), TEST)


ARRAYS: dict[str, Any] = {
    f"{name}/{part}": array
    for name, split in (("train", TRAIN), ("test", TEST))
    for part, array in (
        ("content", split.content),
        ("labels", split.labels),
        ("ids", container.encode_strings(split.ids)),
    )
}
ATTRIBUTES: dict[str, Any] = {
    "dataset": "toy",
    "max_per_class": 0,
    "class_names": class_names_attribute(CLASSES),
    "dataset_digest": "",
}


def without(items: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in items.items() if key != name}


@pytest.mark.parametrize(
    ("arrays", "attributes", "message"),
    [
        (without(ARRAYS, "train/labels"), ATTRIBUTES, "train/labels"),
        (ARRAYS, without(ATTRIBUTES, "max_per_class"), "max_per_class"),
        (ARRAYS, ATTRIBUTES | {"max_per_class": "many"}, "many"),
        (ARRAYS, ATTRIBUTES | {"class_names": "cat, dog"}, "class names cannot be read"),
        (ARRAYS | {"test/ids": np.arange(3)}, ATTRIBUTES, "expected strings"),
    ],
)
def test_a_file_that_lacks_something_is_refused(
    arrays: dict[str, Any], attributes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    container.write(tmp_path / "d.h5", kind="dataset", arrays=ARRAYS, attributes=ATTRIBUTES)
    assert read_dataset(tmp_path / "d.h5").name == "toy"
    container.write(tmp_path / "d.h5", kind="dataset", arrays=arrays, attributes=attributes)
    with pytest.raises(DataError, match=f"not a prepared dataset: .*{message}") as caught:
        read_dataset(tmp_path / "d.h5")
    assert (caught.value.exit_code, caught.value.where) == (3, str(tmp_path / "d.h5"))


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    container.write(tmp_path / "d.h5", kind="head", arrays=ARRAYS, attributes=ATTRIBUTES)
    with pytest.raises(DataError, match="expected dataset, schema 1; found head"):
        read_dataset(tmp_path / "d.h5")


@pytest.mark.parametrize(
    ("field", "other"),
    [("name", "other"), ("class_names", ["cat", "dog", "eel"]), ("max_per_class", 7), ("digest", "ab")],
)
def test_embeddings_of_another_dataset_are_refused_by_the_field_that_says_most(
    field: str, other: Any
) -> None:
    images = synthetic.image_embeddings()
    own = {"name": "synthetic", "max_per_class": 0, "digest": images.dataset_digest}
    part = PreparedSplit(np.zeros((0, 8, 8, 3), np.uint8), np.zeros(0, np.int64), [])
    dataset = Prepared(part, part, synthetic.CLASSES, **own)  # type: ignore[arg-type]
    check_embedded(dataset, images, where=Path("images"))
    said = {"name": "dataset", "digest": "dataset_digest"}.get(field, field)
    changed = replace(dataset, **{"digest": "ab", field: other})
    with pytest.raises(DataError, match=f"not of the prepared dataset: {said} is") as caught:
        check_embedded(changed, images, where=Path("images"))
    assert (caught.value.exit_code, caught.value.where) == (3, "images")
