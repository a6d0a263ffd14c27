"""The corrupted test images through the frozen image tower, one corruption after another."""

from __future__ import annotations

from contextlib import ExitStack
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
from clipcifar.store.container import fingerprint_of
from clipcifar.store.dataset import read_dataset
from clipcifar.store.model import ModelDescription, check_weights, embedding_dim
from clipcifar.studies.corruptions import store as corruption_store
from clipcifar.studies.corruptions.images.sources import examples
from clipcifar.studies.corruptions.images.suite import chosen_images, described_preprocess, open_suite
from clipcifar.studies.corruptions.params import CorruptionParams
from stages import run


def main(
    settings: dict[str, Any], raw: Path, dataset_path: Path, weights: Path, model_path: Path, folder: Path
) -> None:
    embed = params.read(settings, "embed", EmbedParams)
    asked = params.read(settings, "corruptions", CorruptionParams)
    photographs = photograph_folder(params.read(settings, "dataset", DatasetParams), raw)
    target = device.choose(embed.device, key="embed.device")
    device.autocast(target, embed.precision)  # refuses a wrong combination before the model is loaded
    scratch = files.cache_folder("corruptions")
    for place in (folder, scratch):
        files.require_writable(place)
    dataset = read_dataset(dataset_path)
    test = chosen_images(dataset.test, asked)
    model = ModelDescription.read(model_path)
    check_weights(model, weights)
    suite = open_suite(
        test,
        asked,
        dataset=dataset.name,
        root=photographs,
        preprocess=described_preprocess(model),
        workers=embed.worker_count,
    )
    common = {
        **provenance.embedding_attributes(model, dataset.class_names, target.type),
        **provenance.image_attributes(dataset, embed),
    }
    attributes = {name: {**common, **entry.attributes} for name, entry in suite.items()}
    shards = {name: ShardFolder(scratch, fingerprint_of(found)) for name, found in attributes.items()}
    ids = test.ids * len(asked.severities)
    with ExitStack() as held:
        for one in shards.values():
            held.enter_context(one.locked())
        require_space(list(shards.values()), 4 * len(ids) * embedding_dim(weights), output=folder)
        backbone = Backbone.load(weights, target)
        encode = partial(backbone.encode_images, precision=embed.precision)
        for number, (name, entry) in enumerate(suite.items(), start=1):
            print(f"{name}, {number} of {len(suite)}", flush=True)
            corruption_store.write(
                folder / f"{name}.h5",
                extract(entry.source, encode, ids=ids, batch_size=embed.batch_size, shards=shards[name]),
                severities=asked.severities,
                ids=test.ids,
                examples=examples(entry.source, len(asked.severities)),
                attributes=attributes[name],
            )
    print(f"{len(suite)} corruptions of {len(test.ids):,} test images embedded on {target.type}")


if __name__ == "__main__":
    run(main)
