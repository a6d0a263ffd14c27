"""How much of a classifier's accuracy is left under corruption.

A mean corruption accuracy is the mean over corruptions of the mean over severities (of the
accuracy; Hendrycks and Dietterich 2019 average the error likewise), of the corruptions that a
published mean is over, with its extras, or of our own (`kinds.MEANS`). The relative drop is the share
of the clean accuracy that is lost. The same images recur in every corruption, so intervals of
means resample images, each with all its answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.evaluation.compare import NamedDifference, corrected
from clipcifar.evaluation.metrics import wilson_interval
from clipcifar.studies.corruptions.judge.repeated import bootstrap_means, interval, paired_by_class

CLEAN = "clean"


@dataclass(frozen=True)
class Answers:
    """Whether one classifier was right.

    Attributes:
        clean: (N,) bool, on the uncorrupted images.
        corrupted: (K, S, N) bool, by corruption and severity.
    """

    clean: NDArray[np.bool_]
    corrupted: NDArray[np.bool_]

    def under(self, rows: Sequence[int]) -> Answers:
        """The answers of some of the K corruptions."""
        return Answers(self.clean, self.corrupted[list(rows)])

    @property
    def repeated(self) -> NDArray[np.bool_]:
        """(K S, N) bool, every answer about a corrupted image."""
        return self.corrupted.reshape(-1, len(self.clean))


@dataclass(frozen=True)
class Share:
    """A share in 0..1 with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Kept:
    """What one classifier keeps in the mean over some corruptions.

    Attributes:
        mean: mean corruption accuracy.
        drop: relative drop; 0 where nothing was right on clean images.
        by_severity: the mean over corruptions at each of the S severities.
    """

    mean: Share
    drop: Share
    by_severity: list[Share]


@dataclass(frozen=True)
class Robustness:
    """What one classifier keeps.

    Attributes:
        clean: accuracy on the uncorrupted images.
        accuracy: (K, S) by corruption and severity.
        over: by what a mean is over, what is kept in it.
    """

    clean: Share
    accuracy: NDArray[np.float64]
    over: dict[str, Kept]


def robustness(answers: Answers, over: Mapping[str, Sequence[int]], *, seed: int = 0) -> Robustness:
    """What a classifier keeps under corruption.

    Args:
        answers: under K corruptions.
        over: by name of a mean, which of the K it is over.
        seed: of the bootstrap.
    """
    return Robustness(
        clean=Share(
            float(answers.clean.mean()), *wilson_interval(int(answers.clean.sum()), len(answers.clean))
        ),
        accuracy=answers.corrupted.mean(axis=2),
        over={key: _kept(answers.under(rows), seed=seed) for key, rows in over.items()},
    )


def _kept(answers: Answers, *, seed: int) -> Kept:
    per_image = answers.repeated.mean(axis=0)
    draws = bootstrap_means(np.stack([answers.clean, per_image], axis=1), seed=seed)
    clean, mean = float(answers.clean.mean()), float(per_image.mean())
    return Kept(
        mean=Share(mean, *interval(draws[:, 1])),
        drop=Share(float(_drop(np.array(clean), np.array(mean))), *interval(_drop(draws[:, 0], draws[:, 1]))),
        by_severity=[
            Share(float(right.mean()), *interval(bootstrap_means(right[:, None], seed=seed)[:, 0]))
            for right in answers.corrupted.mean(axis=0)
        ],
    )


def _drop(clean: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(clean > 0, 1 - mean / np.where(clean > 0, clean, 1), 0.0)


def against(
    reference: Answers,
    others: Mapping[str, Answers],
    labels: NDArray[np.int64],
    *,
    class_names: Sequence[str],
    copies: NDArray[np.int64] | None = None,
) -> list[NamedDifference]:
    """Every other classifier minus the reference in mean corruption accuracy, Holm over them."""
    about: dict[str, Any] = {"class_names": class_names, "copies": copies}
    return corrected(
        [
            (name, paired_by_class(reference.repeated, answers.repeated, labels, **about))
            for name, answers in others.items()
        ]
    )


def as_nested(
    robust: Robustness, *, names: Sequence[str], severities: Sequence[int]
) -> dict[str, float | dict[str, Any]]:
    """The metrics of one classifier, the same keys for every one."""
    return {
        CLEAN: robust.clean.value,
        **{
            key: {
                "mean": kept.mean.value,
                "mean_ci95": {"low": kept.mean.low, "high": kept.mean.high},
                "relative_drop": kept.drop.value,
                "relative_drop_ci95": {"low": kept.drop.low, "high": kept.drop.high},
                "severity": {
                    str(severity): share.value
                    for severity, share in zip(severities, kept.by_severity, strict=True)
                },
            }
            for key, kept in robust.over.items()
        },
        "corruption": dict(zip(names, robust.accuracy.mean(axis=1).tolist(), strict=True)),
    }


def accuracy_rows(
    answers: Mapping[str, Answers], *, names: Sequence[str], severities: Sequence[int]
) -> list[dict[str, Any]]:
    """One CSV row for each classifier, corruption and severity; clean images are severity 0."""
    rows = []
    for method, of_method in answers.items():
        cells = [(CLEAN, 0, of_method.clean)]
        for name, by_severity in zip(names, of_method.corrupted, strict=True):
            cells += [(name, *cell) for cell in zip(severities, by_severity, strict=True)]
        for name, severity, correct in cells:
            n, n_correct = len(correct), int(correct.sum())
            low, high = wilson_interval(n_correct, n)
            share = {"accuracy": n_correct / n, "low": low, "high": high, "n": n, "n_correct": n_correct}
            rows.append({"method": method, "corruption": name, "severity": severity, **share})
    return rows


def percent(share: float) -> str:
    """A share in per cent, without the sign."""
    return f"{100 * share:.1f}"


def share_text(share: Share) -> str:
    """The same with its interval."""
    return f"{percent(share.value)} [{percent(share.low)}, {percent(share.high)}]"
