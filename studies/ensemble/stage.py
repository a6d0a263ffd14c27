"""Zero-shot mixed with each trained method: the coefficient chosen on val, the mix judged on test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar.core import params
from clipcifar.methods.linear_probe import LinearProbeParams, not_converged
from clipcifar.methods.zero_shot import classifier
from clipcifar.prompts.params import PromptsParams
from clipcifar.render.page_file import write_page
from clipcifar.store import heads, inputs
from clipcifar.store.predictions import inherited
from clipcifar.studies.ensemble import findings, mix, page
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
    rows = inputs.train_val_of(images, splits_path, learner="ensemble")
    weights, of_texts = classifier(texts), texts.attributes["fingerprint"]
    sides = gather(
        images, rows, weights, heads_folder=heads_folder, texts_fingerprint=of_texts, max_iter=max_iter
    )
    pairs = mix.pairs(sides.zero_shot, sides.trained, linear={"linear_probe"})
    choices = [mix.choose(pair, images.train.labels[rows.val], steps=steps) for pair in pairs]
    notes = not_converged(sides.n_not_converged, max_iter)
    coefficient = mix.of_weights(pairs, choices).coefficient
    linear = mix.interpolated(weights, sides.probe, logit_scale=images.logit_scale, coefficient=coefficient)
    origin = {**inherited(images.attributes), "texts_fingerprint": of_texts, "coefficient": coefficient}
    heads.write(folder / "interpolated.h5", "interpolated weights", linear.arrays, origin)
    test, class_names = images.test, images.class_names
    judged = findings.measure(pairs, choices, test.labels, class_names=class_names, copies=test.copies)
    findings.write(folder, judged, images, texts_fingerprint=of_texts, n_not_converged=sides.n_not_converged)
    counts = {"n_val": len(rows.val), "n_test": len(images.test.ids)}
    html = page.render(judged, **counts, attributes=images.attributes, active=active, notes=notes)
    write_page(page_path, html)
    print("\n".join([*notes, *findings.verdicts(judged)]))


if __name__ == "__main__":
    run(main)
