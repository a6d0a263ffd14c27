"""Other backbones in the user's cache folder: their weights and embeddings, each made once.

Everything is filed under what determined it, so one more backbone in the list embeds nothing of the
others again. All of it can be deleted at any time.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipcifar.backbone import device
from clipcifar.backbone.params import DeviceName, EmbedParams
from clipcifar.backbone.towers import Backbone
from clipcifar.core import files, run_lock
from clipcifar.core.errors import DataError
from clipcifar.core.params import NO_PATH
from clipcifar.embeddings import provenance
from clipcifar.embeddings.extract import extract
from clipcifar.embeddings.sentences import SentenceEmbedder
from clipcifar.embeddings.shards import ShardFolder, require_space
from clipcifar.embeddings.sources import source_of
from clipcifar.methods.zero_shot import class_weights
from clipcifar.store.container import fingerprint_of
from clipcifar.store.dataset import Prepared
from clipcifar.store.embeddings import ImageEmbeddings, Split, read_images, write_images
from clipcifar.store.model import (
    UNFINISHED,
    ModelDescription,
    ModelParams,
    check_weights,
    config_sha256,
    embedding_dim,
)
from clipcifar.store.prompt_set import PromptSet
from clipcifar.weights import resolve
from clipcifar.weights.config import at_home, rehome
from clipcifar.weights.describe import describe

_DESCRIPTION, _WEIGHTS = "model.json", "weights"


def resolved(model: ModelParams) -> tuple[ModelDescription, Path]:
    """A model's description and its folder in open_clip's format.

    What lies at a path of this machine is read again, since it may have changed.

    Raises:
        EnvironmentFault: another run is fetching it.
        ClipcifarError: as `weights.resolve` and `describe`.
    """
    folder = files.cache_folder("models") / files.sha256_of(asdict(model))[:32]
    if model.path == NO_PATH:
        with suppress(DataError):  # not there yet, or damaged
            found = ModelDescription.read(folder / _DESCRIPTION)
            check_weights(found, folder / _WEIGHTS)
            if at_home(folder / _WEIGHTS):  # else the cache folder has moved
                return found, folder / _WEIGHTS
    scratch = folder.with_name(f"{UNFINISHED}{folder.name}")
    with run_lock.alone(scratch, doing="fetching the same model"):
        try:
            shutil.rmtree(scratch, ignore_errors=True)  # what a killed run has left
            made = scratch / _WEIGHTS
            described = describe(model, resolve.resolve(model, made), made)
            rehome(made, folder / _WEIGHTS)
            digest = config_sha256(made)
            replace(described, config_sha256=digest).write(scratch / _DESCRIPTION)
            with files.explained(folder):
                shutil.rmtree(folder, ignore_errors=True)
                scratch.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return ModelDescription.read(folder / _DESCRIPTION), folder / _WEIGHTS


def embedded(
    dataset: Prepared, model: ModelDescription, folder: Path, *, photographs: Path, embed: EmbedParams
) -> ImageEmbeddings:
    """The images of a dataset through a model's image tower, from the cache where they are in it.

    Args:
        dataset: the prepared images.
        model, folder: of `resolved`.
        photographs: what the ids of photographs are relative to.
        embed: how to embed.

    Raises:
        DataError: the weights are not those described, or an embedding is not a unit vector.
        EnvironmentFault: another run is at it, or there is no room for it; said before the model is loaded.
    """
    target = device.choose(embed.device, key="embed.device")
    attributes = {
        **provenance.embedding_attributes(model, dataset.class_names, target.type),
        **provenance.image_attributes(dataset, embed),
    }
    fingerprint = fingerprint_of(attributes)
    path = files.cache_folder("embeddings") / f"{fingerprint[:32]}.h5"
    with suppress(DataError):
        found = read_images(path)
        if all(found.attributes.get(key) == value for key, value in attributes.items()):
            return found
    device.autocast(target, embed.precision)  # refuses a wrong combination before the model is loaded
    files.require_writable(path.parent)
    check_weights(model, folder)
    everything, n = dataset.train + dataset.test, len(dataset.train.ids)
    shards = ShardFolder(files.cache_folder("extraction"), fingerprint)
    with shards.locked():
        num_bytes = 4 * len(everything.ids) * embedding_dim(folder)
        require_space([shards], num_bytes, output=path.parent)
        backbone = Backbone.load(folder, target)
        rows = extract(
            source_of(everything, photographs, preprocess=backbone.preprocess, workers=embed.worker_count),
            partial(backbone.encode_images, precision=embed.precision),
            ids=everything.ids,
            batch_size=embed.batch_size,
            shards=shards,
        )
        write_images(
            path,
            train=Split(rows[:n], dataset.train.labels, dataset.train.ids),
            test=Split(rows[n:], dataset.test.labels, dataset.test.ids),
            attributes=attributes,
        )
        shards.remove()
    return read_images(path)


def zero_shot_classifier(
    said: PromptSet, model: ModelDescription, folder: Path, *, class_names: list[str], device_name: DeviceName
) -> NDArray[np.float32]:
    """A prompt set through a model's text tower, (C, D) float32 unit rows; known sentences are not embedded.

    Raises:
        ConfigError: a sentence does not fit the model's context.
    """
    embedder = SentenceEmbedder(model, folder, device_name)
    origins = [f"params.yaml: prompts.sets.{said.name}.{origin}" for origin in said.origins]
    embeddings, _ = embedder.embed(dict(zip(said.sentences, origins, strict=True)))
    index = np.array(said.class_index, dtype=np.int64)
    return class_weights(embedder.stacked(embeddings, said.sentences), index, class_names=class_names)
