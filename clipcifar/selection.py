"""Choosing among candidates by what they say of val: accuracy first, then likelihood, then their order.

Few val images tie in accuracy all the time; the likelihood tells such candidates apart before chance does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcifar.metrics import accuracy, likelihood


class Standing(NamedTuple):
    """How a candidate does on val: top-1 accuracy in [0, 1], and negative log likelihood in nats."""

    accuracy: float
    nll: float


def standing(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> Standing:
    """The standing of (N, C) logits on N labelled images."""
    return Standing(accuracy(scores, labels), likelihood(scores, labels)["nll"])


def best(standings: Sequence[Standing]) -> int:
    """The index of the best: the highest accuracy, then the lowest likelihood loss, then the first."""
    return min(range(len(standings)), key=lambda i: (-standings[i].accuracy, standings[i].nll, i))
