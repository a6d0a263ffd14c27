"""The page of fine-tuning: the verdict, the training curve, classes, and what was trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from clipcifar.core.counts import count_of
from clipcifar.evaluation.words import interval, p_text, points
from clipcifar.render import charts, study
from clipcifar.render.study import Chart, Section, Table
from clipcifar.render.svg import PAIRED
from clipcifar.studies.finetune.judge.findings import FROZEN, TUNED, Findings, verdicts
from clipcifar.studies.finetune.scores import FinetuneScores

_QUESTION = (
    "Does it pay to train the image tower itself? The MLP probe's head is trained on with the tower, "
    "from where the frozen probe ended; val chooses the epoch, and both are asked about the same test images."
)
_COMMANDS = [
    "clipcifar study finetune",
    "dvc metrics diff --targets data/studies/finetune/metrics.json data/studies/finetune/details.json",
    "dvc plots show data/studies/finetune/training.csv -x epoch -y val_accuracy",
]
_SHOWN = {
    "epochs": "epochs at most",
    "patience": "patience in epochs",
    "learning_rate": "learning rate",
    "layer_decay": "layer decay",
    "warmup_epochs": "epochs of warm-up",
    "weight_decay": "weight decay",
    "dropout": "dropout of the head",
    "batch_size": "images per pass",
    "accumulate": "passes per step",
    "crop": "crop",
    "smallest_crop": "smallest crop",
    "flip": "flip",
    "precision": "precision",
    "seed": "seed",
}


def render(
    findings: Findings,
    tuned: FinetuneScores,
    metrics: Mapping[str, Any],
    frozen_metrics: Mapping[str, Any],
    curve: Sequence[Mapping[str, str]],
    layers: Sequence[Mapping[str, str]],
) -> str:
    """The page.

    Args:
        metrics, frozen_metrics: of the two on test, as `metrics.summarise` has them, in the keys of
            the metrics files.
        curve: rows of training.csv.
        layers: rows of layers.csv.
    """
    return study.render(
        name="finetune",
        title="Fine-tuning the image tower",
        question=_QUESTION,
        verdicts=verdicts(findings, tuned),
        sections=[
            _numbers(metrics, frozen_metrics),
            _training(curve, int(tuned.attributes["epoch"])),
            _classes(findings),
            _what_was_trained(tuned, layers),
            _recipe(tuned),
        ],
        attributes=tuned.attributes,
        commands=_COMMANDS,
    )


def _numbers(metrics: Mapping[str, Any], frozen: Mapping[str, Any]) -> Section:
    rows = []
    for name, summary in ((FROZEN, frozen), (TUNED, metrics)):
        interval = summary["accuracy_ci95"]
        rows.append(
            [
                name,
                f"{summary['accuracy']:.4f}",
                f"{interval['low']:.4f}–{interval['high']:.4f}",
                f"{summary['balanced_accuracy']:.4f}",
                f"{summary['ece']:.4f}",
                f"{summary['nll']:.4f}",
            ]
        )
    header = ["tower", "top-1", "95 % interval", "balanced", "ECE", "NLL"]
    return Section(
        "numbers",
        "In numbers",
        tables=[
            Table(
                f"On {count_of(metrics['n'], 'test image')}, as they are, before any temperature",
                header,
                rows,
            )
        ],
    )


def _training(curve: Sequence[Mapping[str, str]], chosen: int) -> Section:
    epochs = [int(row["epoch"]) for row in curve]
    lines = {
        key: charts.Line(epochs, [float(row[key]) for row in curve])
        for key in ("train_loss", "val_loss", "val_accuracy")
    }
    at_first = lines["val_accuracy"].ys[0]
    step = max(1, len(epochs) // 8)
    ticks = {float(epoch): str(epoch) for epoch in epochs[::step]}
    accuracy = charts.curves(
        {"fine-tuned": lines["val_accuracy"]},
        name="val",
        description=f"Line: accuracy on val by epoch, from {at_first:.4f} at epoch 0",
        x_label="epoch",
        y_label="accuracy on val",
        sizes=PAIRED,
        x_ticks=ticks,
        levels={"frozen probe": at_first},
    )
    losses = charts.curves(
        {"train, augmented": lines["train_loss"], "val": lines["val_loss"]},
        name="loss",
        description="Lines: cross-entropy on train and val by epoch",
        x_label="epoch",
        y_label="cross-entropy, nats",
        sizes=PAIRED,
        x_ticks=ticks,
    )
    return Section(
        "training",
        "Training",
        charts=[
            Chart("Accuracy on val", accuracy, f"Epoch 0 is the frozen probe; val chose epoch {chosen}."),
            Chart(
                "Cross-entropy",
                losses,
                "On train it is met on the way, on augmented images and with dropout; at epoch 0 it is that "
                "of the images as they are.",
            ),
        ],
    )


def _classes(findings: Findings) -> Section:
    rows = [
        [
            item.name,
            str(item.paired.n),
            f"{item.paired.accuracy_a:.4f}",
            f"{item.paired.accuracy_b:.4f}",
            points(item.paired.difference),
            interval(item.paired, 1),
            p_text(item.p_holm),
        ]
        for item in findings.comparison.per_class
    ]
    header = ["class", "images", "frozen", "fine-tuned", "points", "95 % interval", "p, Holm"]
    note = "Paired on the same images; p by McNemar's exact test, corrected over the classes."
    flows = [[flow.label, flow.from_a, flow.to_b, str(flow.n)] for flow in findings.comparison.flows]
    tables = [Table("Accuracy within each class", header, rows, note=note)]
    if flows:
        caption = "The most frequent changes of mind"
        tables.append(Table(caption, ["class", "frozen", "fine-tuned", "images"], flows, text_columns=3))
    return Section("classes", "Class by class", tables=tables)


def _what_was_trained(tuned: FinetuneScores, layers: Sequence[Mapping[str, str]]) -> Section:
    trained, everything = int(tuned.attributes["n_trained"]), int(tuned.attributes["n_parameters"])
    settings = json.loads(str(tuned.attributes["params"]))
    rate = settings["learning_rate"]
    rows = [
        [row["layer"], f"{int(row['parameters']):,}", f"{rate * float(row['share_of_rate']):.2g}"]
        for row in layers
    ]
    return Section(
        "trained",
        "What was trained",
        paragraphs=[f"{trained:,} of {everything:,} parameters of tower and head."],
        tables=[Table("Layers from the input on", ["layer", "parameters", "full learning rate"], rows)],
    )


def _recipe(tuned: FinetuneScores) -> Section:
    settings = json.loads(str(tuned.attributes["params"]))
    rows = [[_SHOWN[key], str(settings[key])] for key in _SHOWN]
    return Section("recipe", "The recipe", tables=[Table("From params.yaml", ["parameter", "value"], rows)])
