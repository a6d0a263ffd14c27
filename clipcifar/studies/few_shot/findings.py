"""What the draws of the few-shot study amount to on test, each method against zero-shot.

Test labels are read here, after every draw is finished. A difference from zero-shot is that of a draw
and a test image; its interval covers other draws and other test images (`crossed`). Where there is one
draw, only images vary, and interval and test are those of `compare`. P values are Holm-corrected over all
methods and numbers of images, and over weighted prompts, which need no label.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.files import Attribute, write_json
from clipcifar.evaluation.balance import class_sums, mean_of_classes
from clipcifar.evaluation.compare import paired
from clipcifar.evaluation.crossed import Crossed, crossed, spread
from clipcifar.evaluation.metrics import rounded, wilson_interval
from clipcifar.evaluation.plots import write_csv
from clipcifar.evaluation.signs import holm
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.predictions import write_answers
from clipcifar.studies.few_shot.draws import Study, choice_rows, label, num_not_converged, prediction_arrays
from clipcifar.studies.few_shot.methods import METHODS, MIXING
from clipcifar.studies.few_shot.points import Findings, Point
from clipcifar.studies.few_shot.sentences import of_method, of_weighted


def measure(
    study: Study, labels: NDArray[np.int64], *, num_classes: int, copies: NDArray[np.int64] | None = None
) -> Findings:
    """What all draws are worth on test, whose (N,) labels and copies these are."""
    right = study.zero_shot == labels

    def point(key: tuple[str, str, int, int], predicted: NDArray[np.int32], kept: int | None) -> Point:
        correct = predicted == labels
        sums = class_sums(right.astype(np.float64), correct.mean(axis=0), labels, num_classes=num_classes)
        versus = _versus_zero_shot(correct, right, copies=copies)
        gained = float(mean_of_classes(sums.gained, sums.n))
        return Point(*key, spread(correct.mean(axis=1)), versus, 1.0, gained, kept)

    points = [point(("none", "prompt_weighting", 0, 0), study.weighted[None], None)]
    for shots in study.shots:
        draws = study.of(shots)
        for method in METHODS:
            outcomes = [draw.outcomes[method] for draw in draws]
            kept = sum(outcome.is_zero_shot for outcome in outcomes) if method in MIXING else None
            key = (label(shots), method, draws[0].n_train, draws[0].n_val)
            points.append(point(key, np.stack([outcome.predicted for outcome in outcomes]), kept))
    corrected = holm([point.versus.p_value for point in points])
    weighted, *points = (replace(point, p_holm=p) for point, p in zip(points, corrected, strict=True))
    return Findings(points, weighted, int(right.sum()), len(labels), num_classes)


def _versus_zero_shot(
    correct: NDArray[np.bool_], right: NDArray[np.bool_], *, copies: NDArray[np.int64] | None
) -> Crossed:
    """(R, N) draws minus zero-shot; of a single draw what `compare` says of the same two."""
    if len(correct) > 1:
        return crossed(correct - right.astype(np.float64), copies=copies)
    alone = paired(right, correct[0], copies)
    return Crossed(alone.difference, alone.low, alone.high, alone.p_value, 1)


def as_metrics(findings: Findings) -> dict[str, Any]:
    """By number of images, by method."""
    metrics: dict[str, Any] = {"n": findings.n}
    right_of_weighted = round(findings.weighted.accuracy.mean * findings.n)
    for name, n_correct in (("zero_shot", findings.n_correct), ("prompt_weighting", right_of_weighted)):
        low, high = wilson_interval(n_correct, findings.n)
        interval = {"low": low, "high": high}
        accuracy = n_correct / findings.n
        metrics[name] = {"accuracy": accuracy, "accuracy_ci95": interval, "n_correct": n_correct}
    metrics["prompt_weighting"]["vs_zero_shot"] = _versus(findings.weighted)
    for point in findings.points:
        key = "all" if point.shots == "all" else f"k{point.shots}"
        counts = {"n_train": point.n_train, "n_val": point.n_val, "n_draws": point.accuracy.n}
        kept = {} if point.n_zero_shot is None else {"n_zero_shot": point.n_zero_shot}
        metrics.setdefault(key, counts)[point.method] = {
            "accuracy_mean": point.accuracy.mean,
            "accuracy_std": point.accuracy.deviation,
            "accuracy_ci95": {"low": max(0.0, point.accuracy.low), "high": min(1.0, point.accuracy.high)},
            "vs_zero_shot": _versus(point),
            **kept,
        }
    return metrics


def _versus(point: Point) -> dict[str, float]:
    versus = point.versus
    bounds = {"difference": versus.difference, "low": versus.low, "high": versus.high}
    return {**bounds, "p_holm": point.p_holm}


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
            weighted = findings.weighted.accuracy.mean
            for name, level in (("zero_shot", findings.zero_shot), ("prompt_weighting", weighted)):
                own = {**values, **dict.fromkeys(("accuracy", "low", "high"), level), "std": 0.0, "n_val": 0}
                rows.append({"shots": point.shots, **place, "method": name, **own})
        rows.append({"shots": point.shots, **place, "method": point.method, **values})
    return rows


def verdicts(findings: Findings) -> list[str]:
    """One sentence per method: from how many images per class on it beats zero-shot, and where not."""
    by_method = [of_method(title, findings.of(method)) for method, title in METHODS.items()]
    return [*by_method, of_weighted(findings.weighted)]


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
