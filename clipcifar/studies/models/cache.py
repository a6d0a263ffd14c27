"""Other backbones in the user's cache folder: their weights and embeddings, each made once.

Everything is filed under what determined it, so one more backbone in the list embeds nothing of the
others again. All of it can be deleted at any time.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipcifar.backbone.params import EmbedParams
from clipcifar.core import files, run_lock
from clipcifar.core.errors import DataError
from clipcifar.core.params import NO_PATH
from clipcifar.embeddings import compute, kept, provenance
from clipcifar.embeddings.sentences import SentenceEmbedder
from clipcifar.methods.zero_shot import text_classifier
from clipcifar.store.dataset import Prepared
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.images import read_images
from clipcifar.store.model import (
    UNFINISHED,
    ModelDescription,
    ModelParams,
    check_weights,
    config_sha256,
)
from clipcifar.store.prompt_set import PromptSet, origin_in_project
from clipcifar.weights.config import at_home, rehome
from clipcifar.weights.describe import describe
from clipcifar.weights.resolve import fetch_model

_DESCRIPTION, _WEIGHTS = "model.json", "weights"


def resolved(model: ModelParams) -> tuple[ModelDescription, Path]:
    """A model's description and its folder in open_clip's format.

    What lies at a path of this machine is read again, since it may have changed.

    Raises:
        EnvironmentFault: another run is fetching it.
        ClipcifarError: as `fetch_model` and `describe`.
    """
    folder = files.cache_folder("models") / files.sha256_of(asdict(model))[:32]
    if model.path == NO_PATH:
        with suppress(DataError):  # not there yet, or damaged
            description = ModelDescription.read(folder / _DESCRIPTION)
            check_weights(description, folder / _WEIGHTS)
            if at_home(folder / _WEIGHTS):  # else the cache folder has moved
                return description, folder / _WEIGHTS
    scratch = folder.with_name(f"{UNFINISHED}{folder.name}")
    with run_lock.alone(scratch, doing="fetching the same model"):
        try:
            shutil.rmtree(scratch, ignore_errors=True)  # what a killed run has left
            made = scratch / _WEIGHTS
            described = describe(model, fetch_model(model, made), made)
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
    dataset: Prepared,
    model: ModelDescription,
    folder: Path,
    *,
    photographs: Path,
    embed: EmbedParams,
    repository: Path,
    own: Path,
) -> ImageEmbeddings:
    """The images of a dataset through a model's image tower, from where they are if they have been already.

    Args:
        dataset: the prepared images.
        model, folder: of `resolved`.
        photographs: what the ids of photographs are relative to.
        embed: how to embed.
        repository, own: the project, and what DVC records its own embeddings as: this may be its model.

    Raises:
        ClipcifarError: as `compute.encode`.
    """
    path = kept.in_cache_folder(compute.attributes_of(dataset, model, embed))
    images = compute.dataset_images(path, dataset, model, recorded=own, photographs=photographs, embed=embed)
    existing = kept.find(images, repository)
    if existing is None:
        compute.obtain([images], repository=repository, model=model, weights=folder, embed=embed)
    content = existing.images() if existing else read_images(path)
    names = {key: images.attributes[key] for key in provenance.NAMES}
    return replace(content, attributes={**content.attributes, **names})  # as they are asked for here


def zero_shot_classifier(
    said: PromptSet,
    model: ModelDescription,
    folder: Path,
    *,
    class_names: list[str],
    embed: EmbedParams,
    repository: Path,
) -> NDArray[np.float32]:
    """A prompt set through a model's text tower, (C, D) float32 unit rows; known sentences are not embedded.

    Raises:
        ConfigError: a sentence does not fit the model's context.
    """
    embedder = SentenceEmbedder(model, folder, embed, repository=repository)
    origins = [origin_in_project(said.name, origin) for origin in said.origins]
    embeddings, _ = embedder.embed(dict(zip(said.sentences, origins, strict=True)))
    index = np.array(said.class_index, dtype=np.int64)
    rows, where = embedder.stacked(embeddings, said.sentences), f"prompt set {said.name}, model {model.model}"
    return text_classifier(rows, index, class_names=class_names, where=where, sentence_weights=said.weights)
