"""Which test images have a twin among the train images, and what is each method's accuracy without them?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar import duplicate_findings, files, inputs, near_duplicates, params, same_images
from clipcifar.dataset_params import DatasetParams, photograph_folder
from clipcifar.near_duplicates import NearDuplicatesParams
from clipcifar.progress import progress
from clipcifar.report import near_duplicates as page
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
    dataset, said = same_images.read(images, dataset_path, predictions)
    train, test = images.train, images.test
    with progress(total=len(test.ids), unit="images", what="nearest train images") as bar:
        twins, cosines = near_duplicates.nearest(test.embeddings, train.embeddings, on_rows=bar.update)
    found = duplicate_findings.find(
        twins,
        cosines,
        near_duplicates.background(test.embeddings, test.labels, train.embeddings, train.labels),
        {name: one.predicted for name, one in said.items()},
        dataset,
        folder=folder,
        threshold=asked.threshold,
    )
    duplicate_findings.write(out, found, dataset)
    html = page.render(found, dataset, folder=folder, shown=asked.shown, attributes=images.attributes)
    files.write_atomically(page_path, html.encode())
    print("\n".join(page.verdicts(found)[:2]))


if __name__ == "__main__":
    run(main)
