"""Nearest neighbours: an image is what most of the k labelled images nearest to it are.

Cover and Hart 1967, "Nearest neighbor pattern classification" (IEEE Transactions on Information Theory 13),
with cosine as nearness and one vote a neighbour, as scikit-learn's KNeighborsClassifier counts them; of
classes with equally many votes, the one whose neighbours are nearer. NumPy alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_BLOCK_NUMBERS = 2**24  # cosines, and votes by class, held at once


def usable(grid: Sequence[int], num_keys: int) -> list[int]:
    """The numbers of neighbours, rising, that so many keys have; all keys where they have none of them."""
    return [k for k in sorted(grid) if k <= num_keys] or [num_keys]


def votes(
    images: NDArray[np.float32],
    keys: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    neighbours: Sequence[int],
    num_classes: int,
) -> list[NDArray[np.float32]]:
    """Log probabilities by votes, (N, C) float32, for every number of neighbours.

    With v_c of k votes, the probability is (v_c + 1 / C) / (k + 1), so that none is zero. A neighbour's vote
    is 1 and, to tell equals apart, cosine / 4k more: less than half a vote for all of them together.

    Args:
        images: (N, D) float32 unit rows.
        keys: (M, D) float32 unit rows that are labelled.
        labels: (M,) int64.
        neighbours: at most M, rising.
    """
    wanted = {k: np.empty((len(images), num_classes), np.float32) for k in neighbours}
    most, block = neighbours[-1], max(1, _BLOCK_NUMBERS // len(keys))
    for first in range(0, len(images), block):
        rows = slice(first, first + block)
        cosines = images[rows] @ keys.T
        some = np.argpartition(-cosines, most - 1, axis=1)[:, :most]
        order = np.argsort(-np.take_along_axis(cosines, some, axis=1), axis=1, kind="stable")
        nearest = np.take_along_axis(some, order, axis=1)
        nearness = np.take_along_axis(cosines, nearest, axis=1)
        counts, sums = np.zeros((2, len(cosines), num_classes), np.float32)
        places = np.arange(len(cosines))
        for k in range(1, most + 1):
            of_class = places, labels[nearest[:, k - 1]]
            counts[of_class] += 1
            sums[of_class] += nearness[:, k - 1]
            if k in wanted:
                wanted[k][rows] = np.log((counts + sums / (4 * k) + 1 / num_classes) / (k + 1))
    return list(wanted.values())
