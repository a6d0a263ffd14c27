"""Every image through the frozen image tower, once."""

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
from stages import nobody_waits, run


def main(
    settings: dict[str, Any],
    raw: Path,
    dataset_path: Path,
    weights: Path,
    model_path: Path,
    images_path: Path,
) -> None:
    embed = params.read(settings, "embed", EmbedParams)
    folder = photograph_folder(params.read(settings, "dataset", DatasetParams), raw)
    files.require_writable(images_path.parent)
    dataset, model = read_dataset(dataset_path), ModelDescription.read(model_path)
    images = compute.dataset_images(
        images_path, dataset, model, recorded=images_path, photographs=folder, embed=embed
    )
    encoded = compute.obtain(
        [images], repository=Path(), model=model, weights=weights, embed=embed, nobody_waits=nobody_waits
    )
    everything, device = count_of(len(images.ids), "image"), images.attributes["device"]
    if 0 < encoded < len(images.ids):
        print(f"{encoded:,} of {everything} embedded on {device}; the others were embedded before")
    else:
        print(f"{everything} embedded on {device}" if encoded else f"{everything} were embedded before")


if __name__ == "__main__":
    run(main)
