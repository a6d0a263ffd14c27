"""Is a run a reproduction? Every published accuracy beside ours, with the tolerance that it must keep.

Let a published accuracy p be of n test images, and ours have k correct. Taking p as the truth, k of a
true reproduction is at most as spread as a binomial B(n, p). It passes where neither tail is rare:

    P(B(n, p) <= k) > a / 2  and  P(B(n, p) >= k) > a / 2

The level a is a share of 5 % over all comparisons of a run together: 4 % divided among its T totals
and 1 % among its K class accuracies, a = 0.04 / T or 0.01 / K (Bonferroni, whatever their dependence).
So of 20 runs that are true reproductions at most one fails somewhere by chance.

Why "at most": both accuracies are of the SAME images. Their difference is (b - c) / n, where b images
are right here only and c there only, and its variance is (b + c) / n^2. B(n, p) allows for b + c =
n p (1 - p), half of what independent samples would give. Heads trained twice on these embeddings differ
on less, and a zero-shot classifier of the same weights on nearly nothing: two published runs of the
same one differ by 7 images of 10,000. A zero-shot total that passes but is further than `CLOSE`
away is therefore remarked upon.

A figure printed with few digits stands for the interval that it was rounded from, and a range for
itself: the end nearest to ours counts. At p = 0 or 1 the tail is that of 3 / n (the rule of three,
Hanley and Lippman-Hand 1983), since n images without an error do not show that there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import bdtr, bdtrc

from clipcifar.core.counts import count_of
from clipcifar.evaluation.names import METHODS
from clipcifar.prompts.sets import expand_set
from clipcifar.verify.measured import Run, Sentences, said_by
from clipcifar.verify.references import Reference

TOTALS_LEVEL, CLASSES_LEVEL = 0.04, 0.01
CLOSE = 0.002  # about three times the 0.07 points between two published runs of one classifier


@dataclass(frozen=True)
class Check:
    """One published accuracy beside ours.

    Attributes:
        what: the method, with the prompt set where it has one.
        class_name: or empty for the total.
        method: its stage name.
        published: as printed, the second figure of a range included.
        n, n_correct: ours.
        difference: ours minus the nearest end of what was printed, in [-1, 1].
        low, high: the accuracies that pass, inclusive.
        source: of the published figure.
    """

    what: str
    class_name: str
    method: str
    published: tuple[str, ...]
    n: int
    n_correct: int
    difference: float
    low: float
    high: float
    source: str

    @property
    def accuracy(self) -> float:
        return self.n_correct / self.n

    @property
    def passed(self) -> bool:
        return self.low <= self.accuracy <= self.high


@dataclass(frozen=True)
class Skipped:
    """A published accuracy that has no number of ours beside it, and why."""

    what: str
    published: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Verification:
    """All of it: what was compared, what would need another params.yaml, what this pipeline lacks."""

    checks: list[Check]
    skipped: list[Skipped]
    beyond: list[Skipped]


def printed_range(figures: Sequence[str]) -> tuple[float, float]:
    """The accuracies that a printed figure, or the ends of a printed range, may stand for.

    >>> printed_range(["0.936"])
    (0.9355, 0.9365)
    """
    half = [0.5 * 10 ** -len(figure.partition(".")[2]) for figure in figures]
    low, high = float(figures[0]) - half[0], float(figures[-1]) + half[-1]
    return max(0.0, round(low, 9)), min(1.0, round(high, 9))


@cache
def passing_counts(low: float, high: float, n: int, *, level: float) -> tuple[int, int]:
    """The smallest and the largest count of correct images that pass; see the module.

    Args:
        low, high: the published accuracy, as a range in [0, 1].
        n: images.
        level: a, of this one comparison.
    """
    k = np.arange(n + 1)
    not_all_wrong, not_all_right = min(max(high, 3 / n), 1.0), max(min(low, 1 - 3 / n), 0.0)
    at_most = bdtr(k, n, not_all_right)
    at_least = np.concatenate([[1.0], bdtrc(k[:-1], n, not_all_wrong)])  # P(B >= k) = P(B > k - 1)
    passing = np.flatnonzero((at_most > level / 2) & (at_least > level / 2))
    return int(passing[0]), int(passing[-1])


def verify(run: Run, references: Sequence[Reference]) -> Verification:
    """Set every reference beside the run's own number.

    Args:
        run: of the dataset and model that the references are for.
        references: at least one.
    """
    matched: list[tuple[Reference, str]] = []
    skipped, beyond = [], []
    for reference in references:
        if reference.setting:
            why = "no stage of `dvc repro` measures it; `clipcifar study few_shot` can"
            beyond.append(Skipped(_named(reference, reference.setting), reference.accuracy, why))
            continue
        name = _set_of(run, reference) if reference.prompts else ""
        if name is None:
            skipped.append(Skipped(_named(reference, ""), reference.accuracy, _why_not(run, reference)))
        else:
            matched.append((reference, name))
    num_classes = sum(len(reference.per_class) for reference, _ in matched)
    checks = []
    for reference, name in matched:
        counted = run.sets[name] if reference.method == "zero_shot" else run.methods[reference.method]
        n, n_correct = counted.total
        level = TOTALS_LEVEL / len(matched)
        checks.append(_check(reference, name, "", reference.accuracy, n, n_correct, level))
        for class_name, figure in reference.per_class.items():
            label = run.class_names.index(class_name)
            n, n_correct = int(counted.n[label]), int(counted.n_correct[label])
            level = CLASSES_LEVEL / num_classes
            checks.append(_check(reference, name, class_name, (figure,), n, n_correct, level))
    return Verification(checks, skipped, beyond)


def _check(
    reference: Reference,
    name: str,
    class_name: str,
    figures: tuple[str, ...],
    n: int,
    n_correct: int,
    level: float,
) -> Check:
    low, high = printed_range(figures)
    first, last = passing_counts(low, high, n, level=level)
    nearest = min(max(n_correct / n, float(figures[0])), float(figures[-1]))
    return Check(
        what=_named(reference, name),
        class_name=class_name,
        method=reference.method,
        published=figures,
        n=n,
        n_correct=n_correct,
        difference=n_correct / n - nearest,
        low=first / n,
        high=last / n,
        source=reference.source,
    )


def _named(reference: Reference, detail: str) -> str:
    method = METHODS[reference.method]
    return f"{method}, {detail}" if detail else method


def _expected(run: Run, reference: Reference) -> Sentences:
    expanded = expand_set("published", reference.prompts, class_names=run.class_names, dataset=run.dataset)
    assert expanded is not None  # a table of one dataset holds sets of that dataset
    return said_by(expanded.class_index, expanded.sentences)


def _set_of(run: Run, reference: Reference) -> str | None:
    """The run's prompt set that says what was published, whatever it is called."""
    wanted = _expected(run, reference)
    candidates = [run.projected] if reference.method == "projection" else run.sentences
    return next((name for name in candidates if run.sentences[name] == wanted), None)


def _why_not(run: Run, reference: Reference) -> str:
    _, example = min(_expected(run, reference))
    if reference.method == "projection":
        return f'the set {run.projected} is active, the published heads were trained with "{example}"'
    sentences = count_of(len(_expected(run, reference)), "sentence")
    return f'no prompt set says the same {sentences}, such as "{example}"'
