"""Which test images have a twin among the train images, and what is each method's accuracy without them?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar.core import params
from clipcifar.core.progress import progress
from clipcifar.datasets.params import DatasetParams, photograph_folder
from clipcifar.render.page_file import write_page
from clipcifar.store import inputs
from clipcifar.studies import same_images
from clipcifar.studies.near_duplicates import findings, nearest, page, within
from clipcifar.studies.near_duplicates.params import NearDuplicatesParams
from stages import run


def main(
    settings: dict[str, Any],
    raw: Path,
    images_path: Path,
    predictions: Path,
    dataset_path: Path,
    out: Path,
    page_path: Path,
) -> None:
    asked = params.read(settings, "near_duplicates", NearDuplicatesParams)
    folder = photograph_folder(params.read(settings, "dataset", DatasetParams), raw)
    images = inputs.requested_images(images_path, settings)
    inputs.check_train(images, "near_duplicates looks for twins among")
    dataset, said = same_images.read(images, dataset_path, predictions)
    train, test = images.train, images.test
    with progress(total=len(test.ids), unit="images", what="nearest train images") as bar:
        twins, cosines = nearest.nearest(test.embeddings, train.embeddings, on_rows=bar.update)
    splits = []
    for name, part, own in (("train", dataset.train, train), ("test", dataset.test, test)):
        with progress(total=len(own.ids), unit="images", what=f"nearest within {name}") as bar:
            others = nearest.nearest_other(own.embeddings, on_rows=bar.update)
        splits.append(within.measure(name, part, *others, folder=folder, threshold=asked.threshold))
    results = findings.measure(
        twins,
        cosines,
        nearest.background(test.embeddings, test.labels, train.embeddings, train.labels),
        {name: of_method.predicted for name, of_method in said.items()},
        dataset,
        splits,
        folder=folder,
        threshold=asked.threshold,
    )
    findings.write(out, results, dataset)
    html = page.render(results, dataset, folder=folder, shown=asked.shown, attributes=images.attributes)
    write_page(page_path, html)
    print("\n".join(findings.verdicts(results)[:4]))


if __name__ == "__main__":
    run(main)
