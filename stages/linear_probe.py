"""Logistic regression on image embeddings: C chosen on val, refitted on train and val."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clipcifar.core import params
from clipcifar.core.progress import progress
from clipcifar.evaluation import plots, results
from clipcifar.evaluation.headline import learned_from, of_images
from clipcifar.methods import linear_probe
from clipcifar.methods.linear import Linear
from clipcifar.methods.linear_probe import LinearProbeParams
from clipcifar.store import heads, inputs, splits
from clipcifar.store.predictions import inherited
from stages import run


def main(
    settings: dict[str, Any],
    images_path: Path,
    splits_path: Path,
    head: Path,
    predictions: Path,
    metrics: Path,
    details: Path,
    plots_folder: Path,
) -> None:
    probe_params = params.read(settings, "linear_probe", LinearProbeParams)
    images = inputs.requested_images(images_path, settings)
    rows = inputs.train_val_of(images, splits_path, learner="linear_probe")
    labels, max_rows = images.train.labels, probe_params.max_rows
    learned = splits.drawn(rows.train, labels, max_rows=max_rows)
    both = splits.drawn(np.arange(len(labels)), labels, max_rows=max_rows)
    with progress(total=len(probe_params.c_grid) + 1, unit="fits", what="linear probe") as bar:
        points = linear_probe.validation_curve(
            *images.train.part(learned),
            *images.train.part(rows.val),
            params=probe_params,
            class_names=images.class_names,
            on_fit=bar.update,
        )
        chosen = linear_probe.choose(points)
        refit = linear_probe.solve(
            *images.train.part(both),
            c=chosen.c,
            max_iter=probe_params.max_iter,
            class_names=images.class_names,
        )
        bar.update()
    probe = Linear.of(refit.coefficients, refit.intercepts)
    if failed := [point.c for point in points if not point.converged]:
        print(f"not converged in {probe_params.max_iter} iterations, left out of the choice: C = {failed}")
    if not refit.converged:
        print(f"the refit at C = {chosen.c:g} did not converge in {probe_params.max_iter} iterations")
    plots.write_csv(plots_folder / "validation.csv", linear_probe.curve_rows(points))
    trained = {"c": chosen.c, "max_iter": probe_params.max_iter, "iterations": refit.iterations}
    heads.write(head, "linear_probe", probe.arrays, {**inherited(images.attributes), **trained})
    written = results.write(
        "linear_probe",
        probe.scores(images.test.embeddings),
        images,
        temperature=chosen.temperature,
        predictions_path=predictions,
        metrics_path=metrics,
        details_path=details,
        plots_folder=plots_folder,
        extra_metrics=linear_probe.as_metrics(points, chosen, refit) | learned_from(len(both), len(labels)),
    )
    how = f"{refit.iterations} iterations of scikit-learn's after {refit.own_iterations} of our own"
    print(f"linear probe, C = {chosen.c:g}: top-1 {written['accuracy']:.4f}{of_images(written)} ({how})")


if __name__ == "__main__":
    run(main)
