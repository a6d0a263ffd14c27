"""Every prompt set: on train to choose by, on test to report, and against the active one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar.core import params
from clipcifar.core.errors import DataError
from clipcifar.evaluation import compare, metrics, results
from clipcifar.evaluation.calibration import fit_temperature
from clipcifar.methods import zero_shot
from clipcifar.prompts.params import PromptsParams
from clipcifar.store import inputs
from clipcifar.store.predictions import write_set_predictions
from clipcifar.store.prompt_set import left_out
from stages import run


def main(
    settings: dict[str, Any],
    images_path: Path,
    texts_folder: Path,
    splits_path: Path,
    predictions: Path,
    metrics_path: Path,
    details_path: Path,
) -> None:
    active = params.read(settings, "prompts", PromptsParams).active
    images = inputs.requested_images(images_path, settings)
    val = inputs.val_of(images, splits_path)
    train_labels, test_labels = images.train.labels, images.test.labels
    set_metrics: dict[str, dict[str, Any]] = {}
    test_scores, notes = {}, {}
    for path in sorted(texts_folder.glob("*.h5")):
        texts = inputs.matching_texts(path, images)
        weights = zero_shot.classifier(texts)
        train, test = (
            zero_shot.logits(split.embeddings, weights, logit_scale=images.logit_scale)
            for split in (images.train, images.test)
        )
        entry = set_metrics[path.stem] = {"n_sentences": len(texts.sentences)}
        if len(train_labels):
            of_train = metrics.summarise(train, train_labels, class_names=images.class_names)
            entry["train"] = {key: of_train[key] for key in ("accuracy", "accuracy_ci95", "n", "n_correct")}
        entry["test"] = metrics.summarise(test, test_labels, class_names=images.class_names)
        del entry["test"]["per_class"]
        if len(val):
            temperature = fit_temperature(train[val], train_labels[val])
            entry["test"]["calibrated"] = metrics.calibrated(test, test_labels, temperature=temperature)
        test_scores[path.stem] = test
        notes[path.stem] = zero_shot.repeated_note(texts.embeddings, texts.class_index, texts.weights)
    said = {name: scores.argmax(axis=1) for name, scores in test_scores.items()}
    if active not in said:
        raise DataError(
            f"the active set {active!r} was not embedded", where=str(texts_folder), fix="run `dvc repro`"
        )
    others = {name: predicted for name, predicted in said.items() if name != active}
    for item in compare.against(
        said[active], others, test_labels, class_names=images.class_names, copies=images.test.copies
    ):
        set_metrics[item.name]["vs_active"] = item.as_metrics()
    write_set_predictions(predictions, test_scores, images)
    results.write_sets(metrics_path, details_path, set_metrics, left_out=left_out(texts_folder))
    for name, entry in set_metrics.items():
        parts = [f"{part} {entry[part]['accuracy']:.4f}" for part in ("train", "test") if part in entry]
        print(f"{name}: {', '.join(parts)}{notes[name]}")
    if not len(train_labels):
        print("no train images to choose a set by: one that is chosen on test looks better there than it is")


if __name__ == "__main__":
    run(main)
