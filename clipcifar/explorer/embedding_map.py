"""All images as points of a plane: the first two principal components of their embeddings.

PCA by the eigenvectors of the (D, D) covariance (Pearson 1901; Hotelling 1933): one pass over
the rows, one more for the points.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import ConfigError
from clipcifar.store.rows import Embeddings, blocks_of

MAX_CORNERS = 5000  # of a lasso
_FAR = 1e9  # where unit rows are no longer, and squares are still numbers


def plane(embeddings: Iterable[Embeddings]) -> NDArray[np.float32]:
    """(N, 2) float32, each row's first two principal components, all rows in order.

    The sign of a component is free: its largest weight is positive, so that a map looks the same again.

    Args:
        embeddings: (N_i, D) float32 rows of several splits.
    """
    splits = list(embeddings)
    num_rows, dim = sum(len(split) for split in splits), splits[0].shape[1]
    total, products = np.zeros(dim), np.zeros((dim, dim))
    for split in splits:
        for _, rows in blocks_of(split):
            total += rows.sum(axis=0, dtype=np.float64)
            products += rows.T @ rows
    mean = total / max(num_rows, 1)
    _, vectors = np.linalg.eigh(products / max(num_rows, 1) - np.outer(mean, mean))
    axes = vectors[:, : -min(2, dim) - 1 : -1]
    axes = np.pad(axes * np.sign(axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])]), ((0, 0), (0, 2)))
    axes = axes[:, :2].astype(np.float32)
    points: NDArray[np.float32] = np.concatenate([split @ axes for split in splits])
    return np.asarray(points - (mean @ axes).astype(np.float32))


def inside(points: NDArray[np.float32], corners: object) -> NDArray[np.int64]:
    """The rows of (N, 2) points inside a polygon, those nearest to its middle first.

    Args:
        corners: what a browser sent: a list of pairs of numbers.

    Raises:
        ConfigError: it is no polygon.
    """
    from matplotlib.path import Path as Outline  # half a second, which other pages do without

    try:
        polygon = np.array(corners)
    except ValueError as error:
        raise ConfigError("the lasso is no list of pairs of numbers") from error
    if polygon.dtype.kind not in "if":  # text, truths, whole numbers beyond 64 bits
        raise ConfigError("the lasso is no list of pairs of numbers")
    if polygon.ndim != 2 or polygon.shape[1] != 2 or not 3 <= len(polygon) <= MAX_CORNERS:
        raise ConfigError(f"the lasso has {polygon.shape} numbers, not 3 to {MAX_CORNERS:,} corners")
    polygon = polygon.astype(np.float64)
    if not (np.abs(polygon) < _FAR).all():  # nor is NaN
        raise ConfigError("a corner of the lasso is on no map")
    rows = np.flatnonzero(Outline(polygon).contains_points(points))
    away = ((points[rows] - polygon.mean(axis=0)) ** 2).sum(axis=1)
    return np.asarray(rows[np.argsort(away, kind="stable")])
