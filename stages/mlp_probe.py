"""MLP probe on image embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar.core import params
from clipcifar.evaluation.headline import of_images
from clipcifar.methods.trained import seeds
from clipcifar.methods.trained.mlp_probe import MLPProbe
from clipcifar.methods.trained.training import Labelled, TrainingParams
from clipcifar.store import inputs
from stages import run


def main(
    settings: dict[str, Any],
    images_path: Path,
    splits_path: Path,
    head: Path,
    predictions: Path,
    metrics: Path,
    details: Path,
    plots: Path,
) -> None:
    training = params.read(settings, "mlp_probe", TrainingParams)
    images = inputs.requested_images(images_path, settings)
    rows = inputs.train_val_of(images, splits_path, learner="mlp_probe")

    def build(data: Labelled) -> MLPProbe:
        return MLPProbe(
            data.embeddings,
            num_classes=len(images.class_names),
            hidden=training.hidden,
            dropout=training.dropout,
        )

    written = seeds.train_and_report(
        "mlp_probe",
        build,
        images,
        rows,
        params=training,
        outputs=seeds.Outputs(head, predictions, metrics, details, plots),
        attributes={},
    )
    print(
        f"MLP probe, seed {written['selected']['seed']}: top-1 {written['accuracy']:.4f}{of_images(written)}"
    )


if __name__ == "__main__":
    run(main)
