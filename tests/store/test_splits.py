from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from clipcifar.core.errors import DataError
from clipcifar.store import splits

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


def test_all_classes_too_small_to_split_are_named_at_once() -> None:
    labels = np.array([0, 0, 1, 2])
    with pytest.raises(
        DataError, match=r"2 classes have too few images for train and val: 'b' \(1\), 'c' \(1\)"
    ) as caught:
        splits.stratified_split(labels, _ids(4), class_names=list("abc"), val_fraction=0.1, seed=0)
    assert caught.value.exit_code == 3
    assert "val_fraction" not in caught.value.fix  # which could not help
    with pytest.raises(DataError, match=r"12 classes .*'9' \(0\), …"):
        splits.check_counts(labels[:0], class_names=[f"{i}" for i in range(12)], parts=("train", "val"))
    splits.check_counts(np.array([0, 0, 1, 1]), class_names=["a", "b"], parts=("train", "val"))
    with pytest.raises(DataError, match=r"for train, val and test: 'a' \(2\), 'b' \(2\)"):
        splits.check_counts(np.array([0, 0, 1, 1]), class_names=["a", "b"], parts=("train", "val", "test"))


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
    for other_ids, digest, message in (
        (["a", "b", "c"], "1", "only one of them has 'd'; 1 such"),
        (["a", "b", "c", "x"], "1", "only one of them has 'd'; 2 such"),
        (ids, "2", "dataset_digest is '1' for the split and '2' for the embeddings"),
    ):
        with pytest.raises(DataError, match=f"another dataset than the embeddings: {message}"):
            splits.read_splits(path, other_ids, dataset_digest=digest)


def test_a_class_without_images_is_named() -> None:
    with pytest.raises(DataError, match=r"too few images for train and val: 'eel' \(0\)") as caught:
        splits.stratified_split(np.array([0, 0, 1, 1]), _ids(4), class_names=NAMES, val_fraction=0.5, seed=0)
    assert "split train" in str(caught.value)


@pytest.mark.parametrize(("fraction", "val"), [(0.001, 1), (0.34, 1), (0.67, 2), (0.9, 2)])
def test_a_share_takes_at_least_one_of_a_class_and_never_all(fraction: float, val: int) -> None:
    rows = splits.stratified_split(
        np.array([0, 0, 0]), _ids(3), class_names=["cat"], val_fraction=fraction, seed=0
    )
    assert (len(rows.train), len(rows.val)) == (3 - val, val)


@settings(max_examples=20)
@given(st.randoms(use_true_random=False), st.integers(0, 3))
def test_each_id_falls_on_its_side_whatever_else_is_there_in_whatever_order(
    shuffle: Random, seed: int
) -> None:
    ids, labels = _ids(60), [i % 3 for i in range(60)]
    order = list(range(60))
    shuffle.shuffle(order)

    def val(order: list[int], names: list[str]) -> set[str]:
        own = np.array([labels[i] for i in order])
        rows = splits.stratified_split(
            own, [ids[i] for i in order], class_names=names, val_fraction=0.3, seed=seed
        )
        assert rows.train.tolist() == sorted(rows.train.tolist())
        assert rows.val.tolist() == sorted(rows.val.tolist())
        return {ids[order[row]] for row in rows.val}

    assert val(order, NAMES) == val(list(range(60)), NAMES)
    cats = [i for i in order if labels[i] == 0]
    assert val(cats, ["cat"]) == {i for i in val(order, NAMES) if i in {ids[c] for c in cats}}


def test_val_is_no_favourite_of_the_ids_order() -> None:
    """A hash that followed the ids would put neighbours, such as frames of one film, together."""
    rows = splits.stratified_split(
        np.zeros(4000, dtype=np.int64), _ids(4000), class_names=["cat"], val_fraction=0.1, seed=0
    )
    quarters = np.bincount(rows.val // 1000, minlength=4)
    # 400 balls in 4 urns: mean 100, deviation sqrt(400 / 4 * 3 / 4 * 0.9) = 8.2; five of them
    assert (np.abs(quarters - 100) < 41).all()


def test_the_subset_and_the_split_are_drawn_independently() -> None:
    """Else a quick look at few images would see val images first."""
    labels, ids = np.zeros(2000, dtype=np.int64), _ids(2000)
    val = splits.stratified_split(labels, ids, class_names=["cat"], val_fraction=0.1, seed=0).val
    subset = splits.seeded_subset(labels, ids, max_per_class=200, seed=0)
    # Hypergeometric: 200 of 2,000, twice; mean 20, deviation 4.0
    assert 0 < len(set(val.tolist()) & set(subset.tolist())) < 41


def test_a_subset_does_not_depend_on_the_order_either() -> None:
    labels, ids = np.arange(90) % 3, _ids(90)
    order = np.random.default_rng(0).permutation(90)
    straight = splits.seeded_subset(labels, ids, max_per_class=7, seed=0)
    shuffled = splits.seeded_subset(labels[order], [ids[i] for i in order], max_per_class=7, seed=0)
    assert {ids[row] for row in straight} == {ids[order[row]] for row in shuffled}
    assert shuffled.tolist() == sorted(shuffled.tolist())
    assert len(splits.seeded_subset(labels[:0], [], max_per_class=7, seed=0)) == 0


def test_a_stored_split_is_the_split_and_another_digest_or_file_is_not(tmp_path: Path) -> None:
    labels, ids = np.arange(50) % 3, [f"träin/{i}" for i in range(50)]
    rows = splits.stratified_split(labels, ids, class_names=NAMES, val_fraction=0.3, seed=0)
    paths = tmp_path / "a.h5", tmp_path / "b.h5"
    for path in paths:
        splits.write_splits(path, ids, rows, attributes={"dataset_digest": "d"})
    found = splits.read_splits(paths[0], ids, dataset_digest="d")
    np.testing.assert_array_equal(found.train, rows.train)
    np.testing.assert_array_equal(found.val, rows.val)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with pytest.raises(DataError) as caught:
        splits.read_splits(paths[0], ids, dataset_digest="e")
    assert str(paths[0]) in caught.value.where
    content = bytearray(paths[0].read_bytes())
    content[content.index("träin/7".encode())] ^= 1
    paths[0].write_bytes(content)
    with pytest.raises(DataError):
        splits.read_splits(paths[0], ids, dataset_digest="d")
