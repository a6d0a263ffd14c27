"""The corrupted test images through the frozen image tower, one corruption after another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar.backbone.params import EmbedParams
from clipcifar.core import files, params
from clipcifar.core.counts import count_of
from clipcifar.datasets.params import DatasetParams, photograph_folder
from clipcifar.embeddings import compute
from clipcifar.store.dataset import read_dataset
from clipcifar.store.model import ModelDescription
from clipcifar.studies.corruptions.images.suite import (
    chosen_images,
    described_preprocess,
    open_suite,
    wanted_files,
)
from clipcifar.studies.corruptions.params import CorruptionParams
from stages import nobody_waits, run


def main(
    settings: dict[str, Any], raw: Path, dataset_path: Path, weights: Path, model_path: Path, folder: Path
) -> None:
    embed = params.read(settings, "embed", EmbedParams)
    asked = params.read(settings, "corruptions", CorruptionParams)
    photographs = photograph_folder(params.read(settings, "dataset", DatasetParams), raw)
    files.require_writable(folder)
    dataset, model = read_dataset(dataset_path), ModelDescription.read(model_path)
    test = chosen_images(dataset.test, asked)
    suite = open_suite(
        test,
        asked,
        dataset=dataset.name,
        root=photographs,
        preprocess=described_preprocess(model),
        workers=embed.worker_count,
    )
    common = compute.attributes_of(dataset, model, embed)
    del common["storage"]  # of the dataset's own embeddings: these are float32, and not embedded again for it
    wanted = wanted_files(folder, suite, test.ids, severities=asked.severities, common=common)
    encoded = compute.obtain(
        wanted, repository=Path(), model=model, weights=weights, embed=embed, nobody_waits=nobody_waits
    )
    print(
        f"{count_of(len(suite), 'corruption')} of {count_of(len(test.ids), 'test image')} on "
        f"{common['device']}; {encoded:,} of {sum(len(file.ids) for file in wanted):,} had to be embedded"
    )


if __name__ == "__main__":
    run(main)
