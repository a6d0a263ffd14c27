"""Every kind of text tower and tokenizer that open_clip has, against its own `encode_text` on whole rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from clipcifar.backbone.text_tower import TextTower
from clipcifar.backbone.towers import Backbone
from clipcifar.embeddings.sentences import SentenceEmbedder
from clipcifar.weights.describe import describe
from clipcifar.weights.resolve import fetch_model
from tests.support.architectures import (
    HAS_TRANSFORMERS,
    by_kind,
    is_cut,
    kind_of_text_tower,
    write_small,
    write_small_clip,
    write_word_tokenizer,
)
from tests.support.backbones import local
from tests.support.made import EMBED

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


def _embedded_alike(source: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], int]:
    """Hold our rows beside open_clip's; returns the lengths that the tower saw, and the context."""
    model = open_clip.create_model(f"local-dir:{source}", require_pretrained=True).eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{source}")
    description = describe(local(source), fetch_model(local(source), weights), weights)
    embedder = SentenceEmbedder(description, weights, EMBED)
    sentences = [*SENTENCES, _filling(embedder.load())]
    with torch.no_grad():
        theirs = torch.nn.functional.normalize(model.encode_text(tokenizer(sentences)), dim=-1).numpy()
    assert (theirs @ theirs[-1])[:-1].max() < 0.99995  # negative control: not all are one to it
    seen: list[int] = []
    encode = TextTower.encode
    monkeypatch.setattr(
        TextTower,
        "encode",
        lambda tower, rows, begun: (seen.append(rows.shape[1]), encode(tower, rows, begun))[1],
    )
    ours = embedder.embed_rows(sentences)
    assert (ours * theirs).sum(axis=1).min() >= 0.999999
    for i in (2, -1):
        _, alone = next(embedder.load().encode_sentences([sentences[i]]))
        assert alone.tobytes() == ours[i].tobytes()
    return seen, description.context_length


@pytest.mark.parametrize("architecture", [names[0] for names in KINDS.values()])
def test_sentences_are_embedded_as_open_clip_embeds_them(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = open_clip.get_model_config(architecture)
    if config["text_cfg"].get("hf_tokenizer_name") and not HAS_TRANSFORMERS:
        pytest.skip("transformers and sentencepiece are not installed")
    source = tmp_path / "source"
    write_small(architecture, source)
    seen, context = _embedded_alike(source, tmp_path / "weights", monkeypatch)
    assert {*seen} == {context} if not is_cut(config) else min(seen) < 0.5 * context < max(seen) <= context


LOW, HIGH = ("<unk>", "<pad>", "<cls>", "<bos>", "<eos>"), ("<unk>", "<cls>", "<bos>", "<eos>", "<pad>")


@pytest.mark.skipif(not HAS_TRANSFORMERS, reason="transformers and sentencepiece are not installed")
@pytest.mark.parametrize(
    ("marks", "said", "text", "ends"),  # the shortest and the longest row up to its highest id, by hand
    [
        (LOW, {}, {}, (3, 24)),
        (LOW, {"padding_side": "left"}, {}, (24, 24)),
        (HIGH, {}, {}, (4, 24)),
        (HIGH, {"padding_side": "left"}, {}, (1, 24)),
        (LOW, {"stored": 6}, {}, (3, 24)),
        (LOW, {"model_max_length": 10}, {}, (3, 24)),
        (HIGH, {"sep_token": "<eos>"}, {"tokenizer_kwargs": {"strip_sep_token": True}}, (1, 17)),
        (LOW, {}, {"tokenizer_kwargs": {"clean": "canonicalize"}}, (3, 24)),
        (LOW, {}, {"tokenizer_mode": "clips"}, (3, 23)),
        (HIGH, {}, {"tokenizer_mode": "clips"}, (4, 23)),
        (("<unk>", "<pad>", "<bos>", "<eos>", "<cls>"), {}, {"tokenizer_mode": "clips"}, (24, 24)),
    ],
    ids=str,
)
def test_tokenizers_of_the_hub_with_other_habits_are_embedded_as_open_clip_embeds_them(
    marks: tuple[str, ...],
    said: dict[str, Any],
    text: dict[str, Any],
    ends: tuple[int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    words = write_word_tokenizer(source, marks, **said)
    write_small_clip(source, hf_tokenizer_name="of/theirs", vocab_size=words, context_length=24, **text)
    seen, context = _embedded_alike(source, tmp_path / "weights", monkeypatch)
    assert ((min(seen), max(seen)), context) == (ends, 24)
