from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipcifar import splits
from clipcifar.errors import DataError

NAMES = ["cat", "dog", "eel"]


def _ids(n: int) -> list[str]:
    return [f"train/{i:05d}" for i in range(n)]


@settings(max_examples=30)
@given(st.lists(st.integers(2, 40), min_size=3, max_size=3), st.integers(0, 5), st.floats(0.05, 0.5))
def test_a_split_is_disjoint_covering_and_stratified(counts: list[int], seed: int, fraction: float) -> None:
    labels = np.repeat(np.arange(3), counts)
    rows = splits.stratified_split(
        labels, _ids(len(labels)), class_names=NAMES, val_fraction=fraction, seed=seed
    )
    assert sorted([*rows.train, *rows.val]) == list(range(len(labels)))
    for label, count in enumerate(counts):
        assert (labels[rows.val] == label).sum() == max(1, round(count * fraction))


def test_cifar_splits_into_45000_and_5000() -> None:
    labels = np.arange(50_000) % 10
    names = [str(i) for i in range(10)]
    rows = splits.stratified_split(labels, _ids(50_000), class_names=names, val_fraction=0.1, seed=0)
    assert (len(rows.train), len(rows.val)) == (45_000, 5_000)
    assert set(np.bincount(labels[rows.val])) == {500}


def test_a_split_depends_on_ids_and_seed_and_not_on_order() -> None:
    labels, ids = np.arange(60) % 3, _ids(60)
    order = np.random.default_rng(0).permutation(60)

    def val(labels: np.ndarray, ids: list[str], seed: int) -> set[str]:
        rows = splits.stratified_split(labels, ids, class_names=NAMES, val_fraction=0.2, seed=seed)
        return {ids[row] for row in rows.val}

    assert val(labels, ids, 0) == val(labels[order], [ids[i] for i in order], 0)
    assert val(labels, ids, 0) != val(labels, ids, 1)


def test_one_more_sample_moves_at_most_one_other() -> None:
    labels, ids = np.zeros(50, dtype=np.int64), _ids(50)

    def val(n: int) -> set[str]:
        rows = splits.stratified_split(labels[:n], ids[:n], class_names=["cat"], val_fraction=0.2, seed=0)
        return {ids[row] for row in rows.val}

    for n in range(30, 50):
        assert len(val(n) - val(n + 1)) <= 1


def test_a_class_too_small_to_split_is_named() -> None:
    labels = np.array([0, 0, 1])
    with pytest.raises(DataError, match="'dog' has 1 train images") as caught:
        splits.stratified_split(labels, _ids(3), class_names=["cat", "dog"], val_fraction=0.1, seed=0)
    assert caught.value.exit_code == 3


def test_subsets_are_nested_capped_and_seeded() -> None:
    labels, ids = np.array([0] * 30 + [1] * 5), _ids(35)
    chosen = [
        set(splits.seeded_subset(labels, ids, max_per_class=k, seed=0).tolist()) for k in (1, 4, 10, 99)
    ]
    assert [len(c) for c in chosen] == [2, 8, 15, 35]
    assert chosen[0] < chosen[1] < chosen[2] < chosen[3]
    other = set(splits.seeded_subset(labels, ids, max_per_class=4, seed=1).tolist())
    assert other != chosen[1]


def test_a_stored_split_is_joined_by_id(tmp_path: Path) -> None:
    path, ids = tmp_path / "splits.h5", ["a", "b", "c", "d"]
    rows = splits.TrainVal(np.array([0, 2]), np.array([1, 3]))
    splits.write_splits(path, ids, rows, attributes={"dataset_digest": "1"})
    found = splits.read_splits(path, ["d", "c", "b", "a"], dataset_digest="1")
    assert (found.train.tolist(), found.val.tolist()) == ([1, 3], [0, 2])
    for other_ids, digest in ((["a", "b", "c"], "1"), (["a", "b", "c", "x"], "1"), (ids, "2")):
        with pytest.raises(DataError, match="another dataset"):
            splits.read_splits(path, other_ids, dataset_digest=digest)


def test_a_val_split_of_the_users_own_keeps_its_share_of_a_subset() -> None:
    ids = [f"train/{i}" for i in range(500)] + [f"val/{i}" for i in range(5)]
    chosen = splits.seeded_subset(np.zeros(505, dtype=np.int64), ids, max_per_class=10, seed=0)
    assert [ids[row].split("/")[0] for row in chosen] == ["train"] * 10 + ["val"] * 5
