"""The fine-tuned tower against the frozen probe on test; the first place where its test labels are read."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError, made_by
from clipcifar.evaluation.calibration import fit_temperature
from clipcifar.evaluation.compare import Comparison, as_metrics, compare
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.fields import rows_of
from clipcifar.store.predictions import Predictions
from clipcifar.studies.finetune.scores import STUDY, FinetuneScores


@dataclass(frozen=True)
class Result:
    """What the study found.

    Attributes:
        scores: (N, C) float32 logits of the fine-tuned tower on test, in the embeddings' order.
        frozen: (N, C) float32, those of the frozen probe in the same order.
        temperature: of the fine-tuned scores, fitted on val.
        comparison: the fine-tuned tower with the frozen probe.
    """

    scores: NDArray[np.float32]
    frozen: NDArray[np.float32]
    temperature: float
    comparison: Comparison


@made_by(STUDY)
def judge(tuned: FinetuneScores, frozen: Predictions, images: ImageEmbeddings) -> Result:
    """Join by sample id and compare.

    Raises:
        DataError: the three are not of the same embeddings, or an image is missing.
    """
    wanted = images.attributes["fingerprint"]
    for what, attributes in (("fine-tuned scores", tuned.attributes), ("MLP probe", frozen.attributes)):
        if attributes.get("images_fingerprint") != wanted:
            raise DataError(f"the {what} are of other embeddings", fix="run `dvc repro`")
    val = images.train.labels[rows_of(tuned.val_ids, images.train.ids, what="the train images")]
    scores = tuned.test[rows_of(images.test.ids, tuned.test_ids, what="the fine-tuned scores")]
    before = frozen.scores[rows_of(images.test.ids, frozen.ids, what="the MLP probe's predictions")]
    temperature = fit_temperature(tuned.val, val)
    comparison = compare(
        before.argmax(axis=1), scores.argmax(axis=1), images.test.labels, class_names=images.class_names
    )
    return Result(scores, before, temperature, comparison)


def extra_metrics(result: Result, tuned: FinetuneScores) -> dict[str, Any]:
    """What the study adds to the metrics that every method has."""
    overall, attributes = result.comparison.overall, tuned.attributes
    return {
        "selected": {"epoch": attributes["epoch"]},
        "epochs": attributes["epochs"],
        "n_trained": attributes["n_trained"],
        "n_parameters": attributes["n_parameters"],
        "frozen": {"accuracy": overall.accuracy_a},
        "vs_frozen": {**as_metrics(overall), "p": overall.p_value},
    }


@made_by(STUDY)
def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file of ours; DataError when it cannot be read."""
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"cannot be read: {error}", where=str(path), fix="run `dvc repro`") from error
