"""What every method leaves behind: predictions, metrics, and the plots that all methods share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.files import Attribute
from clipcifar.evaluation import headline, metrics, plots
from clipcifar.evaluation.hierarchy import coarse_metrics, hierarchy_of
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.fields import class_names_of
from clipcifar.store.predictions import SEEDS, seeds_array, write_answers


def write(
    method: str,
    scores: NDArray[np.float32],
    images: ImageEmbeddings,
    *,
    temperature: float | None,
    predictions_path: Path,
    metrics_path: Path,
    details_path: Path,
    plots_folder: Path,
    extra_metrics: Mapping[str, Any] | None = None,
    extra_attributes: Mapping[str, Attribute] | None = None,
    by_seed: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Score a finished method on the test images and write everything about it.

    Test labels are read here, after every choice has been made.

    Args:
        method: its stage name.
        scores: (N, C) float32 logits of the N test images.
        images: the embeddings that the scores were computed from.
        temperature: what val says the scores should be divided by; None where there is no val image.
        metrics_path, details_path: of the headline, and of all other numbers.
        extra_metrics: what the method adds to the common metrics.
        extra_attributes: what else determined the scores.
        by_seed: (R, N) classes that each seed of the method predicts, if it has any.

    Returns:
        All numbers as written, those of both files.
    """
    scores = scores.astype(np.float32)  # as stored, so that the metrics recompute from the file
    labels, class_names = images.test.labels, class_names_of(images.attributes)
    summary = metrics.summarise(scores, labels, class_names=class_names)
    of_val: dict[str, Attribute] = {} if temperature is None else {"temperature": temperature}
    if temperature is None:
        summary[headline.N_VAL] = 0
    else:
        summary["calibrated"] = metrics.calibrated(scores, labels, temperature=temperature)
    hierarchy = hierarchy_of(str(images.attributes["dataset"]), class_names)
    if hierarchy is not None:
        summary["coarse"] = coarse_metrics(scores.argmax(axis=1), labels, hierarchy)
    summary["max_per_class"] = int(images.attributes["max_per_class"])
    per_class = summary.pop("per_class")
    written = metrics.rounded({**summary, **(extra_metrics or {}), "per_class": per_class})
    attributes = {"method": method, **of_val, **(extra_attributes or {})}
    of_seeds = {} if by_seed is None else {SEEDS: seeds_array(by_seed, num_classes=len(class_names))}
    answers = {"scores": scores, **of_seeds}
    write_answers(predictions_path, answers, images, kind="predictions", attributes=attributes)
    rows = metrics.class_rows(scores, labels, class_names=class_names)
    plots.write_csv(plots_folder / "per_class.csv", rows)
    plots.write_confusion(
        plots_folder / "confusion.csv",
        labels=labels,
        predicted=scores.argmax(axis=1),
        class_names=class_names,
    )
    reliability = plots.reliability_rows(scores, labels, temperature=temperature)
    shown = (*headline.HEADLINE, headline.LEARNED_FROM)
    headline.write(
        metrics_path,
        details_path,
        headline={key: written[key] for key in shown if key in written},
        details={key: value for key, value in written.items() if key not in shown},
        rows=[metrics.rounded(row) for row in reliability],
    )
    return written


def write_sets(
    metrics_path: Path,
    details_path: Path,
    entries: Mapping[str, Mapping[str, Any]],
    *,
    left_out: Mapping[str, int] | None = None,
) -> None:
    """Write what was measured of the prompt sets; of each the accuracy on test is the headline.

    Args:
        entries: by set, `test` among other things, with an accuracy and its interval.
        left_out: sets that were not embedded, by name their number of sentences.
    """
    numbers = metrics.rounded(dict(entries))
    accuracies = {name: entry["test"].pop("accuracy") for name, entry in numbers.items()}
    headline.write(
        metrics_path,
        details_path,
        headline={name: {"accuracy": accuracy} for name, accuracy in accuracies.items()},
        details={**numbers, headline.LEFT_OUT: left_out} if left_out else numbers,
        rows=[
            {"set": name, "accuracy": accuracies[name], **entry["test"]["accuracy_ci95"]}
            for name, entry in numbers.items()
        ],
    )
