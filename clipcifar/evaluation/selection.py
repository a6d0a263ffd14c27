"""Choosing among candidates by what they say of val.

Where val is a few dozen images, accuracy has a few dozen values and ties or misleads all the time; the
likelihood of the labels uses every confidence and varies less. Where val is large, accuracy is what counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcifar.evaluation.metrics import accuracy, likelihood


class Standing(NamedTuple):
    """How a candidate does on val: top-1 accuracy in [0, 1], and negative log likelihood in nats."""

    accuracy: float
    nll: float


def standing(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> Standing:
    """The standing of (N, C) logits on N labelled images."""
    return Standing(accuracy(scores, labels), likelihood(scores, labels)["nll"])


def most_accurate(standings: Sequence[Standing]) -> int:
    """The index of the highest accuracy; of equals the more likely, then the first."""
    return min(range(len(standings)), key=lambda i: (-standings[i].accuracy, standings[i].nll))


def most_likely(standings: Sequence[Standing]) -> int:
    """The index of the lowest negative log likelihood; of equals the more accurate, then the first."""
    return min(range(len(standings)), key=lambda i: (standings[i].nll, -standings[i].accuracy))
