"""Zero-shot classification with the active prompt set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar import model, params, results, store, zero_shot
from clipcifar.prompts import PromptsParams
from stages import run


def main(
    settings: dict[str, Any], images: Path, texts: Path, predictions: Path, metrics: Path, plots: Path
) -> None:
    active = params.read(settings, "prompts", PromptsParams).active
    image_embeddings = store.read_images(images)
    text_embeddings = store.read_texts(texts / f"{active}.h5")
    store.check_same_space(image_embeddings, text_embeddings)
    model.check_requested(image_embeddings.attributes, params.read(settings, "model", model.ModelParams))
    weights = zero_shot.class_weights(
        text_embeddings.embeddings, text_embeddings.class_index, class_names=text_embeddings.class_names
    )
    written = results.write(
        "zero_shot",
        zero_shot.logits(image_embeddings.test.embeddings, weights, logit_scale=image_embeddings.logit_scale),
        image_embeddings,
        predictions_path=predictions,
        metrics_path=metrics,
        plots_folder=plots,
        extra_attributes={"texts_fingerprint": text_embeddings.attributes["fingerprint"]},
    )
    print(f"zero-shot, prompt set {active}: top-1 {written['accuracy']:.4f}")


if __name__ == "__main__":
    run(main)
