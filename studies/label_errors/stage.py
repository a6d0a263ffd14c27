"""Which labels does no method believe? A ranking, an estimate, and how well planted errors are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar.core import params
from clipcifar.datasets.params import DatasetParams, photograph_folder
from clipcifar.methods.linear_probe import LinearProbeParams, not_converged
from clipcifar.methods.zero_shot import classifier, logits
from clipcifar.prompts.params import PromptsParams
from clipcifar.render.page_file import write_page
from clipcifar.store import heads, inputs
from clipcifar.studies import same_images
from clipcifar.studies.label_errors import certain, findings, page
from clipcifar.studies.label_errors.confident import disputes, plant, probabilities
from clipcifar.studies.label_errors.out_of_sample import opinions
from clipcifar.studies.label_errors.params import LabelErrorsParams
from stages import run


def main(
    settings: dict[str, Any],
    raw: Path,
    images_path: Path,
    texts_folder: Path,
    head: Path,
    predictions: Path,
    dataset_path: Path,
    out: Path,
    page_path: Path,
) -> None:
    asked = params.read(settings, "label_errors", LabelErrorsParams)
    max_iter = params.read(settings, "linear_probe", LinearProbeParams).max_iter
    folder = photograph_folder(params.read(settings, "dataset", DatasetParams), raw)
    active = params.read(settings, "prompts", PromptsParams).active
    images = inputs.requested_images(images_path, settings)
    texts = inputs.matching_texts(texts_folder / f"{active}.h5", images)
    inputs.check_train(images, "label_errors learns from")
    dataset, said = same_images.read(images, dataset_path, predictions)
    temperatures = {name: float(of_method.attributes["temperature"]) for name, of_method in said.items()}
    train, names = images.train, images.class_names
    flipped, rows = plant(train.labels, share=asked.planted, num_classes=len(names), seed=asked.seed)
    (of_train, of_flipped), failed = opinions(
        train,
        [train.labels, flipped],
        logits(train.embeddings, classifier(texts), logit_scale=images.logit_scale),
        temperatures=temperatures,
        num_folds=asked.folds,
        seed=asked.seed,
        c=float(heads.read_for(head, images, method="linear_probe")[1]["c"]),
        max_iter=max_iter,
        class_names=names,
    )
    of_test = probabilities({name: of_method.scores for name, of_method in said.items()}, temperatures)
    planted = findings.of_planted(disputes(of_flipped, flipped), rows)
    copies = certain.find(dataset)
    results = findings.measure(
        of_train, of_test, images, planted=planted, copies=copies, n_not_converged=failed
    )
    findings.write(out, results, class_names=names)
    notes = not_converged(failed, max_iter)
    about: dict[str, Any] = {"attributes": images.attributes, "notes": notes}
    html = page.render(results, dataset, folder=folder, shown=asked.shown, **about)
    write_page(page_path, html)
    print("\n".join([*notes, *findings.verdicts(results)[:4]]))


if __name__ == "__main__":
    run(main)
