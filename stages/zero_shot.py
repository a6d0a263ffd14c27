"""Zero-shot classification with the active prompt set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar.core import params
from clipcifar.evaluation import results
from clipcifar.evaluation.calibration import fit_temperature
from clipcifar.methods import zero_shot
from clipcifar.prompts.params import PromptsParams
from clipcifar.store import inputs
from stages import run


def main(
    settings: dict[str, Any],
    images_path: Path,
    texts_folder: Path,
    splits_path: Path,
    predictions: Path,
    metrics: Path,
    details: Path,
    plots: Path,
) -> None:
    active = params.read(settings, "prompts", PromptsParams).active
    images = inputs.requested_images(images_path, settings)
    texts = inputs.matching_texts(texts_folder / f"{active}.h5", images)
    val = inputs.val_of(images, splits_path)
    weights = zero_shot.classifier(texts)
    val_scores, test_scores = (
        zero_shot.logits(rows, weights, logit_scale=images.logit_scale)
        for rows in (images.train.embeddings[val], images.test.embeddings)
    )
    written = results.write(
        "zero_shot",
        test_scores,
        images,
        temperature=fit_temperature(val_scores, images.train.labels[val]) if len(val) else None,
        predictions_path=predictions,
        metrics_path=metrics,
        details_path=details,
        plots_folder=plots,
        extra_attributes={"texts_fingerprint": texts.attributes["fingerprint"]},
    )
    if not len(val):
        print("no val images: no temperature is fitted, confidences are at the model's own logit scale")
    note = zero_shot.repeated_note(texts.embeddings, texts.class_index, texts.weights)
    print(f"zero-shot, prompt set {active}: top-1 {written['accuracy']:.4f}{note}")


if __name__ == "__main__":
    run(main)
