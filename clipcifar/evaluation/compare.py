"""Is B really better than A? Paired statistics of two sets of predictions on the same images.

Two classifiers that see the same images are compared image by image: only the images on which
exactly one of them is right ("discordant") can tell them apart. McNemar 1947; the exact form is a
binomial test of the discordant images against a fair coin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from clipcifar.core.errors import DataError

RESAMPLES = 10_000
LEVEL = 0.05
FLOWS_SHOWN = 10


@dataclass(frozen=True)
class Paired:
    """B minus A on N common images.

    Attributes:
        n: images.
        accuracy_a, accuracy_b: top-1, in [0, 1].
        difference: accuracy_b - accuracy_a.
        low, high: 95 % paired bootstrap interval of the difference.
        only_a, only_b: discordant images, by who is right.
        p_value: exact McNemar, two-sided; 1 where nothing is discordant.
    """

    n: int
    accuracy_a: float
    accuracy_b: float
    difference: float
    low: float
    high: float
    only_a: int
    only_b: int
    p_value: float


@dataclass(frozen=True)
class NamedDifference:
    """One of several comparisons (classes, prompt sets); `p_holm` is corrected over all of them."""

    name: str
    paired: Paired
    p_holm: float

    def as_metrics(self) -> dict[str, float]:
        """The difference, its interval and the corrected p value under the keys of the metrics files."""
        return {**as_metrics(self.paired), "p_holm": self.p_holm}


@dataclass(frozen=True)
class Flow:
    """How many images of a class A and B call differently: `label` said as `from_a`, now `to_b`."""

    label: str
    from_a: str
    to_b: str
    n: int


@dataclass(frozen=True)
class Comparison:
    """All of it: overall, per class in label order, and the largest flows."""

    overall: Paired
    per_class: list[NamedDifference]
    flows: list[Flow]


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided p value of the exact McNemar test.

    >>> round(mcnemar_exact(100, 130), 3)
    0.056
    """
    return mcnemar_exact_each(np.array([only_a]), np.array([only_b]))[0]


def mcnemar_exact_each(only_a: NDArray[np.int64], only_b: NDArray[np.int64]) -> list[float]:
    """The same for many pairs of counts at once; a fair coin's two tails are equally likely."""
    tail = bdtr(np.minimum(only_a, only_b), only_a + only_b, 0.5)  # scipy.stats takes half a second to import
    return [float(p) for p in np.clip(2 * tail, np.finfo(np.float64).tiny, 1.0)]  # never 0, however sure


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979): adjusted p values, in the order given, each in [0, 1]."""
    adjusted = np.zeros(len(p_values))
    worst = 0.0
    for rank, i in enumerate(np.argsort(p_values, kind="stable")):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = worst
    return [float(p) for p in adjusted]


def corrected(comparisons: Sequence[tuple[str, Paired]]) -> list[NamedDifference]:
    """Several comparisons by name, their p values corrected over all of them by `holm`."""
    p_values = holm([item.p_value for _, item in comparisons])
    return [NamedDifference(name, item, p) for (name, item), p in zip(comparisons, p_values, strict=True)]


def paired(correct_a: NDArray[np.bool_], correct_b: NDArray[np.bool_], *, seed: int = 0) -> Paired:
    """Compare two classifiers on the same images.

    The bootstrap resamples images with replacement. The difference depends on a resample only
    through how many discordant images of either kind it holds, so those counts are drawn directly,
    from the multinomial distribution that resampling gives them.

    Args:
        correct_a, correct_b: (N,) bool, the same images in the same order.
        seed: of the bootstrap.

    Raises:
        DataError: the shapes differ or there is no image.
    """
    if correct_a.shape != correct_b.shape or not len(correct_a):
        raise DataError(f"cannot pair {len(correct_a)} with {len(correct_b)} images")
    return from_counts(
        len(correct_a),
        n_correct_a=int(correct_a.sum()),
        only_a=int((correct_a & ~correct_b).sum()),
        only_b=int((correct_b & ~correct_a).sum()),
        seed=seed,
    )


def from_counts(n: int, *, n_correct_a: int, only_a: int, only_b: int, seed: int = 0) -> Paired:
    """The same comparison where the images have been counted already."""
    shares = np.array([only_a, only_b, n - only_a - only_b]) / n
    draws = np.random.default_rng(seed).multinomial(n, shares, size=RESAMPLES)
    low, high = np.quantile((draws[:, 1] - draws[:, 0]) / n, [LEVEL / 2, 1 - LEVEL / 2])
    return Paired(
        n=n,
        accuracy_a=n_correct_a / n,
        accuracy_b=(n_correct_a + only_b - only_a) / n,
        difference=(only_b - only_a) / n,
        low=float(low),
        high=float(high),
        only_a=only_a,
        only_b=only_b,
        p_value=mcnemar_exact(only_a, only_b),
    )


def as_metrics(delta: Paired) -> dict[str, float]:
    """The difference and its interval under the keys of the metrics files."""
    return {"difference": delta.difference, "low": delta.low, "high": delta.high}


def compare(
    predicted_a: NDArray[np.int64],
    predicted_b: NDArray[np.int64],
    labels: NDArray[np.int64],
    *,
    class_names: list[str],
) -> Comparison:
    """Compare two sets of predicted classes overall and class by class.

    Args:
        predicted_a, predicted_b: (N,) int64, the same images in the same order.
        labels: (N,) int64, the true classes.
        class_names: C names in label order.
    """
    correct_a, correct_b = predicted_a == labels, predicted_b == labels
    present = [label for label in range(len(class_names)) if (labels == label).any()]
    by_class = [paired(correct_a[labels == label], correct_b[labels == label]) for label in present]
    return Comparison(
        overall=paired(correct_a, correct_b),
        per_class=corrected(list(zip((class_names[label] for label in present), by_class, strict=True))),
        flows=_flows(predicted_a, predicted_b, labels, class_names),
    )


def against(
    reference: NDArray[np.int64], others: Mapping[str, NDArray[np.int64]], labels: NDArray[np.int64]
) -> list[NamedDifference]:
    """Compare several sets of predicted classes with one, Holm-corrected over all of them.

    Args:
        reference: (N,) int64 predicted classes.
        others: by name, (N,) int64 on the same images.
        labels: (N,) int64, the true classes.
    """
    right = reference == labels
    return corrected([(name, paired(right, predicted == labels)) for name, predicted in others.items()])


def _flows(
    predicted_a: NDArray[np.int64],
    predicted_b: NDArray[np.int64],
    labels: NDArray[np.int64],
    class_names: list[str],
) -> list[Flow]:
    changed, num_classes = predicted_a != predicted_b, len(class_names)
    codes = (labels[changed] * num_classes + predicted_a[changed]) * num_classes + predicted_b[changed]
    kinds, counts = np.unique(codes, return_counts=True)
    largest = np.argsort(-counts, kind="stable")[:FLOWS_SHOWN]
    return [
        Flow(
            label=class_names[kinds[row] // num_classes**2],
            from_a=class_names[kinds[row] // num_classes % num_classes],
            to_b=class_names[kinds[row] % num_classes],
            n=int(counts[row]),
        )
        for row in largest
    ]
