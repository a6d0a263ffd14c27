"""Every sentence of every prompt set through the frozen text tower, once per model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clipcifar import files, params, provenance, store
from clipcifar.container import fingerprint_of
from clipcifar.device_kind import device_kind
from clipcifar.embed_params import DeviceName, EmbedParams
from clipcifar.memo import Memo
from clipcifar.model import ModelDescription
from clipcifar.progress import progress
from stages import run


def main(
    settings: dict[str, Any], prompts: Path, weights: Path, model_path: Path, texts_folder: Path
) -> None:
    device = params.read(settings, "embed", EmbedParams).device
    kind = device_kind(device)
    files.require_writable(texts_folder)
    model = ModelDescription.read(model_path)
    sets = {path.stem: files.read_json(path) for path in sorted(prompts.glob("*.json"))}
    # The memo outlives class lists and sets: its key leaves them out.
    key = fingerprint_of(provenance.embedding_attributes(model, [], kind))
    memo = Memo(files.cache_folder() / "sentences.sqlite", key)
    wanted = {sentence: name for name, content in sets.items() for sentence in content["sentences"]}
    known = memo.get(list(wanted))
    new = {sentence: name for sentence, name in wanted.items() if sentence not in known}
    if new:
        provenance.check_weights(model, weights)
        encoded = _encode(new, weights, device)
        known.update(encoded)
        memo.put(encoded)
    for name, content in sets.items():
        store.write_texts(
            texts_folder / f"{name}.h5",
            embeddings=np.stack([known[sentence] for sentence in content["sentences"]]),
            class_index=np.array(content["class_index"], dtype=np.int64),
            sentences=content["sentences"],
            attributes={
                **provenance.embedding_attributes(model, content["class_names"], kind),
                "prompt_set": name,
            },
        )
    print(f"{len(wanted):,} sentences in {len(sets)} sets, {len(new):,} of them new, embedded on {kind}")


def _encode(origin: dict[str, str], weights: Path, device: DeviceName) -> dict[str, np.ndarray]:
    """Embed the sentences, each given with the prompt set that it is from."""
    from clipcifar.backbone import Backbone  # seconds of imports, saved where no sentence is new
    from clipcifar.device import choose

    backbone = Backbone.load(weights, choose(device, key="embed.device"))
    sentences = list(origin)
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
