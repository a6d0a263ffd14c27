"""Every sentence of every prompt set through the frozen text tower, once per model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clipcifar.backbone.params import EmbedParams
from clipcifar.core import files, params
from clipcifar.embeddings.sentences import SentenceEmbedder
from clipcifar.store.embeddings import write_texts
from clipcifar.store.fields import class_names_attribute
from clipcifar.store.model import ModelDescription
from clipcifar.store.prompt_set import origin_in_project
from stages import run


def main(
    settings: dict[str, Any], prompts: Path, weights: Path, model_path: Path, texts_folder: Path
) -> None:
    embed = params.read(settings, "embed", EmbedParams)
    files.require_writable(texts_folder)
    model = ModelDescription.read(model_path)
    sets = {path.stem: files.read_json(path) for path in sorted(prompts.glob("*.json"))}
    embedder = SentenceEmbedder(model, weights, embed.device, repository=Path())
    origins = {
        sentence: origin_in_project(name, origin)
        for name, content in sets.items()
        for sentence, origin in zip(content["sentences"], content["origins"], strict=True)
    }
    embeddings, num_new = embedder.embed(origins)
    for name, content in sets.items():
        write_texts(
            texts_folder / f"{name}.h5",
            embeddings=embedder.stacked(embeddings, content["sentences"]),
            class_index=np.array(content["class_index"], dtype=np.int64),
            sentences=content["sentences"],
            attributes={
                **embedder.attributes,
                "class_names": class_names_attribute(content["class_names"]),
                "prompt_set": name,
            },
        )
    print(f"{len(origins):,} sentences in {len(sets)} sets, {num_new:,} of them new, on {embedder.kind}")


if __name__ == "__main__":
    run(main)
