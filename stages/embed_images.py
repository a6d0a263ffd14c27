"""Every image through the frozen image tower, once."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from clipcifar.backbone import device
from clipcifar.backbone.params import EmbedParams
from clipcifar.backbone.towers import Backbone
from clipcifar.core import files, params
from clipcifar.datasets.params import DatasetParams, photograph_folder
from clipcifar.embeddings import provenance
from clipcifar.embeddings.extract import extract
from clipcifar.embeddings.shards import ShardFolder, require_space
from clipcifar.embeddings.sources import source_of
from clipcifar.store.container import fingerprint_of
from clipcifar.store.dataset import read_dataset
from clipcifar.store.embeddings import Split, write_images
from clipcifar.store.model import ModelDescription, check_weights, embedding_dim
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
    target = device.choose(embed.device, key="embed.device")
    device.autocast(target, embed.precision)  # refuses a wrong combination before the model is loaded
    files.require_writable(images_path.parent)
    files.require_writable(files.cache_folder("extraction"))
    dataset = read_dataset(dataset_path)
    model = ModelDescription.read(model_path)
    check_weights(model, weights)
    attributes = {
        **provenance.embedding_attributes(model, dataset.class_names, target.type),
        **provenance.image_attributes(dataset, embed),
    }
    everything = dataset.train + dataset.test
    shards = ShardFolder(files.cache_folder("extraction"), fingerprint_of(attributes))
    with shards.locked():
        num_bytes = 4 * len(everything.ids) * embedding_dim(weights)
        require_space([shards], num_bytes, output=images_path.parent)
        backbone = Backbone.load(weights, target)
        source = source_of(everything, folder, preprocess=backbone.preprocess, workers=embed.worker_count)
        embeddings = extract(
            source,
            partial(backbone.encode_images, precision=embed.precision),
            ids=everything.ids,
            batch_size=embed.batch_size,
            shards=shards,
        )
        n = len(dataset.train.ids)
        write_images(
            images_path,
            train=Split(embeddings[:n], dataset.train.labels, dataset.train.ids),
            test=Split(embeddings[n:], dataset.test.labels, dataset.test.ids),
            attributes=attributes,
        )
        if not nobody_waits():
            shards.remove()
    print(f"{len(embeddings):,} images embedded on {target.type}, {embeddings.shape[1]} dimensions")


if __name__ == "__main__":
    run(main)
