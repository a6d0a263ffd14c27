"""The most similar row of every row, among more rows than can all be compared.

The index is faiss's inverted file over product codes (Jégou, Douze and Schmid 2011, "Product quantization for
nearest neighbor search", IEEE TPAMI 33(1); Douze et al. 2024, "The Faiss library", arXiv:2401.08281): a byte
for eight numbers, so that the rows stay on disk. What it proposes to a query is compared as it is stored, so
every cosine is exact; what can happen is that it does not propose the nearest row. How often that is the
case is measured on some of the queries, by comparing them with all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.counts import count_of
from clipcifar.core.progress import progress
from clipcifar.store import parts
from clipcifar.store.rows import Embeddings, blocks_of, taken
from clipcifar.studies.near_duplicates import nearest as exact

MANY = 10**10  # comparisons of two rows: three minutes of a core
CANDIDATES = 32
INSTALL = "pip install --constraint constraints.txt --editable '.[faiss]'"
_LIST_ROWS, _MAX_LISTS, _PROBES = 256, 4096, 16
_ROUNDS = 10  # of k-means over the lists; faiss's 25 take minutes of a core, and recall is as high
_CODED = 8  # numbers a byte stands for
_TRAINING_ROWS, _MEASURED, _SEED = 65_536, 256, 0
_JUDGED = 16_384  # pairs at once

Nearest = tuple[NDArray[np.int64], NDArray[np.float32]]


class Search(Protocol):
    """What answers for the rows of one side.

    Attributes:
        doubt: a sentence on what it may have missed; empty where it compares all.
    """

    doubt: str

    def nearest(self, queries: Embeddings, *, on_rows: Callable[[int], object]) -> Nearest:
        """As `nearest.nearest`."""

    def nearest_other(self, *, on_rows: Callable[[int], object]) -> Nearest:
        """As `nearest.nearest_other`."""


def search_in(keys: Embeddings, *, num_queries: int) -> Search:
    """Exact, or by an index where that would be too many comparisons and faiss is installed.

    Args:
        keys: (N, D) float32 unit rows.
        num_queries: that come besides the rows themselves.
    """
    comparisons = len(keys) * (len(keys) // 2 + num_queries)
    if comparisons <= MANY:
        return Exact(keys)
    try:
        return Index(keys)
    except ImportError:
        hours = 19e-9 * comparisons / 3600
        print(f"comparing all takes about {hours:.1f} h of a core; an index takes minutes: {INSTALL}")
        return Exact(keys)


class Exact:
    """Every query with every key."""

    doubt = ""

    def __init__(self, keys: Embeddings) -> None:
        self._keys = keys

    def nearest(self, queries: Embeddings, *, on_rows: Callable[[int], object]) -> Nearest:
        return exact.nearest(queries, self._keys, on_rows=on_rows)

    def nearest_other(self, *, on_rows: Callable[[int], object]) -> Nearest:
        return exact.nearest_other(self._keys, on_rows=on_rows)


class Index:
    """Codes of all keys, in lists of rows that are near each other.

    Args:
        keys: (N, D) float32 unit rows; D a multiple of 8 is best.
    """

    def __init__(self, keys: Embeddings) -> None:
        import faiss

        self._keys, dim = keys, keys.shape[1]
        pieces = max(n for n in range(1, max(dim // _CODED, 1) + 1) if dim % n == 0)
        lists = min(_MAX_LISTS, max(1, len(keys) // _LIST_ROWS))
        self._index: Any = faiss.IndexIVFPQ(
            faiss.IndexFlatIP(dim), dim, lists, pieces, 8, faiss.METRIC_INNER_PRODUCT
        )
        self._index.nprobe, self._index.cp.min_points_per_centroid = _PROBES, 1
        self._index.pq.cp.min_points_per_centroid = 1
        self._index.cp.niter = _ROUNDS
        drawn = np.random.default_rng(_SEED).permutation(len(keys))[:_TRAINING_ROWS]
        self._index.train(taken(keys, np.sort(drawn))[:])
        with progress(total=len(keys), unit="images", what="an index of the images") as bar:
            for _, rows in blocks_of(keys):
                self._index.add(rows)
                bar.update(len(rows))
        self.doubt = ""

    def nearest(self, queries: Embeddings, *, on_rows: Callable[[int], object]) -> Nearest:
        return self._answered(queries, own=False, on_rows=on_rows)

    def nearest_other(self, *, on_rows: Callable[[int], object]) -> Nearest:
        return self._answered(self._keys, own=True, on_rows=on_rows)

    def _answered(self, queries: Embeddings, *, own: bool, on_rows: Callable[[int], object]) -> Nearest:
        rows, cosines = np.zeros(len(queries), np.int64), np.full(len(queries), -np.inf, np.float32)
        for part in parts.bounds(len(queries)):
            start, block = part.start, slice(part.start, part.stop)
            asked = queries[block]
            _, candidates = self._index.search(asked, CANDIDATES + own)
            if own:
                candidates[candidates == np.arange(start, start + len(asked))[:, None]] = -1
            rows[block], cosines[block] = self._judged(asked, candidates)
            on_rows(len(asked))
        self._measure(queries, cosines, own=own)
        return rows, cosines

    def _judged(self, queries: NDArray[np.float32], candidates: NDArray[np.int64]) -> Nearest:
        """The best of (M, k) candidates, -1 for none, by exact cosines; of equals the first row."""
        asking, key = (
            axis.ravel() for axis in np.broadcast_arrays(np.arange(len(queries))[:, None], candidates)
        )
        order = np.argsort(key, kind="stable")
        cosines = np.full(candidates.size, -np.inf, dtype=np.float32)
        for block, rows in blocks_of(self._keys):
            first, after = np.searchsorted(key, (block.start, block.stop), sorter=order)
            for start in range(first, after, _JUDGED):
                pairs = order[start : min(start + _JUDGED, after)]
                cosines[pairs] = np.einsum("nd,nd->n", queries[asking[pairs]], rows[key[pairs] - block.start])
        of_query = cosines.reshape(candidates.shape)
        best: NDArray[np.float32] = of_query.max(axis=1)
        first_of_equals = np.where(of_query == best[:, None], candidates, len(self._keys)).min(axis=1)
        return np.maximum(first_of_equals, 0), best

    def _measure(self, queries: Embeddings, cosines: NDArray[np.float32], *, own: bool) -> None:
        """Compare some queries with all keys, and say of how many the nearest was proposed."""
        drawn = np.sort(np.random.default_rng(_SEED).permutation(len(queries))[:_MEASURED])
        _, best = exact.nearest(queries[drawn], self._keys, own=drawn if own else None)
        hits = int((cosines[drawn] >= best - 1e-6).sum())
        self.doubt = (
            "Twins were looked for through an index, which may miss some: "
            f"of {count_of(len(drawn), 'image')} compared with all it had the nearest of {hits:,}."
        )
