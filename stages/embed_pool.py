"""The pool of templates through the frozen text tower, once per model and class list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar.backbone.params import EmbedParams
from clipcifar.core import files, params
from clipcifar.embeddings.prompt_sets import write_set
from clipcifar.embeddings.sentences import SentenceEmbedder
from clipcifar.prompts import pool
from clipcifar.store.classes import read_classes
from clipcifar.store.model import ModelDescription
from stages import run


def main(
    settings: dict[str, Any], classes_path: Path, weights: Path, model_path: Path, pool_path: Path
) -> None:
    embed = params.read(settings, "embed", EmbedParams)
    files.require_writable(pool_path.parent)
    classes = read_classes(classes_path)
    prompt_set = pool.expand(**classes)
    model = ModelDescription.read(model_path)
    embedder = SentenceEmbedder(model, weights, embed, repository=Path(), by_cluster=True)
    offered = len(prompt_set.templates)
    prompt_set = prompt_set.only(set(embedder.fitting(prompt_set.sentences)))
    embeddings, num_new = embedder.embed(dict.fromkeys(prompt_set.sentences, "clipcifar/prompts/pool.py"))
    write_set(
        pool_path,
        embedder,
        embeddings,
        name=pool.NAME,
        class_names=classes["class_names"],
        class_index=prompt_set.class_index,
        sentences=prompt_set.sentences,
    )
    many = f" ({offered} of the {pool.size()} in the pool, with {len(classes['class_names']):,} classes)"
    fitting = f"{len(prompt_set.templates)} of {offered} templates fit the model"
    fitting += many if offered < pool.size() else ""
    print(f"{fitting}; {len(prompt_set.sentences):,} sentences, {num_new:,} of them new")


if __name__ == "__main__":
    run(main)
