"""Images with a twin, among the train images or in their own split, by cosine similarity of embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipcifar.evaluation.signs import LEVEL, RESAMPLES
from clipcifar.store.rows import Embeddings

QUERY_BLOCK, KEY_BLOCK = 1024, 8192  # a block of similarities is 32 MB
OWN_BLOCK = 2048  # of a split with itself: 16 MB
BACKGROUND_PAIRS = 200_000


@dataclass(frozen=True)
class Without:
    """An accuracy with and without some images.

    Attributes:
        all, rest, those: accuracy on all images, on the rest, and on those left out (0 where there is none).
        n_correct, n: on the rest.
        difference: rest minus all.
        low, high: its 95 % bootstrap interval.
    """

    all: float
    rest: float
    those: float
    n_correct: int
    n: int
    difference: float
    low: float
    high: float


def nearest(
    queries: Embeddings,
    keys: Embeddings,
    *,
    own: NDArray[np.int64] | None = None,
    on_rows: Callable[[int], object] = lambda count: None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The most similar key of every query, in blocks: memory depends on neither number of rows.

    Args:
        queries: (M, D) float32 unit rows.
        keys: (N, D) float32 unit rows.
        own: (M,) which key each query is, that does not count; None where they are none of the keys.
        on_rows: called with how many queries have been answered since the last call.

    Returns:
        (M,) int64 rows of `keys`, the first of equals, and (M,) float32 cosines.
    """
    rows = np.zeros(len(queries), dtype=np.int64)
    best = np.full(len(queries), -np.inf, dtype=np.float32)
    for start in range(0, len(queries), QUERY_BLOCK):
        block = slice(start, start + QUERY_BLOCK)
        for first in range(0, len(keys), KEY_BLOCK):
            cosines = queries[block] @ keys[first : first + KEY_BLOCK].T
            if own is not None:
                cosines[own[block, None] == np.arange(first, first + cosines.shape[1])] = -np.inf
            _keep_better(rows[block], best[block], cosines, first)
        on_rows(len(best[block]))
    return rows, best


def nearest_other(
    embeddings: Embeddings, *, on_rows: Callable[[int], object] = lambda count: None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The most similar other row of every row, in blocks, each of which serves its rows and its columns.

    Args:
        embeddings: (N, D) float32 unit rows.
        on_rows: called with how many rows have been compared with all that follow, since the last call.

    Returns:
        (N,) int64 rows, the first of equals, and (N,) float32 cosines, -inf where there is no other row.
    """
    rows = np.zeros(len(embeddings), dtype=np.int64)
    best = np.full(len(embeddings), -np.inf, dtype=np.float32)
    for start in range(0, len(embeddings), OWN_BLOCK):
        block = slice(start, start + OWN_BLOCK)
        for first in range(start, len(embeddings), OWN_BLOCK):
            other = slice(first, first + OWN_BLOCK)
            cosines = embeddings[block] @ embeddings[other].T
            if first == start:
                np.fill_diagonal(cosines, -np.inf)
            else:
                _keep_better(rows[other], best[other], cosines.T, start)
            _keep_better(rows[block], best[block], cosines, first)
        on_rows(len(best[block]))
    return rows, best


def _keep_better(
    rows: NDArray[np.int64], best: NDArray[np.float32], cosines: NDArray[np.float32], first: int
) -> None:
    """Take what is better in (M, N) cosines, of keys from `first` on, into `rows` and `best`, in place."""
    value = cosines.max(axis=1)
    better = value > best
    rows[better] = first + cosines[better].argmax(axis=1)  # of the few that have a better key here
    best[better] = value[better]


def background(
    queries: Embeddings,
    query_labels: NDArray[np.int64],
    keys: Embeddings,
    key_labels: NDArray[np.int64],
    *,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Cosines of random pairs of one class, (P,) float32: what two pictures of a thing are anyway.

    Args:
        queries, query_labels: (M, D) float32 unit rows and (M,) int64.
        keys, key_labels: (N, D) and (N,), likewise; every class of a query must occur.
    """
    rng = np.random.default_rng(seed)
    left = rng.integers(len(queries), size=BACKGROUND_PAIRS)
    order = np.argsort(key_labels, kind="stable")
    ends = np.searchsorted(key_labels[order], np.arange(key_labels.max() + 2))
    first, after = ends[query_labels[left]], ends[query_labels[left] + 1]
    right = order[first + (rng.random(BACKGROUND_PAIRS) * (after - first)).astype(np.int64)]
    # In order, so that each piece lies in few parts; in pieces, which bounds the memory of gathered rows.
    parts = np.array_split(np.argsort(right, kind="stable"), 20)
    return np.concatenate([np.einsum("nd,nd->n", queries[left[part]], keys[right[part]]) for part in parts])


def without(correct: NDArray[np.bool_], left_out: NDArray[np.bool_], *, seed: int = 0) -> Without:
    """Accuracy on the images that are not left out, against that on all.

    The bootstrap resamples images; the difference depends on a resample only through how many of the
    four kinds (right or wrong, left out or not) it holds, so those counts are drawn directly.

    Args:
        correct: (N,) bool.
        left_out: (N,) bool, not all true.
    """
    kinds = [correct & ~left_out, ~correct & ~left_out, correct & left_out, ~correct & left_out]
    counts = np.array([kind.sum() for kind in kinds])
    draws = np.random.default_rng(seed).multinomial(len(correct), counts / len(correct), size=RESAMPLES)
    rest = draws[:, 0] / np.maximum(draws[:, 0] + draws[:, 1], 1)
    low, high = np.quantile(rest - (draws[:, 0] + draws[:, 2]) / len(correct), [LEVEL / 2, 1 - LEVEL / 2])
    accuracy, of_rest = float(correct.mean()), float(correct[~left_out].mean())
    return Without(
        all=accuracy,
        rest=of_rest,
        those=float(correct[left_out].mean()) if left_out.any() else 0.0,
        n_correct=int(counts[0]),
        n=int(counts[:2].sum()),
        difference=of_rest - accuracy,
        low=float(low),
        high=float(high),
    )
