"""Every sentence of every prompt set through the frozen text tower, once per model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clipcifar import device, files, params, provenance, store
from clipcifar.backbone import Backbone
from clipcifar.container import fingerprint_of
from clipcifar.device import EmbedParams
from clipcifar.memo import Memo
from clipcifar.model import ModelDescription
from clipcifar.progress import progress
from stages import run


def main(
    settings: dict[str, Any], prompts: Path, weights: Path, model_path: Path, texts_folder: Path
) -> None:
    target = device.choose(params.read(settings, "embed", EmbedParams).device)
    files.require_writable(texts_folder)
    model = ModelDescription.read(model_path)
    provenance.check_weights(model, weights)
    sets = {path.stem: files.read_json(path) for path in sorted(prompts.glob("*.json"))}
    attributes = {
        name: provenance.embedding_attributes(model, content["class_names"], target.type)
        for name, content in sets.items()
    }
    # The memo outlives class lists and sets: its key leaves them out.
    memo = Memo(
        files.cache_folder() / "sentences.sqlite",
        fingerprint_of(provenance.embedding_attributes(model, [], target.type)),
    )
    wanted = {sentence: name for name, content in sets.items() for sentence in content["sentences"]}
    known = memo.get(list(wanted))
    new = [sentence for sentence in wanted if sentence not in known]
    if new:
        known.update(_encode(Backbone.load(weights, target), new, wanted))
        memo.put({sentence: known[sentence] for sentence in new})
    for name, content in sets.items():
        store.write_texts(
            texts_folder / f"{name}.h5",
            embeddings=np.stack([known[sentence] for sentence in content["sentences"]]),
            class_index=np.array(content["class_index"], dtype=np.int64),
            sentences=content["sentences"],
            attributes={**attributes[name], "prompt_set": name},
        )
    print(f"{len(wanted):,} sentences in {len(sets)} sets, {len(new):,} of them encoded now on {target.type}")


def _encode(backbone: Backbone, sentences: list[str], origin: dict[str, str]) -> dict[str, np.ndarray]:
    for sentence in sentences:
        backbone.check_length(sentence, where=f"params.yaml: prompts.sets.{origin[sentence]}")
    found: dict[str, np.ndarray] = {}
    with progress(total=len(sentences), unit="sentences", what="embedding sentences") as bar:
        for rows, embeddings in backbone.encode_sentences(sentences):
            found.update(zip((sentences[row] for row in rows), embeddings, strict=True))
            bar.update(len(rows))
    return found


if __name__ == "__main__":
    run(main)
