"""Rows to fit a linear probe to, of the kinds on which a solver may end elsewhere than at the optimum."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NUM_VAL = 10_000


class Sets(NamedTuple):
    """Train and val: (N, D) float32 and (N,) int64 each, every class in train."""

    rows: NDArray[np.float32]
    labels: NDArray[np.int64]
    val_rows: NDArray[np.float32]
    val_labels: NDArray[np.int64]


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _clip_like(
    n: int,
    dim: int,
    *,
    num_classes: int = 10,
    decay: float = 0.5,
    apart: float = 1.0,
    common: float = 1.0,
    shares: list[float] | None = None,
    seed: int = 0,
) -> Sets:
    """Unit rows around class means with a large common mean; standard deviations fall as axis ** -decay."""
    rng = np.random.default_rng(seed)
    spectrum = (1 + np.arange(dim)) ** -decay
    spectrum /= np.linalg.norm(spectrum)
    rotation = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    shift = common * _unit(rng.normal(size=(1, dim)))
    means = rng.normal(size=(num_classes, dim)) * spectrum * apart
    labels = rng.choice(num_classes, n + NUM_VAL, p=shares)
    labels[:num_classes] = np.arange(num_classes)  # each at least once
    scattered = means[labels] + rng.normal(size=(n + NUM_VAL, dim)) * spectrum
    rows = _unit(shift + scattered @ rotation).astype(np.float32)
    return Sets(rows[:n], labels[:n], rows[n:], labels[n:])


def _duplicated(n: int, dim: int) -> Sets:
    sets = _clip_like(n // 5, dim, seed=1)
    return sets._replace(rows=np.repeat(sets.rows, 5, axis=0), labels=np.repeat(sets.labels, 5))


def _conflicting(n: int, dim: int) -> Sets:
    """Every row twice, a quarter of the second ones with another label."""
    sets = _clip_like(n // 2, dim, num_classes=4, seed=2)
    other = np.where(np.arange(n // 2) % 4, sets.labels, (sets.labels + 1) % 4)
    return sets._replace(rows=np.tile(sets.rows, (2, 1)), labels=np.concatenate([sets.labels, other]))


def _with_constants(n: int, dim: int) -> Sets:
    """A few coordinates are 0 for every image, and a few 0.3."""
    sets = _clip_like(n, dim, seed=3)
    for rows in (sets.rows, sets.val_rows):
        rows[:, :3], rows[:, 3:6] = 0, 0.3
    return sets


def _collinear(n: int, dim: int) -> Sets:
    """The second half of the coordinates repeats the first."""
    sets = _clip_like(n, dim // 2, seed=4)
    return sets._replace(rows=np.tile(sets.rows, (1, 2)), val_rows=np.tile(sets.val_rows, (1, 2)))


def _mislabelled(n: int, dim: int) -> Sets:
    sets = _clip_like(n, dim, num_classes=5, seed=5)
    wrong = np.arange(n) % 10 < 3
    return sets._replace(labels=np.where(wrong, (sets.labels + 1 + np.arange(n) % 4) % 5, sets.labels))


def _scaled(n: int, dim: int, *, by: float) -> Sets:
    sets = _clip_like(n, dim, seed=6)
    return sets._replace(rows=sets.rows * np.float32(by), val_rows=sets.val_rows * np.float32(by))


KINDS: dict[str, Callable[[int, int], Sets]] = {
    "like CLIP's": _clip_like,
    "ill-conditioned": lambda n, dim: _clip_like(n, dim, decay=2.0, seed=7),
    "far from the origin": lambda n, dim: _clip_like(n, dim, common=10.0, seed=8),
    "two classes": lambda n, dim: _clip_like(n, dim, num_classes=2, seed=9),
    "a hundred classes": lambda n, dim: _clip_like(n, dim, num_classes=100, apart=2.0, seed=10),
    "90 to 10": lambda n, dim: _clip_like(n, dim, num_classes=2, shares=[0.9, 0.1], seed=11),
    "a long tail": lambda n, dim: _clip_like(
        n, dim, num_classes=4, shares=[0.88, 0.1, 0.015, 0.005], seed=12
    ),
    "fewer rows than coordinates": lambda n, dim: _clip_like(n // 10, n // 5, seed=13),
    "duplicated": _duplicated,
    "conflicting": _conflicting,
    "constant coordinates": _with_constants,
    "collinear": _collinear,
    "mislabelled": _mislabelled,
    "separable": lambda n, dim: _clip_like(n, dim, num_classes=3, apart=6.0, seed=14),
    "scaled up": lambda n, dim: _scaled(n, dim, by=10),
    "scaled down": lambda n, dim: _scaled(n, dim, by=1 / 10),
}
