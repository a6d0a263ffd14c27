"""The paired difference where every class counts alike, however many images it has.

Accuracy on 5 cats and 40 dogs is nearly that on the dogs: all cats may be lost and it still rises. Balanced
accuracy is the mean of the accuracies within the classes; where those are equally large it is the accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcifar.evaluation.metrics import Z95

Measure = Literal["accuracy", "balanced_accuracy"]
FLIPS = 10_000
_FLIPS_AT_ONCE = 1_000  # of all classes, 8 MB for a thousand


class ClassSums(NamedTuple):
    """What two classifiers do on the same images, summed over those of each class: (C,) each, or (C, T).

    Attributes:
        n: images; a class may have none.
        right: those that A gets right.
        gained: what B gets right more than A, negative where it is less.
        changed: images that only one of the two gets right; where there are copies, the sum of their groups'
            squared gains.
        groups: of copies; None where no image has one.
    """

    n: NDArray[Any]
    right: NDArray[Any]
    gained: NDArray[Any]
    changed: NDArray[Any]
    groups: NDArray[Any] | None = None

    @property
    def present(self) -> ClassSums:
        """Those of the classes that have images."""
        there = self.n > 0
        return ClassSums(
            self.n[there],
            self.right[there],
            self.gained[there],
            self.changed[there],
            None if self.groups is None else self.groups[there],
        )


@dataclass(frozen=True)
class Mover:
    """The class that moves a balanced accuracy most: its n images, and how A and B do on them."""

    name: str
    n: int
    accuracy_a: float
    accuracy_b: float


@dataclass(frozen=True)
class Balanced:
    """B minus A in balanced accuracy.

    Attributes:
        accuracy_a, accuracy_b: in [0, 1].
        low, high: 95 % interval, of other images of the same classes: normal, with half an image (of copies
            half a group) added to each outcome of each class, so that a class of five is not taken for
            certain (Agresti and Min 2005, Statistics in Medicine 24, page 729). Wide where classes are small.
        mover: of the classes that moved the way the whole did, the one that moved most.
    """

    accuracy_a: float
    accuracy_b: float
    difference: float
    low: float
    high: float
    mover: Mover | None


def class_sums(
    right_a: NDArray[np.bool_] | NDArray[np.floating],
    right_b: NDArray[np.bool_] | NDArray[np.floating],
    labels: NDArray[np.int64],
    *,
    num_classes: int,
    copies: NDArray[np.int64] | None = None,
) -> ClassSums:
    """Sum (N,) answers about the same images by class: right or wrong, or shares of several answers.

    Args:
        copies: (N,), equal where two images are copies; None where none has one.
    """
    a, b = right_a.astype(np.float64), right_b.astype(np.float64)
    right, gained = (np.bincount(labels, weights=values, minlength=num_classes) for values in (a, b - a))
    n, groups = np.bincount(labels, minlength=num_classes), None
    own, gains = labels, b - a
    if copies is not None:  # a group may have images of several classes
        members, member = np.unique(np.stack([labels, copies]), axis=1, return_inverse=True)
        own, gains = members[0], np.asarray(np.bincount(member, weights=b - a), dtype=np.float64)
        groups = np.bincount(own, minlength=num_classes)
    changed = np.bincount(own, weights=gains**2, minlength=num_classes)
    return ClassSums(n, right, gained, changed, groups)


def mean_of_classes(sums: NDArray[Any], n: NDArray[Any]) -> NDArray[np.float64]:
    """Sums over the n images of each class, (C,) or (C, T), to the mean of the classes' means.

    Rounded far beyond what is written: equal means of other fractions are equal numbers then.
    """
    shares = (sums[n > 0].T / n[n > 0]).T
    return np.asarray(np.round(shares.mean(axis=0), 12))


def balanced(sums: ClassSums, class_names: Sequence[str]) -> Balanced | None:
    """The difference in balanced accuracy; None where that is the accuracy, as all classes are equally large.

    Args:
        sums: (C,) each.
        class_names: C names in label order.
    """
    names = [name for name, n in zip(class_names, sums.n, strict=True) if n]
    n, right, gained, changed, groups = sums.present
    if (n == n[0]).all():
        return None
    groups = n if groups is None else groups
    size = n / groups
    before, difference = float(mean_of_classes(right, n)), float(mean_of_classes(gained, n))
    variance = (changed + size**2 - gained**2 / (groups + 2)) / (n + 2 * size) ** 2
    half = Z95 * math.sqrt(variance.sum()) / len(n)
    low, high = max(-1.0, difference - half), min(1.0, difference + half)
    moved = gained / n * np.sign(difference)
    most, mover = int(moved.argmax()), None
    if moved[most] > 0:
        a, b = right[most] / n[most], (right[most] + gained[most]) / n[most]
        mover = Mover(names[most], int(n[most]), float(a), float(b))
    return Balanced(before, before + difference, difference, low, high, mover)


def sign_flip(sums: ClassSums) -> float:
    """Two-sided p value of the difference in balanced accuracy, by flipping signs; see `flipped`.

    Args:
        sums: (C,) each, of whole images, none of them a copy.
    """
    n, _, gained, changed, _ = sums.present
    return _flipped(1 / n, np.rint(changed).astype(np.int64), abs(float((gained / n).sum())))


def flipped(gains: NDArray[np.float64]) -> float:
    """Two-sided p value of a sum of gains that are no whole numbers, by flipping signs.

    Where A and B are alike, either could as well have been right on each of the images that only one gets
    right. Flips of these are drawn, and p is how often the sum is as large as was found, itself counted, so
    that it is never nought and holds its level however small a class is.

    Args:
        gains: (G,) of groups of images, each image weighing what its class makes it weigh.
    """
    sizes, counts = np.unique(np.round(np.abs(gains[gains != 0]), 12), return_counts=True)
    return _flipped(sizes, counts, abs(float(gains.sum())))


def _flipped(sizes: NDArray[np.float64], counts: NDArray[np.int64], observed: float) -> float:
    """`flipped` of so many gains of each of some sizes."""
    sizes, counts = sizes[counts > 0], counts[counts > 0]
    rng, as_large = np.random.default_rng(0), 0
    for _ in range(FLIPS // _FLIPS_AT_ONCE):
        signs = 2 * rng.binomial(counts, 0.5, size=(_FLIPS_AT_ONCE, len(counts))) - counts
        as_large += int((np.abs((signs * sizes).sum(axis=1)) >= observed - 1e-9).sum())
    return (1 + as_large) / (1 + FLIPS)


def sign_flip_bound(sums: ClassSums) -> NDArray[np.float64]:
    """The same p value for T comparisons at once, (C, T) sums, or rather what it is at most.

    Hoeffding's bound: among hundreds of candidates, corrected, draws would not reach far enough.
    """
    n, _, gained, changed, _ = sums.present
    squares = (changed.T / n**2).T.sum(axis=0)
    exponent = (gained.T / n).T.sum(axis=0) ** 2 / (2 * np.where(squares > 0, squares, 1))
    return np.asarray(np.clip(2 * np.exp(-exponent), np.finfo(np.float64).tiny, 1.0))
