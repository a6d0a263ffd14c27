"""The fine-tuned tower against the frozen probe on test; the first place where its test labels are read."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.counts import count_of
from clipcifar.core.errors import DataError, made_by
from clipcifar.core.files import fault_behind
from clipcifar.evaluation import results
from clipcifar.evaluation.calibration import fit_temperature
from clipcifar.evaluation.compare import Comparison, as_metrics as paired_metrics, compare
from clipcifar.evaluation.seeds import OTHER_IMAGES
from clipcifar.evaluation.verdict import verdict
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.fields import rows_of
from clipcifar.store.predictions import Predictions
from clipcifar.studies.finetune.scores import STUDY, FinetuneScores

FROZEN, TUNED = "the MLP probe on the frozen tower", "the fine-tuned tower"


@dataclass(frozen=True)
class Findings:
    """The fine-tuned tower on test.

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
def measure(tuned: FinetuneScores, frozen: Predictions, images: ImageEmbeddings) -> Findings:
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
        before.argmax(axis=1),
        scores.argmax(axis=1),
        images.test.labels,
        class_names=images.class_names,
        copies=images.test.copies,
    )
    return Findings(scores, before, temperature, comparison)


def as_metrics(findings: Findings, tuned: FinetuneScores) -> dict[str, Any]:
    """What the study adds to the metrics that every method has."""
    overall, attributes = findings.comparison.overall, tuned.attributes
    return {
        "selected": {"epoch": attributes["epoch"]},
        "epochs": attributes["epochs"],
        "n_trained": attributes["n_trained"],
        "n_parameters": attributes["n_parameters"],
        "frozen": {"accuracy": overall.accuracy_a},
        "vs_frozen": {**paired_metrics(overall), "p": overall.p_value},
    }


def verdicts(findings: Findings, tuned: FinetuneScores) -> list[str]:
    """Whether the fine-tuned tower is better than the frozen probe, and what is to be kept in mind."""
    sentence = verdict(findings.comparison, name_a=FROZEN, name_b=TUNED)
    epoch, epochs = int(tuned.attributes["epoch"]), int(tuned.attributes["epochs"])
    chosen = f"Val chose epoch {epoch} of the {count_of(epochs, 'that was', 'that were')} trained."
    if epoch == 0:
        chosen = f"No epoch of {epochs} was better on val than the frozen probe, so that is what was chosen."
    elif epoch == epochs and epochs == json.loads(str(tuned.attributes["params"]))["epochs"]:
        chosen += " It is the last that was allowed: more epochs may bring more."
    return [
        sentence[0].upper() + sentence[1:],
        chosen,
        f"This is one seed: interval and p value cover {OTHER_IMAGES}. "
        "Augmentation and further epochs are part of what is compared; finetune.unfrozen_blocks: 0 shows "
        "what they bring by themselves.",
    ]


def write(folder: Path, findings: Findings, tuned: FinetuneScores, images: ImageEmbeddings) -> dict[str, Any]:
    """Write metrics.json, details.json, predictions.h5 and what every method draws; all numbers."""
    return results.write(
        "finetune",
        findings.scores,
        images,
        temperature=findings.temperature,
        predictions_path=folder / "predictions.h5",
        metrics_path=folder / "metrics.json",
        details_path=folder / "details.json",
        plots_folder=folder,
        extra_metrics=as_metrics(findings, tuned),
        extra_attributes={"params": tuned.attributes["params"]},
    )


@made_by(STUDY)
def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file of ours; DataError when it is missing, or is none."""
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    except FileNotFoundError as error:
        raise DataError(f"there is no {path.name}", where=str(path), fix="run `dvc repro`") from error
    except (OSError, ValueError, csv.Error) as error:
        raise fault_behind(error, path) or DataError(
            f"cannot be read: {error}", where=str(path), fix="run `dvc repro`"
        ) from error
