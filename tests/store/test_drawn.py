"""Rows that a method learns from, where there are more than it may hold."""

from __future__ import annotations

import numpy as np
import pytest

from clipcifar.store.splits import drawn


def test_every_class_keeps_its_share_and_the_draw_is_always_the_same() -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 100])[np.random.default_rng(0).permutation(1000)]
    rows = np.flatnonzero(np.arange(1000) % 5 > 0)  # 800 of them
    drawn_rows = drawn(rows, labels, max_rows=200)
    counts = np.bincount(labels[rows])
    assert np.bincount(labels[drawn_rows]).tolist() == (counts * 200 // 800).tolist()
    assert (np.diff(drawn_rows) > 0).all()
    assert np.isin(drawn_rows, rows).all()
    assert (drawn(rows, labels, max_rows=200) == drawn_rows).all()
    assert (
        drawn_rows.tolist()
        != [  # not the first of each class
            row for label in range(3) for row in rows[labels[rows] == label][: counts[label] * 200 // 800]
        ]
    )


def test_a_rare_class_keeps_one_row() -> None:
    labels = np.zeros(1001, dtype=np.int64)
    labels[400] = 1
    drawn_rows = drawn(np.arange(1001), labels, max_rows=10)
    assert 400 in drawn_rows
    assert np.bincount(labels[drawn_rows]).tolist() == [9, 1]


@pytest.mark.parametrize("max_rows", [None, 3, 4])
def test_nothing_is_drawn_where_all_fit(max_rows: int | None) -> None:
    assert drawn(np.array([1, 2, 3]), np.array([0, 0, 0, 0]), max_rows=max_rows).tolist() == [1, 2, 3]
