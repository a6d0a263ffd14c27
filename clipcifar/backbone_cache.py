"""Other backbones in the user's cache folder: their weights, embeddings and speed, each made once.

Everything is filed under what determined it, so one more backbone in the list embeds nothing of the
others again. All of it can be deleted at any time.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open

from clipcifar import device, files, provenance, store, weights
from clipcifar.backbone import Backbone
from clipcifar.container import fingerprint_of
from clipcifar.dataset_file import Prepared
from clipcifar.describe import describe
from clipcifar.embed_params import DeviceName, EmbedParams
from clipcifar.errors import DataError
from clipcifar.extract import extract
from clipcifar.model import WEIGHTS_FILE, ModelDescription, ModelParams
from clipcifar.params import NO_PATH
from clipcifar.prompt_set import PromptSet
from clipcifar.sentences import SentenceEmbedder
from clipcifar.shards import ShardFolder
from clipcifar.sources import source_of
from clipcifar.store import ImageEmbeddings, Split
from clipcifar.zero_shot import class_weights

MEASURED_S = 1.0  # at least so long, and one batch
_DESCRIPTION, _WEIGHTS = "model.json", "weights"


def resolved(model: ModelParams) -> tuple[ModelDescription, Path]:
    """A model's description and its folder in open_clip's format.

    What lies at a path of this machine is read again, since it may have changed.

    Raises:
        ClipcifarError: as `weights.resolve` and `describe`.
    """
    root = files.cache_folder() / "models"
    folder = root / files.sha256_of(asdict(model))[:32]
    if model.path == NO_PATH:
        with suppress(DataError):  # not there yet, or damaged
            found = ModelDescription.read(folder / _DESCRIPTION)
            provenance.check_weights(found, folder / _WEIGHTS)
            return found, folder / _WEIGHTS
    files.require_writable(root)
    with tempfile.TemporaryDirectory(dir=root, prefix=".new-") as scratch:
        made = Path(scratch, "made")
        describe(model, weights.resolve(model, made / _WEIGHTS), made / _WEIGHTS).write(made / _DESCRIPTION)
        with files.explained(folder):
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)
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
    """
    target = device.choose(embed.device, key="embed.device")
    attributes = {
        **provenance.embedding_attributes(model, dataset.class_names, target.type),
        **provenance.image_attributes(dataset, embed),
    }
    fingerprint = fingerprint_of(attributes)
    path = files.cache_folder() / "embeddings" / f"{fingerprint[:32]}.h5"
    with suppress(DataError):
        found = store.read_images(path)
        if all(found.attributes.get(key) == value for key, value in attributes.items()):
            return found
    provenance.check_weights(model, folder)
    backbone = Backbone.load(folder, target)
    everything = dataset.train + dataset.test
    shards = ShardFolder(files.cache_folder() / "extraction", fingerprint)
    with shards.locked():
        rows = extract(
            source_of(everything, photographs, preprocess=backbone.preprocess, workers=embed.worker_count),
            partial(backbone.encode_images, precision=embed.precision),
            ids=everything.ids,
            batch_size=embed.batch_size,
            shards=shards,
        )
        n = len(dataset.train.ids)
        store.write_images(
            path,
            train=Split(rows[:n], dataset.train.labels, dataset.train.ids),
            test=Split(rows[n:], dataset.test.labels, dataset.test.ids),
            attributes=attributes,
        )
        shards.remove()
    return store.read_images(path)


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


def images_per_second(model: ModelDescription, folder: Path, *, embed: EmbedParams) -> float:
    """How fast the image tower is here: whole batches at its input size, decoding left out.

    Of at least a second of batches the fastest counts, because other work on the machine only ever
    slows them. Measured once per model, device and batch size, and then remembered.
    """
    target = device.choose(embed.device, key="embed.device")
    determined = {
        **provenance.embedding_attributes(model, [], target.type),
        "precision": embed.precision,
        "batch_size": embed.batch_size,
        "threads": torch.get_num_threads(),
    }
    known = files.cache_folder() / "speeds" / f"{fingerprint_of(determined)[:32]}.json"
    with suppress(DataError, KeyError, TypeError, ValueError):
        return float(files.read_json(known)["images_per_s"])
    backbone = Backbone.load(folder, target)
    height, width = backbone.preprocess.size
    images = torch.zeros((embed.batch_size, 3, height, width), dtype=torch.uint8)
    with device.out_of_memory_explained("embed.batch_size"):
        backbone.encode_images(images, embed.precision).cpu()  # the first batch also warms up
        fastest, spent = float("inf"), 0.0
        while spent < MEASURED_S:
            start = time.perf_counter()
            backbone.encode_images(images, embed.precision).cpu()
            took = time.perf_counter() - start
            fastest, spent = min(fastest, took), spent + took
    rate = float(f"{embed.batch_size / fastest:.3g}")
    files.write_json(known, {"images_per_s": rate})
    return rate


def size(model: ModelDescription, folder: Path, *, dimension: int) -> dict[str, int]:
    """What a model takes.

    Returns:
        n_parameters (numbers in its file, batch statistics among them), n_image_parameters (those of
        the image tower), n_bytes, input_height and input_width in pixels, and dimension as given.
    """
    path = folder / WEIGHTS_FILE
    counts = {}
    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118  it is no mapping
            shape = file.get_slice(name).get_shape()
            counts[name] = int(torch.Size(shape).numel())
    height, width = model.preprocess["size"]
    return {
        "n_parameters": sum(counts.values()),
        "n_image_parameters": sum(n for name, n in counts.items() if name.startswith("visual.")),
        "n_bytes": path.stat().st_size,
        "input_height": int(height),
        "input_width": int(width),
        "dimension": dimension,
    }
