"""GDA-CLIP, Gaussians of image embeddings beside zero-shot: alpha chosen on val, then all refitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar.core import params
from clipcifar.evaluation import plots, results
from clipcifar.evaluation.calibration import fit_temperature
from clipcifar.evaluation.selection import most_accurate
from clipcifar.methods import gda, zero_shot
from clipcifar.methods.gda import GDAParams
from clipcifar.prompts.params import PromptsParams
from clipcifar.store import heads, inputs
from clipcifar.store.predictions import inherited
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
    plots_folder: Path,
) -> None:
    alphas = sorted(params.read(settings, "gda", GDAParams).alphas)
    active = params.read(settings, "prompts", PromptsParams).active
    images = inputs.requested_images(images_path, settings)
    texts = inputs.matching_texts(texts_folder / f"{active}.h5", images)
    rows = inputs.train_val_of(images, splits_path, learner="gda")
    weights, scale, names = zero_shot.classifier(texts), images.logit_scale, images.class_names
    val, val_labels = images.train.part(rows.val)
    of_zero_shot = zero_shot.logits(val, weights, logit_scale=scale)
    of_train = gda.fit(*images.train.part(rows.train), class_names=names).scores(val)
    on_val = gda.standings(of_zero_shot, of_train, val_labels, alphas=alphas)
    alpha = alphas[most_accurate(on_val)]
    plots.write_csv(plots_folder / "validation.csv", gda.curve_rows(alphas, on_val))
    refit = gda.fit(images.train.embeddings, images.train.labels, class_names=names)
    classifier = gda.folded(refit, weights, logit_scale=scale, alpha=alpha)
    of_texts = {"texts_fingerprint": texts.attributes["fingerprint"]}
    about = {**inherited(images.attributes), **of_texts, "alpha": alpha}
    heads.write(head, "gda", classifier.arrays, about)
    written = results.write(
        "gda",
        classifier.scores(images.test.embeddings),
        images,
        temperature=fit_temperature(gda.added(of_zero_shot, of_train, alpha), val_labels),
        predictions_path=predictions,
        metrics_path=metrics,
        details_path=details,
        plots_folder=plots_folder,
        extra_metrics={"selected": {"alpha": alpha}},
        extra_attributes=of_texts,
    )
    print(f"GDA, alpha = {alpha:g}: top-1 {written['accuracy']:.4f}")


if __name__ == "__main__":
    run(main)
