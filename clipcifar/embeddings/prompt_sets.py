"""Expanded prompt sets to files of text embeddings: the active set alone, or all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.backbone.params import EmbedParams
from clipcifar.core import files, params
from clipcifar.core.counts import count_of
from clipcifar.embeddings.sentences import SentenceEmbedder
from clipcifar.store.embeddings import write_texts
from clipcifar.store.fields import class_names_attribute
from clipcifar.store.model import ModelDescription
from clipcifar.store.prompt_set import origin_in_project


def embed_sets(
    expanded: Sequence[Path], folder: Path, *, settings: Mapping[str, Any], weights: Path, model_path: Path
) -> str:
    """Embed prompt sets, each sentence once however many of them hold it.

    Args:
        expanded: the sets, as the `prompts` stage wrote them.
        folder: that gets a file of text embeddings for each, under the set's name.
        settings: params.yaml.
        weights, model_path: the model.

    Returns:
        How many sentences there were, and how many of them new, for a person.

    Raises:
        ClipcifarError: as `SentenceEmbedder.embed`, or nothing can be written into the folder.
    """
    embed = params.read(settings, "embed", EmbedParams)
    files.require_writable(folder)
    sets = {path.stem: files.read_json(path) for path in expanded}
    model = ModelDescription.read(model_path)
    embedder = SentenceEmbedder(model, weights, embed, repository=Path(), by_cluster=True)
    origins = {
        sentence: origin_in_project(name, origin)
        for name, content in sets.items()
        for sentence, origin in zip(content["sentences"], content["origins"], strict=True)
    }
    embeddings, num_new = embedder.embed(origins)
    for name, content in sets.items():
        write_set(
            folder / f"{name}.h5",
            embedder,
            embeddings,
            name=name,
            class_names=content["class_names"],
            class_index=content["class_index"],
            sentences=content["sentences"],
            weights=content.get("weights"),
        )
    which = next(iter(sets)) if len(sets) == 1 else f"{len(sets)} sets"
    return f"{count_of(len(origins), 'sentence')} in {which}, {num_new:,} of them new, on {embedder.kind}"


def write_set(
    path: Path,
    embedder: SentenceEmbedder,
    embeddings: Mapping[str, NDArray[np.float32]],
    *,
    name: str,
    class_names: list[str],
    class_index: list[int],
    sentences: list[str],
    weights: list[float] | None = None,
) -> None:
    """Write one set's text embeddings.

    Args:
        embedder, embeddings: what embedded the sentences, and what it made of each.
        name, class_names, class_index, sentences, weights: of the expanded set, as `PromptSet` has them.
    """
    write_texts(
        path,
        embeddings=embedder.stacked(embeddings, sentences),
        class_index=np.array(class_index, dtype=np.int64),
        sentences=sentences,
        attributes={
            **embedder.attributes,
            "class_names": class_names_attribute(class_names),
            "prompt_set": name,
        },
        weights=None if weights is None else np.array(weights, dtype=np.float64),
    )
