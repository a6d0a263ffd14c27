"""Is B really better than A? Paired statistics of two sets of predictions on the same images.

The tests and the interval are those of `signs`. Exact copies of an image among the others get the same answer
from whatever is asked, so that each group of copies is one unit of the test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError
from clipcifar.evaluation import signs
from clipcifar.evaluation.balance import (
    Balanced,
    Measure,
    balanced,
    class_sums,
    flipped,
    sign_flip,
)
from clipcifar.evaluation.flows import Flow, flows
from clipcifar.evaluation.signs import agreeing, interval_of_groups, paired_interval, sums_of_groups


@dataclass(frozen=True)
class Paired:
    """B minus A on N common images.

    Attributes:
        n: images.
        accuracy_a, accuracy_b: top-1, in [0, 1].
        difference: accuracy_b - accuracy_a.
        low, high: 95 % interval of the difference, which holds 0 where the p value is 0.05 or more.
        only_a, only_b: discordant images, by who is right.
        p_value: exact McNemar, two-sided; 1 where nothing is discordant. Where there are copies, of flipping
            the signs of their groups.
        balanced: the difference in balanced accuracy; None where that is the same, or classes were not told.
        n_copies: images that are exact copies of another of the n, which they are counted with in the test.
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
    n_copies: int = 0


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
    """All of it: overall, in the measure `by`; in accuracy per class in label order; and the largest flows.

    The overall difference is the primary claim, at `signs.LEVEL`. The classes are a second family of claims,
    corrected among themselves.
    """

    overall: Paired
    per_class: list[NamedDifference]
    flows: list[Flow]
    by: Measure = "accuracy"


def corrected(comparisons: Sequence[tuple[str, Paired]]) -> list[NamedDifference]:
    """Several comparisons by name, their p values corrected over all of them by `holm`."""
    p_values = signs.holm([item.p_value for _, item in comparisons])
    return [NamedDifference(name, item, p) for (name, item), p in zip(comparisons, p_values, strict=True)]


def paired(
    correct_a: NDArray[np.bool_], correct_b: NDArray[np.bool_], copies: NDArray[np.int64] | None = None
) -> Paired:
    """Compare two classifiers on the same images.

    Args:
        correct_a, correct_b: (N,) bool, the same images in the same order.
        copies: (N,), equal where two images are copies; None where none has one.

    Raises:
        DataError: the shapes differ or there is no image.
    """
    if correct_a.shape != correct_b.shape or not len(correct_a):
        raise DataError(f"cannot pair {len(correct_a)} with {len(correct_b)} images")
    counted = from_counts(
        len(correct_a),
        n_correct_a=int(correct_a.sum()),
        only_a=int((correct_a & ~correct_b).sum()),
        only_b=int((correct_b & ~correct_a).sum()),
    )
    if copies is None:
        return counted
    gains = sums_of_groups(correct_b.astype(np.float64) - correct_a, copies)
    return replace(of_groups(counted, gains), n_copies=len(correct_a) - len(gains))


def from_counts(n: int, *, n_correct_a: int, only_a: int, only_b: int) -> Paired:
    """The same comparison where the images have been counted already, and none is a copy."""
    gained, p_value = only_b - only_a, signs.mcnemar_exact(only_a, only_b)
    discordant = only_a + only_b
    low, high = paired_interval(n=n, gained=gained, squared=discordant, groups=n, changed=discordant)
    low, high = agreeing(low, high, difference=gained, p_value=p_value)
    return Paired(
        n=n,
        accuracy_a=n_correct_a / n,
        accuracy_b=(n_correct_a + gained) / n,
        difference=gained / n,
        low=low,
        high=high,
        only_a=only_a,
        only_b=only_b,
        p_value=p_value,
    )


def of_groups(counted: Paired, gains: NDArray[np.float64], *, answers: int = 1) -> Paired:
    """A comparison whose answers are not independent: its interval and p value are those of the groups.

    Args:
        counted: its other numbers.
        gains: (G,) whole numbers, what B gets right more than A of each group.
        answers: of either side about an image.
    """
    p_value = signs.sign_flip_exact(np.rint(gains).astype(np.int64))
    low, high = interval_of_groups(gains, n=counted.n * answers)
    low, high = agreeing(low, high, difference=counted.difference, p_value=p_value)
    return replace(counted, low=low, high=high, p_value=p_value)


def paired_by_class(
    correct_a: NDArray[np.bool_],
    correct_b: NDArray[np.bool_],
    labels: NDArray[np.int64],
    *,
    class_names: Sequence[str],
    copies: NDArray[np.int64] | None = None,
    by: Measure = "accuracy",
) -> Paired:
    """`paired`, with the difference in balanced accuracy where the classes differ in size.

    Args:
        correct_a, correct_b, labels: (N,) of the same images in the same order.
        class_names: C names in label order.
        copies: as `paired` has them.
        by: the measure of the whole.
    """
    sums = class_sums(correct_a, correct_b, labels, num_classes=len(class_names), copies=copies)
    whole = replace(paired(correct_a, correct_b, copies), balanced=balanced(sums, class_names))
    if by == "accuracy" or whole.balanced is None:
        return whole
    if copies is None:
        p_value = sign_flip(sums)
    else:
        shares = (correct_b.astype(np.float64) - correct_a) / sums.n[labels]
        p_value = flipped(sums_of_groups(shares, copies))
    of_classes = whole.balanced
    low, high = agreeing(of_classes.low, of_classes.high, difference=of_classes.difference, p_value=p_value)
    same = {key: getattr(of_classes, key) for key in ("accuracy_a", "accuracy_b", "difference")}
    return replace(whole, **same, low=low, high=high, p_value=p_value)


def as_metrics(delta: Paired) -> dict[str, float]:
    """The difference and its interval under the keys of the metrics files."""
    return {"difference": delta.difference, "low": delta.low, "high": delta.high}


def compare(
    predicted_a: NDArray[np.int64],
    predicted_b: NDArray[np.int64],
    labels: NDArray[np.int64],
    *,
    class_names: list[str],
    copies: NDArray[np.int64] | None = None,
    by: Measure = "accuracy",
) -> Comparison:
    """Compare two sets of predicted classes overall and class by class.

    Args:
        predicted_a, predicted_b: (N,) int64, the same images in the same order.
        labels: (N,) int64, the true classes.
        class_names: C names in label order.
        copies: as `paired` has them.
        by: the measure of the whole.
    """
    correct_a, correct_b = predicted_a == labels, predicted_b == labels
    whole = paired_by_class(correct_a, correct_b, labels, class_names=class_names, copies=copies, by=by)
    by_class = []
    for label, name in enumerate(class_names):
        own = labels == label
        if own.any():
            of_class = None if copies is None else copies[own]
            by_class.append((name, paired(correct_a[own], correct_b[own], of_class)))
    said = flows(predicted_a, predicted_b, labels, class_names)
    return Comparison(whole, corrected(by_class), said, by)


def against(
    reference: NDArray[np.int64],
    others: Mapping[str, NDArray[np.int64]],
    labels: NDArray[np.int64],
    *,
    class_names: Sequence[str],
    copies: NDArray[np.int64] | None = None,
) -> list[NamedDifference]:
    """Compare several sets of predicted classes with one, Holm-corrected over all of them.

    Args:
        reference: (N,) int64 predicted classes.
        others: by name, (N,) int64 on the same images.
        labels: (N,) int64, the true classes.
        class_names: C names in label order.
    """
    right, compared = reference == labels, []
    for name, said in others.items():
        delta = paired_by_class(right, said == labels, labels, class_names=class_names, copies=copies)
        compared.append((name, delta))
    return corrected(compared)
