"""Zero-shot accuracy of every prompt set: on train images to choose by, on test images to report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar import files, metrics, model, params, set_predictions, store, zero_shot
from stages import run

KEPT = ("accuracy", "accuracy_ci95", "n", "n_correct")


def main(
    settings: dict[str, Any], images_path: Path, texts_folder: Path, predictions: Path, metrics_path: Path
) -> None:
    images = store.read_images(images_path)
    model.check_requested(images.attributes, params.read(settings, "model", model.ModelParams))
    found: dict[str, dict[str, Any]] = {}
    predicted = {}
    splits = {"train": images.train, "test": images.test}
    for path in sorted(texts_folder.glob("*.h5")):
        texts = store.read_texts(path)
        store.check_same_space(images, texts)
        weights = zero_shot.class_weights(texts.embeddings, texts.class_index, class_names=texts.class_names)
        found[path.stem] = {"n_sentences": len(texts.sentences)}
        scores = {
            name: zero_shot.logits(split.embeddings, weights, logit_scale=images.logit_scale)
            for name, split in splits.items()
        }
        for name, split in splits.items():
            summary = metrics.summarise(scores[name], split.labels, class_names=images.class_names)
            found[path.stem][name] = {key: summary[key] for key in KEPT}
        predicted[path.stem] = scores["test"].argmax(axis=1)
    set_predictions.write(predictions, predicted, images)
    files.write_json(metrics_path, metrics.rounded(found))
    for name, entry in found.items():
        print(f"{name}: train {entry['train']['accuracy']:.4f}, test {entry['test']['accuracy']:.4f}")


if __name__ == "__main__":
    run(main)
