"""Methods that are trained from seeds: what a p value covers, and two compared over seeds and images alike.

A paired test of two sets of predictions speaks for other test images and these two models. Trained
again with another seed, a head says something else of some images, which no test of one model can know.
So a p value beside such a head says what it covers, and where several seeds' answers are kept, the means
over seeds are compared too. With m(i) the share of a side's R seeds that are right on image i, and a(s)
the accuracy of seed s,

    difference = mean of m_B - m_A
    variance   = var(m_B - m_A) / N + var(a_A) / R_A + var(a_B) / R_B

where a side that is learnt without a seed has one row and adds nothing of its own. Seeds are not paired:
seed 0 of one head has nothing to do with seed 0 of another. Where it had, as in two runs of one head, the
sum errs on the safe side. Interval and p value are those of `crossed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.counts import count_of
from clipcifar.evaluation.crossed import of_images, of_means, told
from clipcifar.evaluation.names import METHODS, SEEDED
from clipcifar.evaluation.signs import LEVEL
from clipcifar.evaluation.words import p_said, with_interval

OTHER_IMAGES = "other test images, not retraining"


@dataclass(frozen=True)
class OverSeeds:
    """B minus A, each the mean over its seeds, with a 95 % interval and p for other seeds and images."""

    accuracy_a: float
    accuracy_b: float
    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class SeedsCompared:
    """What is known of the seeds of two sides, at least one of which is trained from them.

    Attributes:
        n_a, n_b: seeds whose answers are kept; 0 for a side that is learnt without.
        crossed: B against A over seeds and images; None where a side's answers are those of one seed.
    """

    n_a: int
    n_b: int
    crossed: OverSeeds | None


def compare_seeds(
    seeds_a: NDArray[np.int64] | None,
    seeds_b: NDArray[np.int64] | None,
    *,
    predicted_a: NDArray[np.int64],
    predicted_b: NDArray[np.int64],
    labels: NDArray[np.int64],
    copies: NDArray[np.int64] | None = None,
) -> SeedsCompared | None:
    """Compare two sides over seeds and images; None where neither is trained from seeds.

    Args:
        seeds_a, seeds_b: (R, N) classes that each seed predicts on the same images; None of a side that is
            learnt without.
        predicted_a, predicted_b: (N,) those that are reported.
        labels: (N,) int64, the true classes.
        copies: (N,), equal where two images are exact copies; None where none is one.
    """
    if seeds_a is None and seeds_b is None:
        return None
    n_a, n_b = (0 if said is None else len(said) for said in (seeds_a, seeds_b))
    n_images = len(labels) if copies is None else len(np.unique(copies))
    if 1 in (n_a, n_b) or n_images < 2:
        return SeedsCompared(n_a, n_b, None)
    right_a = (predicted_a[None] if seeds_a is None else seeds_a) == labels
    right_b = (predicted_b[None] if seeds_b is None else seeds_b) == labels
    differences = right_b.mean(axis=0) - right_a.mean(axis=0)
    crossed = told(
        float(differences.mean()),
        of_images(differences, copies=copies),
        of_means([right_a.mean(axis=1), right_b.mean(axis=1)]),
    )
    return SeedsCompared(n_a, n_b, OverSeeds(float(right_a.mean()), float(right_b.mean()), *crossed))


def seeds_said(seeds: SeedsCompared | None, *, name_a: str, name_b: str) -> str:
    """What the p value of a verdict covers, and how the means over seeds compare; nothing without seeds."""
    if seeds is None:
        return ""
    sides = ((seeds.n_a, name_a), (seeds.n_b, name_b))
    over = seeds.crossed
    if over is None:
        known = " and ".join(name for n, name in sides if n == 1)
        return f"The p value covers {OTHER_IMAGES}" + (f": of {known} one seed is kept." if known else ".")
    a, b = (f"{name} (mean of {count_of(n, 'seed')})" if n else name for n, name in sides)
    head = f"{b} is {'better' if over.difference > 0 else 'worse'} than {a}"
    if over.p_value >= LEVEL:
        head = f"no difference shown between {b} and {a}"
    shown = f"{with_interval(over, unit=' points')}, {p_said(over.p_value)}"
    return f"The p value covers {OTHER_IMAGES}. Covering both: {head}: {shown}."


def covers_said(methods: Sequence[str]) -> list[str]:
    """For a list of sentences: one line on the p values of its methods that are trained from seeds."""
    seeded = [METHODS[name] for name in methods if name in SEEDED]
    return [f"P values of {' and '.join(seeded)} cover {OTHER_IMAGES}."] if seeded else []
