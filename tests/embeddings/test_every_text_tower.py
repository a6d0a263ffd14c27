"""Every kind of text tower and tokenizer that open_clip has, against its own `encode_text` on whole rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from clipcifar.backbone.text_tower import TextTower
from clipcifar.backbone.towers import Backbone
from clipcifar.embeddings.sentences import SentenceEmbedder
from clipcifar.weights.describe import describe
from clipcifar.weights.resolve import fetch_model
from tests.support.architectures import HAS_TRANSFORMERS, by_kind, is_cut, kind_of_text_tower, write_small
from tests.support.backbones import local

KINDS = by_kind(kind_of_text_tower)
SENTENCES = [
    "a cat",
    "cat",
    "A photo of a Dog.",
    "a photo of a dog, seen from above!",
    "the very small eel in dark water",
    "the eel",
    "a cat.",
    "an eel on a red carpet, in the water, and a dog",
]


def test_the_kinds_are_all_of_open_clips_architectures() -> None:
    assert sum(map(len, KINDS.values())) == len(open_clip.list_models()) >= 144
    assert len(KINDS) >= 14
    cut = [name for names in KINDS.values() for name in names if is_cut(open_clip.get_model_config(name))]
    custom = {name for name in cut if open_clip.get_model_config(name).get("custom_text")}
    assert {"PE-Core-B-16", "ViTamin-B", "MobileCLIP-B", "EVA02-B-16"} <= custom
    assert {"ViT-B-32", "ViT-L-14-worldwide", "ViT-H-14-worldwide"} <= {*cut} - custom
    assert not {"coca_ViT-B-32", "MobileCLIP-S1", "ViT-B-16-SigLIP", "ViT-H-14-CLIPA"} & {*cut}


def _filling(backbone: Backbone) -> str:
    """A sentence as long as the context allows."""
    longer = ["the" + " cat" * cats + " a" * ends for cats in range(80) for ends in range(4)]
    fitting = [s for s in longer if backbone.count_tokens(s) <= backbone.context_length]
    return max(fitting, key=backbone.count_tokens)


@pytest.mark.parametrize("architecture", [names[0] for names in KINDS.values()])
def test_sentences_are_embedded_as_open_clip_embeds_them(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = open_clip.get_model_config(architecture)
    if config["text_cfg"].get("hf_tokenizer_name") and not HAS_TRANSFORMERS:
        pytest.skip("transformers and sentencepiece are not installed")
    source = tmp_path / "source"
    write_small(architecture, source)
    model = open_clip.create_model(f"local-dir:{source}", require_pretrained=True).eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{source}")
    weights = tmp_path / "weights"
    description = describe(local(source), fetch_model(local(source), weights), weights)
    embedder = SentenceEmbedder(description, weights, "cpu")
    sentences = [*SENTENCES, _filling(embedder.load())]
    with torch.no_grad():
        theirs = torch.nn.functional.normalize(model.encode_text(tokenizer(sentences)), dim=-1).numpy()
    alike = theirs @ theirs.T - np.eye(len(sentences))
    assert np.partition(alike.ravel(), -3)[-3] < 0.99995  # "a cat" and "a cat." may be one to it, no others

    seen: list[int] = []
    encode = TextTower.encode
    monkeypatch.setattr(
        TextTower, "encode", lambda tower, rows: (seen.append(rows.shape[1]), encode(tower, rows))[1]
    )
    ours = embedder.embed_rows(sentences)
    assert (ours * theirs).sum(axis=1).min() >= 0.999999
    context = description.context_length
    assert {*seen} == {context} if not is_cut(config) else min(seen) < 0.5 * context < max(seen) <= context
    for i in (2, -1):
        _, alone = next(embedder.load().encode_sentences([sentences[i]]))
        assert alone.tobytes() == ours[i].tobytes()
