"""Zero-shot mixed with each trained method: the coefficient chosen on val, the mix judged on test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar.core import params
from clipcifar.core.files import write_atomically, write_json
from clipcifar.evaluation.metrics import rounded
from clipcifar.evaluation.plots import write_csv
from clipcifar.methods.linear_probe import LinearProbeParams, not_converged
from clipcifar.methods.zero_shot import classifier
from clipcifar.prompts.params import PromptsParams
from clipcifar.store import heads, inputs
from clipcifar.store.predictions import inherited, write_answers
from clipcifar.studies.ensemble import mix as ensemble, page, scores as ensemble_scores
from clipcifar.studies.ensemble.params import EnsembleParams
from clipcifar.studies.ensemble.sides import gather
from stages import run


def main(
    settings: dict[str, Any],
    images_path: Path,
    texts_folder: Path,
    splits_path: Path,
    heads_folder: Path,
    folder: Path,
    page_path: Path,
) -> None:
    steps = params.read(settings, "ensemble", EnsembleParams).steps
    max_iter = params.read(settings, "linear_probe", LinearProbeParams).max_iter
    active = params.read(settings, "prompts", PromptsParams).active
    images = inputs.requested_images(images_path, settings)
    texts = inputs.matching_texts(texts_folder / f"{active}.h5", images)
    rows = inputs.train_val_of(images, splits_path)
    weights, of_texts = classifier(texts), texts.attributes["fingerprint"]
    sides = gather(
        images, rows, weights, heads_folder=heads_folder, texts_fingerprint=of_texts, max_iter=max_iter
    )
    pairs = ensemble.pairs(sides.zero_shot, sides.trained, linear={"linear_probe"})
    val_labels, labels = images.train.labels[rows.val], images.test.labels
    choices = [ensemble.choose(pair, val_labels, steps=steps) for pair in pairs]
    notes = not_converged(sides.n_not_converged, max_iter)
    origin = {**inherited(images.attributes), "texts_fingerprint": of_texts}
    coefficient = ensemble.of_weights(pairs, choices).coefficient
    linear = ensemble.interpolated(
        weights, sides.probe, logit_scale=images.logit_scale, coefficient=coefficient
    )
    attributes = {**origin, "coefficient": coefficient}
    heads.write(folder / "interpolated.h5", "interpolated weights", linear.arrays, attributes)
    judged = ensemble_scores.judge(pairs, choices, labels, class_names=images.class_names)
    write_answers(
        folder / "predictions.h5",
        ensemble_scores.arrays(judged),
        images,
        kind="ensemble predictions",
        attributes={"texts_fingerprint": of_texts},
    )
    curves = [ensemble.curve_rows(one.pair, one.choice, labels, title=one.title) for one in judged]
    write_csv(folder / "mixing.csv", [row for curve in curves for row in curve])
    found = ensemble_scores.as_study_metrics(judged, labels, n_not_converged=sides.n_not_converged)
    write_json(folder / "metrics.json", rounded(found))
    counts = {"n_val": len(val_labels), "n_test": len(labels)}
    html = page.render(judged, curves, **counts, attributes=origin, active=active, notes=notes)
    write_atomically(page_path, html.encode())
    print("\n".join([*notes, *ensemble_scores.verdicts(judged)]))


if __name__ == "__main__":
    run(main)
