"""Is B really better than A? Paired statistics of two sets of predictions on the same images.

Two classifiers that see the same images are compared image by image: only the images on which
exactly one of them is right ("discordant") can tell them apart. McNemar 1947; the exact form is a
binomial test of the discordant images against a fair coin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from clipcifar.core.errors import DataError
from clipcifar.evaluation.balance import Balanced, ClassSums, Measure, balanced, class_sums, sign_flip
from clipcifar.evaluation.flows import Flow, flows

RESAMPLES = 10_000
LEVEL = 0.05


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
        balanced: the difference in balanced accuracy; None where that is the same, or classes were not told.
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
    balanced: Balanced | None = None


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
class Comparison:
    """All of it: overall, per class in label order, and the largest flows."""

    overall: Paired
    per_class: list[NamedDifference]
    flows: list[Flow]

    @property
    def class_sums(self) -> ClassSums:
        """The per-class counts, of the classes that have images."""
        classes = [item.paired for item in self.per_class]
        rows = [
            (item.n, item.accuracy_a * item.n, item.only_b - item.only_a, item.only_a + item.only_b)
            for item in classes
        ]
        return ClassSums(*np.array(rows, dtype=np.float64).T)

    def overall_by(self, measure: Measure) -> Paired:
        """The whole difference in accuracy or in balanced accuracy."""
        return in_measure(self.overall, self.class_sums, measure)


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


def in_measure(whole: Paired, sums: ClassSums, measure: Measure) -> Paired:
    """A comparison in balanced accuracy, if that is asked for and another thing than the accuracy.

    Args:
        whole: in accuracy, its `balanced` among it.
        sums: of the same images, (C,) each.
    """
    if measure == "accuracy" or whole.balanced is None:
        return whole
    same = {
        key: getattr(whole.balanced, key) for key in ("accuracy_a", "accuracy_b", "difference", "low", "high")
    }
    return replace(whole, **same, p_value=sign_flip(sums))


def paired_by_class(
    correct_a: NDArray[np.bool_],
    correct_b: NDArray[np.bool_],
    labels: NDArray[np.int64],
    *,
    class_names: Sequence[str],
) -> Paired:
    """`paired`, with the difference in balanced accuracy where the classes differ in size.

    Args:
        correct_a, correct_b, labels: (N,) of the same images in the same order.
        class_names: C names in label order.
    """
    sums = class_sums(correct_a, correct_b, labels, num_classes=len(class_names))
    return replace(paired(correct_a, correct_b), balanced=balanced(sums, class_names))


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
        overall=paired_by_class(correct_a, correct_b, labels, class_names=class_names),
        per_class=corrected(list(zip((class_names[label] for label in present), by_class, strict=True))),
        flows=flows(predicted_a, predicted_b, labels, class_names),
    )


def against(
    reference: NDArray[np.int64],
    others: Mapping[str, NDArray[np.int64]],
    labels: NDArray[np.int64],
    *,
    class_names: Sequence[str],
) -> list[NamedDifference]:
    """Compare several sets of predicted classes with one, Holm-corrected over all of them.

    Args:
        reference: (N,) int64 predicted classes.
        others: by name, (N,) int64 on the same images.
        labels: (N,) int64, the true classes.
        class_names: C names in label order.
    """
    right = reference == labels
    return corrected(
        [
            (name, paired_by_class(right, predicted == labels, labels, class_names=class_names))
            for name, predicted in others.items()
        ]
    )
