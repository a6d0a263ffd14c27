"""Projection heads on image and class embeddings, starting from the zero-shot classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from clipcifar.core import params
from clipcifar.evaluation.headline import of_images
from clipcifar.methods import zero_shot
from clipcifar.methods.trained import seeds
from clipcifar.methods.trained.projection import Projection
from clipcifar.methods.trained.training import Labelled, TrainingParams
from clipcifar.prompts.params import PromptsParams
from clipcifar.store import inputs
from stages import run


def main(
    settings: dict[str, Any],
    images_path: Path,
    texts_folder: Path,
    splits_path: Path,
    head: Path,
    predictions: Path,
    metrics: Path,
    details: Path,
    plots: Path,
) -> None:
    training = params.read(settings, "projection", TrainingParams)
    active = params.read(settings, "prompts", PromptsParams).active
    images = inputs.requested_images(images_path, settings)
    texts = inputs.matching_texts(texts_folder / f"{active}.h5", images)
    rows = inputs.train_val_of(images, splits_path, learner="projection")
    weights = zero_shot.classifier(texts)

    def build(data: Labelled) -> Projection:
        return Projection(
            torch.from_numpy(weights).to(data.embeddings.device),
            logit_scale=images.logit_scale,
            hidden=training.hidden,
            dropout=training.dropout,
        )

    written = seeds.train_and_report(
        "projection",
        build,
        images,
        rows,
        params=training,
        outputs=seeds.Outputs(head, predictions, metrics, details, plots),
        attributes={"texts_fingerprint": texts.attributes["fingerprint"]},
    )
    chosen = written["selected"]["seed"]
    print(f"projection heads, seed {chosen}: top-1 {written['accuracy']:.4f}{of_images(written)}")


if __name__ == "__main__":
    run(main)
