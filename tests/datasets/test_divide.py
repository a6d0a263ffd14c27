from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clipcifar.core.errors import DataError, EnvironmentFault
from clipcifar.datasets.divide import BEYOND, divide
from clipcifar.datasets.params import DatasetParams
from clipcifar.datasets.source import Collected, LeftOut, Sample, Source, Split, Unusable, collect
from clipcifar.store.dataset import OWN_VAL
from clipcifar.store.splits import SplitParams

DATASET = DatasetParams("imagefolder", "photos", None, 0, "error", test_fraction=0.25)
SPLIT = SplitParams(val_fraction=0.2, seed=0)


def samples(split: Split, counts: dict[str, int]) -> list[Sample]:
    return [
        Sample(
            split, name, f"{split}/{name}/{i:03}", hashlib.sha256(f"{split}{name}{i}".encode()).hexdigest()
        )
        for name, n in counts.items()
        for i in range(n)
    ]


def collected(*items: Sample | LeftOut | Unusable) -> Collected:
    source = Source("photos", ["cat", "dog"], items, frozenset())
    return collect(source, on_bad_image="skip")


def by_class(labels: np.ndarray) -> list[int]:
    return np.bincount(labels, minlength=2).tolist()


def test_a_share_of_every_class_of_a_flat_folder_becomes_test_and_one_of_the_rest_val() -> None:
    pool = collected(*samples("undivided", {"cat": 40, "dog": 8}))
    divided = divide(pool, DATASET, SPLIT)
    assert by_class(divided.test.labels) == [10, 2]
    assert by_class(divided.train.labels) == [30, 6]
    assert by_class(divided.train.labels[divided.rows.val]) == [6, 1]
    assert sorted(divided.train.ids + divided.test.ids) == sorted(pool.splits["undivided"].ids)
    assert divided.notes == [
        "no train and test folders: 0.25 of each class was drawn for test "
        "(dataset.test_fraction, dataset.seed 0)"
    ]
    assert divide(pool, replace(DATASET, seed=1), SPLIT).test.ids != divided.test.ids
    assert divide(pool, DATASET, SplitParams(0.2, seed=1)).test.ids == divided.test.ids


def test_the_test_images_of_a_flat_folder_do_not_depend_on_what_else_lies_there() -> None:
    few = divide(collected(*samples("undivided", {"cat": 40, "dog": 8})), DATASET, SPLIT)
    more = divide(collected(*samples("undivided", {"cat": 40, "dog": 80})), DATASET, SPLIT)
    cats = [[name for name in divided.test.ids if "/cat/" in name] for divided in (few, more)]
    assert cats[0] == cats[1]


def test_classes_too_small_for_three_splits_are_named() -> None:
    with pytest.raises(DataError, match=r"train, val and test: 'dog' \(2\)"):
        divide(collected(*samples("undivided", {"cat": 9, "dog": 2})), DATASET, SPLIT)
    divided = divide(collected(*samples("undivided", {"cat": 3, "dog": 3})), DATASET, SPLIT)
    assert [by_class(divided.train.labels[rows]) for rows in divided.rows] == [[1, 1], [1, 1]]


def test_test_alone_has_neither_train_nor_val_and_says_what_it_is_good_for() -> None:
    divided = divide(collected(*samples("test", {"cat": 3, "dog": 1})), DATASET, SPLIT)
    assert (len(divided.train.ids), divided.train.content.shape) == (0, (0,))
    assert (len(divided.rows.train), len(divided.rows.val)) == (0, 0)
    assert by_class(divided.test.labels) == [3, 1]
    assert len(divided.notes) == 1
    assert "zero-shot" in divided.notes[0]


def test_what_the_limit_per_class_leaves_out_is_counted_with_all_else() -> None:
    parts = [
        *samples("train", {"cat": 9, "dog": 4}),
        *samples("val", {"cat": 7, "dog": 2}),
        *samples("test", {"cat": 6, "dog": 1}),
        LeftOut(".heic", "train/cat/a.heic"),
        Unusable("train", "cat", "train/cat/bad", DataError("empty")),
    ]
    divided = divide(collected(*parts), replace(DATASET, max_per_class=4), SPLIT)
    assert divided.left_out == {".heic": 1, "not readable as an image": 1, BEYOND: 5 + 3 + 2}
    assert divided.notes == [OWN_VAL]
    assert [by_class(divided.train.labels[rows]) for rows in divided.rows] == [[4, 4], [4, 2]]
    assert [name.split("/")[0] for name in divided.train.ids] == ["train"] * 8 + ["val"] * 6
    used = len(divided.train.ids) + len(divided.test.ids)
    assert used + sum(divided.left_out.values()) == len(parts)
    assert divide(collected(*parts), DATASET, SPLIT).left_out == {".heic": 1, "not readable as an image": 1}


def test_one_image_per_class_by_request_is_mended_by_the_request() -> None:
    parts = collected(*samples("train", {"cat": 9, "dog": 4}), *samples("test", {"cat": 6, "dog": 1}))
    with pytest.raises(DataError, match="too few images for train and val") as caught:
        divide(parts, replace(DATASET, max_per_class=1), SPLIT)
    assert caught.value.fix == "raise dataset.max_per_class"


def test_every_item_of_a_source_is_used_or_counted_or_an_error() -> None:
    bad = [Unusable("train", "cat", f"train/cat/{i}", DataError("empty")) for i in range(2)]
    items = [
        *samples("train", {"cat": 2, "dog": 3}),
        *bad,
        LeftOut(".txt", "x.txt"),
        LeftOut(".txt", "y.txt"),
    ]
    source = Source("photos", ["cat", "dog"], items)
    skipped = collect(source, on_bad_image="skip")
    assert skipped.left_out == Counter({".txt": 2, "not readable as an image": 2})
    assert len(skipped.splits["train"].ids) + skipped.left_out.total() == len(items)
    assert skipped.unreadable == ["train/cat/0: empty", "train/cat/1: empty"]
    with pytest.raises(DataError, match="2 of 7 images cannot be used"):
        collect(source, on_bad_image="error")
    unread = Unusable("train", "dog", "train/dog/9", EnvironmentFault("train/dog/9: Permission denied"))
    with pytest.raises(EnvironmentFault, match="1 of 8 images cannot be read"):
        collect(replace(source, items=[*items, unread]), on_bad_image="skip")


def test_a_place_that_must_hold_images_and_does_not_is_an_error_with_what_lies_there() -> None:
    items = [*samples("train", {"cat": 2}), LeftOut(".heic", "train/dog/a.heic", "train", "dog")]
    source = Source("photos", ["cat", "dog"], items, frozenset({("train", "cat"), ("train", "dog")}))
    with pytest.raises(
        DataError, match=r"1 class folder holds no image that can be read:\n +train/dog: 1 \.heic"
    ):
        collect(source, on_bad_image="error")


def test_the_path_of_a_source_is_where_its_errors_are(tmp_path: Path) -> None:
    bad = Unusable(
        "train", "cat", "train/cat/0", DataError("bomb", fix="raise dataset.max_megapixels to 400")
    )
    with pytest.raises(DataError) as caught:
        collect(Source(str(tmp_path), ["cat"], [bad]), on_bad_image="error")
    assert caught.value.where == str(tmp_path)
    assert caught.value.fix.startswith("raise dataset.max_megapixels to 400, or ")
