"""What every method leaves behind: predictions, metrics, and the plots that all methods share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar import container, metrics, plots
from clipcifar.errors import DataError
from clipcifar.files import Attribute, write_json
from clipcifar.hierarchy import coarse_metrics, hierarchy_of
from clipcifar.store import INHERITED, ImageEmbeddings, check_ids, check_index, class_names_of

_OPTIONAL = ("device", "precision")


@dataclass(frozen=True)
class Predictions:
    """The scores of one method on the test images.

    Attributes:
        scores: (N, C) float32 logits.
        labels: (N,) int64.
        ids: N sample ids.
    """

    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    ids: list[str]
    attributes: Mapping[str, Attribute]

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) int64, the predicted classes."""
        return np.asarray(self.scores.argmax(axis=1))


def inherited(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    """The attributes that say which model, data and libraries a result belongs to."""
    versions = [key for key in attributes if key in _OPTIONAL or key.startswith("version_")]
    return {
        **{key: attributes[key] for key in (*INHERITED, "max_per_class")},
        **{key: attributes[key] for key in versions},
        "images_fingerprint": attributes["fingerprint"],
    }


def write(
    method: str,
    scores: NDArray[np.float32],
    images: ImageEmbeddings,
    *,
    temperature: float,
    predictions_path: Path,
    metrics_path: Path,
    plots_folder: Path,
    extra_metrics: Mapping[str, Any] | None = None,
    extra_attributes: Mapping[str, Attribute] | None = None,
) -> dict[str, Any]:
    """Score a finished method on the test images and write everything about it.

    Test labels are read here, after every choice has been made.

    Args:
        method: its stage name.
        scores: (N, C) float32 logits of the N test images.
        images: the embeddings that the scores were computed from.
        temperature: what val says the scores should be divided by.
        extra_metrics: what the method adds to the common metrics.
        extra_attributes: what else determined the scores.

    Returns:
        The metrics as written.
    """
    scores = scores.astype(np.float32)  # as stored, so that the metrics recompute from the file
    labels, class_names = images.test.labels, class_names_of(images.attributes)
    found = metrics.summarise(scores, labels, class_names=class_names)
    found["calibrated"] = metrics.calibrated(scores, labels, temperature=temperature)
    hierarchy = hierarchy_of(str(images.attributes["dataset"]), class_names)
    if hierarchy is not None:
        found["coarse"] = coarse_metrics(scores.argmax(axis=1), labels, hierarchy)
    found["max_per_class"] = int(images.attributes["max_per_class"])
    per_class = found.pop("per_class")
    written = metrics.rounded({**found, **(extra_metrics or {}), "per_class": per_class})
    container.write(
        predictions_path,
        kind="predictions",
        arrays={
            "scores": scores,
            "labels": labels,
            "ids": container.encode_strings(images.test.ids),
        },
        attributes={
            **inherited(images.attributes),
            "method": method,
            "temperature": temperature,
            **(extra_attributes or {}),
        },
    )
    rows = metrics.class_rows(scores, labels, class_names=class_names)
    plots.write_csv(plots_folder / "per_class.csv", rows)
    plots.write_confusion(
        plots_folder / "confusion.csv",
        labels=labels,
        predicted=scores.argmax(axis=1),
        class_names=class_names,
    )
    plots.write_reliability(
        plots_folder / "reliability.csv", scores=scores, labels=labels, temperature=temperature
    )
    write_json(metrics_path, written)
    return written


def check_scores(
    scores: NDArray[np.float32], labels: NDArray[np.int64], ids: list[str], *, num_classes: int
) -> None:
    """Raise DataError unless these are finite float32 scores of N images with ids of their own.

    Args:
        scores: (N, C).
        labels: (N,) int64.
        ids: N.
        num_classes: C.
    """
    if scores.dtype != np.float32 or scores.shape != (len(ids), num_classes) or not len(ids):
        raise DataError(
            f"expected float32 scores ({len(ids)}, {num_classes}), found {scores.dtype} {scores.shape}"
        )
    if not np.isfinite(scores).all():
        raise DataError("a score is not finite")
    check_index(labels, num_classes, len(ids))
    check_ids(ids)


def read_predictions(path: Path) -> Predictions:
    """Read and verify a predictions file; DataError names what is wrong with it."""
    file = container.read(path, kind="predictions")
    try:
        found = Predictions(
            scores=file.arrays["scores"],
            labels=file.arrays["labels"],
            ids=container.decode_strings(file.arrays["ids"]),
            attributes=file.attributes,
        )
        container.require(
            file.attributes,
            texts=(*INHERITED, "images_fingerprint"),
            numbers=("max_per_class", "temperature"),
        )
        check_scores(found.scores, found.labels, found.ids, num_classes=len(class_names_of(file.attributes)))
        if not float(file.attributes["temperature"]) > 0:
            raise DataError(f"the temperature is {file.attributes['temperature']}")
    except (KeyError, DataError) as error:
        raise DataError(f"not predictions: {error}", where=str(path), fix="run `dvc repro`") from error
    return found
