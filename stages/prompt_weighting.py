"""Zero-shot with all templates, weighted by train images without their labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clipcifar.core.counts import count_of
from clipcifar.evaluation import results
from clipcifar.evaluation.calibration import fit_temperature
from clipcifar.evaluation.plots import write_csv
from clipcifar.methods import prompt_weighting
from clipcifar.methods.linear import of_zero_shot
from clipcifar.search import candidates, kept_weights, offering
from clipcifar.search.outcome import SHOWN
from clipcifar.search.ranking import weighted_by
from clipcifar.store import inputs
from clipcifar.store.predictions import inherited
from stages import run


def main(
    settings: dict[str, Any],
    images_path: Path,
    prompts: Path,
    texts_folder: Path,
    pool_path: Path,
    splits_path: Path,
    head: Path,
    predictions: Path,
    metrics: Path,
    details: Path,
    plots_folder: Path,
) -> None:
    images = inputs.requested_images(images_path, settings)
    rows = inputs.train_val_of(images, splits_path, learner="prompt_weighting")
    (offered, sums, clashes, _), _ = offering.read(
        images, prompts=prompts, texts_folder=texts_folder, pool_path=pool_path
    )
    names, scale = images.class_names, images.logit_scale
    averaged = candidates.averageable(offered, clashes, class_names=names)
    train, _ = images.train.part(rows.train)
    weights = weighted_by(train, sums[averaged], logit_scale=scale)
    classifier = of_zero_shot(prompt_weighting.weighted(sums[averaged], weights), logit_scale=scale)
    val, val_labels = images.train.part(rows.val)
    kept_weights.write(head, classifier.arrays, weights, sums[averaged], inherited(images.attributes))
    write_csv(
        plots_folder / "weights.csv",
        [
            {"template": offered[averaged[i]].label, "weight": float(weights[i])}
            for i in np.argsort(-weights, kind="stable")[:SHOWN].tolist()
        ],
    )
    effective = float(
        weights.sum() ** 2 / (weights**2).sum()
    )  # so many, weighted equally, would be as uneven
    written = results.write(
        "prompt_weighting",
        classifier.scores(images.test.embeddings),
        images,
        temperature=fit_temperature(classifier.scores(val), val_labels),
        predictions_path=predictions,
        metrics_path=metrics,
        details_path=details,
        plots_folder=plots_folder,
        extra_metrics={"selected": {"n_templates": len(weights), "effective_templates": effective}},
    )
    print(f"{count_of(len(weights), 'weighted template')}: top-1 {written['accuracy']:.4f}")


if __name__ == "__main__":
    run(main)
