from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from clipcifar.core.errors import DataError
from clipcifar.store.embeddings import Split
from clipcifar.store.splits import TrainVal
from clipcifar.studies.few_shot.shots import both_ways, check_shots, draw
from tests.support.synthetic import CLASSES, image_embeddings, train_val

IMAGES = image_embeddings()
ROWS = train_val(IMAGES)


def drawn(shots: int, *, val_per_class: int | None = 2, seed: int = 0) -> TrainVal:
    return draw(IMAGES.train, ROWS, shots=shots, val_per_class=val_per_class, seed=seed)


def test_so_many_of_every_class_from_the_right_part() -> None:
    for shots in (1, 3, 7):
        found = drawn(shots)
        assert np.bincount(IMAGES.train.labels[found.train]).tolist() == [shots] * 3
        assert np.bincount(IMAGES.train.labels[found.val]).tolist() == [2] * 3
        assert set(found.train) <= set(ROWS.train)
        assert set(found.val) <= set(ROWS.val)


def test_draws_of_a_seed_are_nested_and_other_seeds_differ() -> None:
    sets = [set(drawn(shots).train) for shots in (1, 2, 4, 8)]
    assert all(small < large for small, large in pairwise(sets))
    assert len({frozenset(drawn(4, seed=seed).train) for seed in range(5)}) == 5
    assert set(drawn(4).val) != set(drawn(4, seed=1).val)


def test_all_of_val_where_nothing_bounds_it() -> None:
    np.testing.assert_array_equal(drawn(1, val_per_class=None).val, ROWS.val)


def test_the_order_of_the_images_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(len(IMAGES.train.ids))
    place = np.argsort(order)
    shuffled = Split(
        IMAGES.train.embeddings[order], IMAGES.train.labels[order], [IMAGES.train.ids[i] for i in order]
    )
    rows = TrainVal(np.sort(place[ROWS.train]), np.sort(place[ROWS.val]))
    found = draw(shuffled, rows, shots=3, val_per_class=2, seed=0)
    assert {shuffled.ids[row] for row in found.train} == {IMAGES.train.ids[row] for row in drawn(3).train}


def test_a_class_with_fewer_images_than_a_draw_wants_is_named() -> None:
    check_shots(IMAGES.train.labels, ROWS, shots=45, class_names=CLASSES)
    with pytest.raises(DataError, match="'ant' has 45 train") as caught:
        check_shots(IMAGES.train.labels, ROWS, shots=46, class_names=CLASSES)
    assert caught.value.exit_code == 3
    assert "45 or less" in caught.value.fix
    no_bee = ROWS._replace(val=ROWS.val[IMAGES.train.labels[ROWS.val] != 1])
    with pytest.raises(DataError, match="'bee' has 45 train and 0 val"):
        check_shots(IMAGES.train.labels, no_bee, shots=1, class_names=CLASSES)


def test_turned_round_val_is_learnt_from_and_as_many_of_train_judge() -> None:
    found = drawn(5)
    ways = both_ways(IMAGES.train, found, per_class=2, seed=0)
    assert ways[0] is found
    turned = ways[1]
    np.testing.assert_array_equal(turned.val, drawn(2).train)  # nested: the draw of two
    assert set(turned.train) == (set(found.train) - set(turned.val)) | set(found.val)
    assert len(turned.train) == len(found.train)
    assert (np.diff(turned.train) > 0).all()
    whole = both_ways(IMAGES.train, drawn(2), per_class=2, seed=0)[1]
    np.testing.assert_array_equal(whole.train, drawn(2).val)
    np.testing.assert_array_equal(whole.val, drawn(2).train)
