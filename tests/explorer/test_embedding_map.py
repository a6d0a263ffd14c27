"""The map: its plane against numpy's SVD, its lasso against the even-odd rule point by point."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from clipcifar.core.errors import ConfigError
from clipcifar.explorer.embedding_map import MAX_CORNERS, inside, plane
from clipcifar.store import parts, rows as in_rows
from clipcifar.store.rows import Rows
from tests.support import made, synthetic


def _by_svd(rows: np.ndarray) -> np.ndarray:
    """The first two principal components of all rows, at once and in float64."""
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    return np.asarray(centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T)


@pytest.mark.parametrize("dim", [2, 3, 24, 200])
def test_the_plane_is_that_of_the_svd_up_to_the_signs(dim: int) -> None:
    train, _ = synthetic.task(150, num_classes=2, dim=dim, noise=1.0)
    test, _ = synthetic.task(50, num_classes=2, dim=dim, noise=0.5, seed=3)
    points = plane([train, test])
    expected = _by_svd(np.concatenate([train, test]))
    signs = np.sign((points * expected).sum(axis=0))
    assert (points.shape, points.dtype) == ((200, 2), np.float32)
    np.testing.assert_allclose(points, expected * signs, atol=2e-5)
    assert np.abs(points.astype(np.float64).mean(axis=0)).max() < 1e-6


def test_the_same_rows_are_the_same_bytes_and_mirrored_rows_a_mirrored_map() -> None:
    rows, _ = synthetic.task(90)
    assert plane([rows[:40], rows[40:]]).tobytes() == plane([rows[:40], rows[40:]]).tobytes()
    mirrored = rows * np.float32(-1)
    np.testing.assert_allclose(plane([mirrored]), -plane([rows]), atol=1e-5)


def test_rows_of_a_single_number_lie_on_a_line() -> None:
    rows = np.float32([[1], [-1], [1]])
    np.testing.assert_allclose(plane([rows]), [[2 / 3, 0], [-4 / 3, 0], [2 / 3, 0]], atol=1e-6)


@pytest.mark.parametrize("number", [1, 2])
def test_images_that_are_all_alike_are_a_single_point(number: int) -> None:
    rows = np.tile(synthetic.prototypes(1), (number, 1))
    np.testing.assert_allclose(plane([rows[:0], rows]), np.zeros((number, 2)), atol=1e-6)


def test_rows_in_several_parts_lie_where_those_in_memory_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = (synthetic.task(n, dim=made.DIM, seed=n)[0] for n in (70, 31))
    whole = made.write_rows(tmp_path / "whole", train, test)
    monkeypatch.setattr(parts, "PART_ROWS", 16)
    monkeypatch.setattr(in_rows, "_BLOCK_ROWS", 5)
    apart = made.write_rows(tmp_path / "apart", train, test)
    assert isinstance(apart.train.embeddings, Rows)
    np.testing.assert_allclose(
        plane([apart.train.embeddings, apart.test.embeddings]),
        plane([whole.train.embeddings, whole.test.embeddings]),
        atol=1e-5,
    )


def _is_inside(point: tuple[float, float], corners: list[tuple[float, float]]) -> bool:
    """Whether a ray to the right crosses the outline an odd number of times."""
    x, y = point
    crossings = 0
    for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if (ay > y) != (by > y) and x < ax + (y - ay) * (bx - ax) / (by - ay):
            crossings += 1
    return crossings % 2 == 1


CORNER = st.tuples(st.integers(-6, 6), st.integers(-6, 6))
POINTS = np.float32([(x / 4 + 0.0625 + y / 64, y / 4 + 0.03) for x in range(-25, 25) for y in range(-25, 25)])


def _clear_of_edges(corners: list[tuple[float, float]]) -> np.ndarray:
    """Which of the points are off every edge by more than rounding."""
    a = np.array(corners, dtype=np.float64)
    along = np.roll(a, -1, axis=0) - a
    from_a = POINTS.astype(np.float64)[:, None] - a
    lengths = np.maximum((along**2).sum(axis=1), 1e-9)
    at = np.clip((from_a * along).sum(axis=2) / lengths, 0, 1)
    return np.asarray(np.linalg.norm(from_a - at[:, :, None] * along, axis=2).min(axis=1) > 1e-3)


@given(st.lists(CORNER, min_size=3, max_size=9))
def test_the_lasso_holds_what_the_even_odd_rule_holds(corners: list[tuple[float, float]]) -> None:
    """Outlines that cross themselves, and closed ones, among them."""
    clear = _clear_of_edges(corners)
    rows = inside(POINTS, json.loads(json.dumps(corners)))
    assert len(set(rows.tolist())) == len(rows)
    expected = [_is_inside(point, corners) for point in POINTS[clear].tolist()]
    assert np.isin(np.flatnonzero(clear), rows).tolist() == expected


def test_the_nearest_to_the_middle_come_first() -> None:
    square = [[0, 0], [4, 0], [4, 4], [0, 4]]
    points = np.float32([[3.5, 3.5], [2, 2.1], [9, 9], [2, 3], [1, 1.5]])
    assert inside(points, square).tolist() == [1, 3, 4, 0]
    assert inside(points[:0], square).tolist() == []


HOSTILE = {
    "no list": '{"a": 1}',
    "null": "null",
    "a text": '"abc"',
    "a number": "7",
    "no corner": "[]",
    "two corners": "[[0, 0], [1, 1]]",
    "corners of one number": "[[0], [1], [2]]",
    "corners of three": "[[0, 0, 0], [1, 1, 1], [2, 2, 2]]",
    "ragged": "[[0, 0], [1], [2, 2]]",
    "nested": "[[[0, 0]], [[1, 1]], [[2, 2]]]",
    "far nested": "[" * 900 + "]" * 900,
    "not a number": "[[0, 0], [1, NaN], [2, 2]]",
    "without end": "[[0, 0], [1, Infinity], [2, 2]]",
    "the least whole number": f"[[0, 0], [1, {-(2**63)}], [2, 2]]",
    "beyond squares": "[[0, 0], [1, 1e300], [2, 2]]",
    "beyond a float": "[[0, 0], [1, 1e999], [2, 2]]",
    "a whole number beyond a float": f"[[0, 0], [1, 1{'0' * 400}], [2, 2]]",
    "names": '[["a", "b"], ["c", "d"], ["e", "f"]]',
    "numbers as text": '[["0", "0"], ["1", "0"], ["0", "1"]]',
    "truths": "[[true, false], [true, true], [false, false]]",
    "nothing among numbers": "[[0, 0], [1, null], [2, 2]]",
    "mappings": "[{}, {}, {}]",
    "more than a hand draws": json.dumps([[0, 0]] * (MAX_CORNERS + 1)),
    "a million": json.dumps([[i, i] for i in range(10**6)]),
}


@pytest.mark.parametrize("corners", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_outline_is_refused(corners: str) -> None:
    with pytest.raises(ConfigError):
        inside(POINTS, json.loads(corners))


def test_an_outline_of_any_size_is_answered_and_the_whole_map_is_inside_a_large_enough_triangle() -> None:
    for size, number in ((1e-300, 0), (1e8, len(POINTS))):
        assert len(inside(POINTS, [[-size, -size], [5 * size, -size], [-size, 5 * size]])) == number


def test_the_most_corners_that_there_may_be_are_enough_for_a_circle() -> None:
    turn = np.linspace(0, 2 * np.pi, MAX_CORNERS, endpoint=False)
    circle = np.stack([3 * np.cos(turn), 3 * np.sin(turn)], axis=1).tolist()
    rows = inside(POINTS, circle)
    lengths = np.linalg.norm(POINTS, axis=1)
    assert set(np.flatnonzero(lengths < 2.99)) <= set(rows.tolist()) <= set(np.flatnonzero(lengths < 3.01))
