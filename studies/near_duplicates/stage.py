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
from clipcifar.studies.near_duplicates.indexed import search_in
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
    in_train = search_in(train.embeddings, num_queries=len(test.ids))
    with progress(total=len(test.ids), unit="images", what="nearest train images") as bar:
        twins, cosines = in_train.nearest(test.embeddings, on_rows=bar.update)
    doubt = in_train.doubt
    in_test, splits = search_in(test.embeddings, num_queries=0), []
    for name, part, search in (("train", dataset.train, in_train), ("test", dataset.test, in_test)):
        with progress(total=len(part.ids), unit="images", what=f"nearest within {name}") as bar:
            others = search.nearest_other(on_rows=bar.update)
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
        doubt=doubt or in_test.doubt,
    )
    findings.write(out, results, dataset)
    html = page.render(results, dataset, folder=folder, shown=asked.shown, attributes=images.attributes)
    write_page(page_path, html)
    print("\n".join(findings.verdicts(results)[:4]))


if __name__ == "__main__":
    run(main)
