"""What the draws of the few-shot study amount to on test, each method against zero-shot.

Test labels are read here, after every draw is finished. A difference from zero-shot is that of a draw
and a test image; its interval covers other draws and other test images (`crossed`). P values are
Holm-corrected over all methods and numbers of images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.files import Attribute, write_json
from clipcifar.evaluation.balance import class_sums, mean_of_classes
from clipcifar.evaluation.crossed import Crossed, Spread, crossed, spread
from clipcifar.evaluation.metrics import rounded, wilson_interval
from clipcifar.evaluation.plots import write_csv
from clipcifar.evaluation.signs import LEVEL, holm
from clipcifar.evaluation.verdict import APART
from clipcifar.evaluation.words import p_said, points as signed, with_interval
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.predictions import write_answers
from clipcifar.studies.few_shot.draws import Study, choice_rows, label, num_not_converged, prediction_arrays
from clipcifar.studies.few_shot.methods import METHODS


@dataclass(frozen=True)
class Point:
    """One method at one number of images per class.

    Attributes:
        shots: as a person reads it.
        n_train, n_val: images of one draw.
        accuracy: on test, over draws.
        versus: zero-shot, this method minus it.
        p_holm: corrected over all points.
        balanced_difference: the same in balanced accuracy, in [-1, 1].
    """

    shots: str
    method: str
    n_train: int
    n_val: int
    accuracy: Spread
    versus: Crossed
    p_holm: float
    balanced_difference: float

    @property
    def outcome(self) -> str:
        """better, worse, or no difference shown."""
        if self.p_holm >= LEVEL:
            return "no difference shown"
        return "better" if self.versus.difference > 0 else "worse"

    @property
    def loses_balance(self) -> bool:
        """Whether balanced accuracy falls, and the accuracy is not shown to, nor falls likewise."""
        gap = min(0.0, self.versus.difference) - self.balanced_difference
        return self.outcome != "worse" and gap >= APART


@dataclass(frozen=True)
class Findings:
    """Every point, methods within numbers of images, and zero-shot on the same n test images."""

    points: list[Point]
    n_correct: int
    n: int
    num_classes: int

    @property
    def zero_shot(self) -> float:
        """Top-1 accuracy in [0, 1]."""
        return self.n_correct / self.n

    def of(self, method: str) -> list[Point]:
        """One method's points, by rising number of images."""
        return [point for point in self.points if point.method == method]


def measure(
    study: Study, labels: NDArray[np.int64], *, num_classes: int, copies: NDArray[np.int64] | None = None
) -> Findings:
    """What all draws are worth on test, whose (N,) labels and copies these are."""
    right = (study.zero_shot == labels).astype(np.float64)
    keys, measured, gained = [], [], []
    for shots in study.shots:
        draws = study.of(shots)
        for method in METHODS:
            correct = np.stack([draw.outcomes[method].predicted == labels for draw in draws])
            sums = class_sums(right, correct.mean(axis=0), labels, num_classes=num_classes)
            gained.append(float(mean_of_classes(sums.gained, sums.n)))
            keys.append((label(shots), method, draws[0].n_train, draws[0].n_val))
            measured.append((spread(correct.mean(axis=1)), crossed(correct - right, copies=copies)))
    corrected = holm([versus.p_value for _, versus in measured])
    points = [
        Point(*key, accuracy, versus, p, balanced)
        for key, (accuracy, versus), p, balanced in zip(keys, measured, corrected, gained, strict=True)
    ]
    return Findings(points, int(right.sum()), len(labels), num_classes)


def as_metrics(findings: Findings) -> dict[str, Any]:
    """By number of images, by method."""
    low, high = wilson_interval(findings.n_correct, findings.n)
    metrics: dict[str, Any] = {
        "n": findings.n,
        "zero_shot": {
            "accuracy": findings.zero_shot,
            "accuracy_ci95": {"low": low, "high": high},
            "n_correct": findings.n_correct,
        },
    }
    for point in findings.points:
        key = "all" if point.shots == "all" else f"k{point.shots}"
        counts = {"n_train": point.n_train, "n_val": point.n_val, "n_draws": point.accuracy.n}
        metrics.setdefault(key, counts)[point.method] = {
            "accuracy_mean": point.accuracy.mean,
            "accuracy_std": point.accuracy.deviation,
            "accuracy_ci95": {"low": max(0.0, point.accuracy.low), "high": min(1.0, point.accuracy.high)},
            "vs_zero_shot": {
                "difference": point.versus.difference,
                "low": point.versus.low,
                "high": point.versus.high,
                "p_holm": point.p_holm,
            },
        }
    return metrics


def curve_rows(findings: Findings) -> list[dict[str, Any]]:
    """The curves as CSV rows, zero-shot among them; the x axis is log2 of the images per class."""
    rows = []
    for point in findings.points:
        per_class = point.n_train / findings.num_classes
        place = {"images_per_class": per_class, "log2_images_per_class": math.log2(per_class)}
        values = {
            "accuracy": point.accuracy.mean,
            "low": max(0.0, point.accuracy.low),
            "high": min(1.0, point.accuracy.high),
            "std": point.accuracy.deviation,
            "n_draws": point.accuracy.n,
            "n_val": point.n_val,
        }
        if point.method == next(iter(METHODS)):
            level = {"accuracy": findings.zero_shot, "low": findings.zero_shot, "high": findings.zero_shot}
            own = {**values, **level, "std": 0.0, "n_val": 0}
            rows.append({"shots": point.shots, **place, "method": "zero_shot", **own})
        rows.append({"shots": point.shots, **place, "method": point.method, **values})
    return rows


def first_better(points: list[Point]) -> str | None:
    """The smallest number of images from which on a method is shown to be better at every larger one too."""
    start = None
    for point in reversed(points):
        if point.outcome != "better":
            break
        start = point.shots
    return start


def verdicts(findings: Findings) -> list[str]:
    """One sentence per method: from how many images per class on it beats zero-shot, and where not."""
    return [_verdict(title, findings.of(method)) for method, title in METHODS.items()]


def _verdict(title: str, points: list[Point]) -> str:
    start, shots = first_better(points), [point.shots for point in points]
    untold = points if start is None else points[: shots.index(start)]
    by_outcome: Mapping[str, list[str]] = {
        outcome: [point.shots for point in untold if point.outcome == outcome]
        for outcome in ("better", "no difference shown", "worse")
    }
    if by_outcome["worse"] == shots:
        head, by_outcome = f"{title}: worse than zero-shot at every number of images", {}
    elif by_outcome["no difference shown"] == shots:
        head, by_outcome = f"{title}: nowhere shown to differ from zero-shot", {}
    elif start is None:
        some = "beats zero-shot at some numbers of images per class, but not from one on"
        head = f"{title}: {some if by_outcome['better'] else 'nowhere shown to beat zero-shot'}"
    else:
        versus = next(point for point in points if point.shots == start)
        by = with_interval(versus.versus, unit=" points")
        sure = f"{p_said(versus.p_holm)} after Holm's correction"
        head = f"{title}: beats zero-shot {_from(start)} ({by} there, {sure})"
    parts = [f"{head[0].upper()}{head[1:]}"]
    parts += [f"{outcome} at {', '.join(where)}" for outcome, where in by_outcome.items() if where]
    if fallen := [point for point in points if point.loses_balance]:
        falls = ", ".join(f"{point.shots} ({signed(point.balanced_difference)} points)" for point in fallen)
        parts.append(f"balanced accuracy falls at {falls}")
    return "; ".join(parts) + "."


def _from(shots: str) -> str:
    if shots == "all":
        return "with all images"
    return f"from {shots} image{'s' if shots != '1' else ''} per class on"


def write(
    folder: Path, findings: Findings, study: Study, images: ImageEmbeddings, *, texts_fingerprint: Attribute
) -> None:
    """Write metrics.json, curves.csv, what val chose as choices.csv, and all answers as predictions.h5.

    Args:
        images: the embeddings of the images.
        texts_fingerprint: of the prompt set that zero-shot uses.
    """
    metrics = {**as_metrics(findings), "n_not_converged": num_not_converged(study)}
    write_json(folder / "metrics.json", rounded(metrics))
    write_csv(folder / "curves.csv", curve_rows(findings))
    write_csv(folder / "choices.csv", choice_rows(study))
    write_answers(
        folder / "predictions.h5",
        prediction_arrays(study),
        images,
        kind="few-shot predictions",
        attributes={"texts_fingerprint": texts_fingerprint},
    )
