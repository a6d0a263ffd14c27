"""Few-shot curves: every method on seeded draws of a few images per class, against zero-shot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar.core import params
from clipcifar.core.progress import progress
from clipcifar.methods.linear import Linear
from clipcifar.methods.zero_shot import classifier
from clipcifar.prompts.params import PromptsParams
from clipcifar.render.page_file import write_page
from clipcifar.store import heads, inputs
from clipcifar.studies.few_shot import draws, findings, page
from clipcifar.studies.few_shot.params import FewShotParams
from stages import run


def main(
    settings: dict[str, Any],
    images_path: Path,
    texts_folder: Path,
    weighted_path: Path,
    splits_path: Path,
    folder: Path,
    page_path: Path,
) -> None:
    asked = params.read(settings, "few_shot", FewShotParams)
    active = params.read(settings, "prompts", PromptsParams).active
    images = inputs.requested_images(images_path, settings)
    texts = inputs.matching_texts(texts_folder / f"{active}.h5", images)
    rows = inputs.train_val_of(images, splits_path, learner="few_shot")
    arrays, _ = heads.read_for(weighted_path, images, method="prompt_weighting")
    weighted = Linear.rebuilt(arrays).scores(images.test.embeddings)
    with progress(total=draws.num_draws(asked), unit="draws", what="few-shot") as bar:
        study = draws.run(images, rows, classifier(texts), weighted, params=asked, on_draw=bar.update)
    results = findings.measure(
        study, images.test.labels, num_classes=len(images.class_names), copies=images.test.copies
    )
    findings.write(folder, results, study, images, texts_fingerprint=texts.attributes["fingerprint"])
    notes = draws.not_converged(study, asked.max_iter)
    html = page.render(results, asked, attributes=images.attributes, active=active, notes=notes)
    write_page(page_path, html)
    print("\n".join([*notes, *findings.verdicts(results)]))


if __name__ == "__main__":
    run(main)
