"""Images that are there more than once: under two classes, in two splits, or only twice."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from clipcifar.datasets.plain_files import MAX_REPORTED
from clipcifar.datasets.twins import Copy, Twins, find
from clipcifar.store.dataset import PreparedSplit

NAMES = ["cat", "dog"]


def _split(name: str, contents: str, labels: list[int], *, pixels: bool) -> PreparedSplit:
    """An image for each letter; equal letters are equal images."""
    ids = [f"{name}/{NAMES[label]}/{i}.png" for i, label in enumerate(labels)]
    if pixels:
        content = np.stack([np.full((2, 2, 3), ord(letter), dtype=np.uint8) for letter in contents])
    else:
        content = np.array([hashlib.sha256(letter.encode()).hexdigest() for letter in contents], dtype="S64")
    return PreparedSplit(content, np.array(labels), ids)


def _twins(train: str, train_labels: list[int], test: str, test_labels: list[int], *, pixels: bool) -> Twins:
    of_train, of_test = (
        _split(name, contents, labels, pixels=pixels)
        for name, contents, labels in (("train", train, train_labels), ("test", test, test_labels))
    )
    return find(of_train, of_test, val=np.array([3], dtype=np.int64))


@pytest.mark.parametrize("pixels", [False, True])
def test_every_kind_is_counted_and_named_with_both_names(pixels: bool) -> None:
    # In train a twice, as cat and as dog; b in train and test; c in train and val; d twice in test; e alone.
    twins = _twins("aabcce", [0, 1, 0, 1, 1, 0], "bdd", [0, 1, 1], pixels=pixels)
    assert twins.counts() == {
        "two_classes": 1,
        "train_and_val": 1,
        "train_and_test": 1,
        "val_and_test": 0,
        "repeated": 1,
    }
    assert twins.wrong_labels == 1
    assert twins.lines(NAMES) == [
        "under two classes, 1 image: at least 1 label must be wrong",
        "    train/cat/0.png (cat) is train/dog/1.png (dog)",
        "both in train and in val, 1 image: val chooses by what was learnt",
        "    train/dog/4.png is train/dog/3.png",
        "both in train and in test, 1 image: test asks for what was learnt or chosen by",
        "    train/cat/2.png is test/cat/0.png",
        "more than once in one split under one class, 1 image",
    ]


@pytest.mark.parametrize("pixels", [False, True])
def test_where_no_image_is_twice_there_is_nothing_to_say(pixels: bool) -> None:
    twins = _twins("abcd", [0, 1, 0, 1], "ef", [0, 1], pixels=pixels)
    assert twins == Twins([])
    assert set(twins.counts().values()) == {0}
    assert twins.lines(NAMES) == []


def test_one_image_may_be_of_every_kind_at_once() -> None:
    twins = _twins("aabaa", [0, 0, 1, 1, 0], "aa", [1, 1], pixels=False)
    assert twins.groups[0][0] == Copy("train", "train/cat/0.png", 0)
    assert twins.groups[0][3] == Copy("val", "train/dog/3.png", 1)
    assert [copy.split for copy in twins.groups[0]] == ["train"] * 3 + ["val"] + ["test"] * 2
    assert set(twins.counts().values()) == {1}
    assert twins.wrong_labels == 3  # three are cats, three are dogs
    assert "    train/cat/0.png (cat) is test/dog/0.png (dog)" in twins.lines(NAMES)


def test_labels_that_differ_between_the_splits_are_two_classes_as_well() -> None:
    twins = _twins("abcd", [0, 1, 0, 1], "ca", [1, 0], pixels=True)
    assert twins.counts()["train_and_test"] == 2
    assert [[copy.sample_id for copy in group] for group in twins.of_two_classes] == [
        ["train/cat/2.png", "test/dog/0.png"]
    ]


def test_a_long_list_is_cut_and_names_stay_on_their_line() -> None:
    letters = "".join(chr(ord("A") + i) for i in range(30))
    twins = _twins(letters, [0] * 30, letters, [0] * 30, pixels=False)
    lines = twins.lines(NAMES)
    heads = [line for line in lines if not line.startswith("    ")]
    assert heads == [
        "both in train and in test, 29 images: test asks for what was learnt or chosen by",
        "both in val and in test, 1 image: test asks for what was learnt or chosen by",
    ]
    assert len(lines) == len(heads) + MAX_REPORTED + 1 + 1
    assert f"    and {29 - MAX_REPORTED} more" in lines
    odd = Twins([[Copy("train", "train/a\n\x1b/0.png", 0), Copy("test", "b", 0)]])
    assert odd.lines(NAMES)[1] == r"    train/a\u000a\u001b/0.png is b"


def test_any_number_of_images_is_read_once() -> None:
    """Copies of copies take a line, not a line for every pair of them."""
    twins = _twins("a" * 2000, [0, 1] * 1000, "a" * 50, [0] * 50, pixels=False)
    assert len(twins.groups) == 1
    assert twins.wrong_labels == 1000
    assert len(twins.lines(NAMES)) == 2 * 4 + 1
