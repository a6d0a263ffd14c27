"""A model that does not work here is told before anything costly, by its part and with what to install."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch

from clipcifar.backbone.towers import Backbone
from clipcifar.core.errors import ConfigError, DataError, EnvironmentFault
from clipcifar.store.model import CONFIG_FILE, WEIGHTS_FILE, ModelParams
from clipcifar.weights import proof, resolve
from clipcifar.weights.config import copy_without_code
from clipcifar.weights.describe import describe
from tests.conftest import TINY_CONFIG

CPU = torch.device("cpu")
needs_transformers = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("transformers", "sentencepiece")),
    reason="needs transformers, sentencepiece and protobuf, which are not among our dependencies",
)


def _config(**text: Any) -> dict[str, Any]:
    architecture = TINY_CONFIG["model_cfg"]
    text = {**architecture["text_cfg"], **text}  # type: ignore[dict-item]
    return {**TINY_CONFIG, "model_cfg": {**architecture, "text_cfg": text}}


# Packages


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "find_spec", lambda name: None)


@pytest.mark.parametrize(
    ("text", "files", "missing"),
    [
        ({"hf_model_name": "org/words"}, [], "transformers"),
        ({"hf_tokenizer_name": "org/words"}, ["tokenizer.json"], "transformers"),
        ({"hf_tokenizer_name": "org/words"}, ["spiece.model"], "transformers sentencepiece protobuf"),
        ({"hf_tokenizer_name": "org/words"}, ["spiece.model", "tokenizer.json"], "transformers"),
    ],
)
@pytest.mark.usefixtures("nothing_installed")
def test_every_missing_package_is_named_at_once(
    tmp_path: Path, text: dict[str, Any], files: list[str], missing: str
) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(EnvironmentFault) as caught:
        proof.require_packages(_config(**text), tmp_path)
    assert caught.value.fix == f"pip install {missing}"
    assert all(name in caught.value.what for name in missing.split())


@pytest.mark.usefixtures("nothing_installed")
def test_a_model_of_open_clips_own_needs_none(tmp_path: Path) -> None:
    proof.require_packages(_config(), tmp_path)


def test_what_is_installed_is_not_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spiece.model").touch()
    here = {"transformers", "google.protobuf"}
    monkeypatch.setattr(proof, "find_spec", lambda name: SimpleNamespace() if name in here else None)
    with pytest.raises(EnvironmentFault) as caught:
        proof.require_packages(_config(hf_tokenizer_name="org/words"), tmp_path)
    assert caught.value.fix == "pip install sentencepiece"


@pytest.mark.usefixtures("nothing_installed")
def test_they_are_asked_for_before_any_weights(tiny_clip: Path, tmp_path: Path) -> None:
    """Random ones of a text tower of transformers gave a traceback."""
    model = _folder(tiny_clip, tmp_path / "f", _config(hf_tokenizer_name="org/words"))
    with pytest.raises(EnvironmentFault, match="needs transformers"):
        resolve.fetch_model(model, tmp_path / "w")
    assert not (tmp_path / "w" / WEIGHTS_FILE).exists()


# Tokenizers


def _folder(tiny_clip: Path, folder: Path, config: dict[str, Any]) -> ModelParams:
    folder.mkdir()
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    (folder / WEIGHTS_FILE).write_bytes((tiny_clip / WEIGHTS_FILE).read_bytes())
    return ModelParams(f"local-dir:{folder}", None, str(folder), 0, False)


class _Tokenizer:
    context_length = 32

    def __init__(self, rows: Callable[[list[str]], torch.Tensor]) -> None:
        self._rows = rows

    def __call__(self, sentences: list[str]) -> torch.Tensor:
        return self._rows(sentences)


def _fails(error: Exception) -> Callable[[list[str]], torch.Tensor]:
    def rows(sentences: list[str]) -> torch.Tensor:
        raise error

    return rows


PADDING = ValueError("Asking to pad but the tokenizer does not have a padding token.\nPlease select one")


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (
            _fails(PADDING),
            DataError,
            "the tokenizer does not work: ValueError: Asking to pad",
        ),
        (_fails(ImportError("T5 requires the tiktoken library")), EnvironmentFault, "requires the tiktoken"),
        (lambda s: torch.zeros(len(s), 9, dtype=torch.long), DataError, re.escape("of the shape (2, 9)")),
        (lambda s: torch.zeros(len(s), 32, dtype=torch.long), DataError, "are the same tokens"),
    ],
)
def test_a_tokenizer_that_does_not_work_is_told_before_any_weights(
    tiny_clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: Callable[[list[str]], torch.Tensor],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.setattr(proof, "find_spec", lambda name: SimpleNamespace())
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda name: _Tokenizer(rows))
    model = _folder(tiny_clip, tmp_path / "f", _config(hf_tokenizer_name="org/words"))
    with pytest.raises(error, match=message):
        resolve.fetch_model(model, tmp_path / "w")
    assert not (tmp_path / "w" / WEIGHTS_FILE).exists()


# Towers


def _described(folder: Path, model: ModelParams) -> None:
    describe(model, resolve.fetch_model(model, folder), folder)


def test_a_model_that_works_passes(tiny_clip: Path, tmp_path: Path) -> None:
    _described(tmp_path / "w", _folder(tiny_clip, tmp_path / "f", _config()))


@pytest.mark.parametrize(
    ("name", "part"),
    [("visual.proj", "image tower"), ("text_projection", "text tower"), ("ln_final.weight", "text tower")],
)
@pytest.mark.parametrize("value", [float("nan"), 0.0])
def test_a_tower_that_gives_no_unit_vector_is_told(
    tiny_clip: Path, tmp_path: Path, name: str, part: str, value: float
) -> None:
    model = _folder(tiny_clip, tmp_path / "f", _config())
    state = safetensors.torch.load_file(tmp_path / "f" / WEIGHTS_FILE)
    state[name].fill_(value)
    state["ln_final.bias"].zero_()
    safetensors.torch.save_file(state, tmp_path / "f" / WEIGHTS_FILE)
    with pytest.raises(DataError, match=f"the {part} does not work: ValueError: it gives 1 vectors"):
        _described(tmp_path / "w", model)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            IndexError("index out of range in self"),
            DataError,
            "the text tower does not work: IndexError",
        ),
        (RuntimeError("out of memory: you tried"), EnvironmentFault, "out of memory in the text tower"),
        (ImportError("needs einops"), EnvironmentFault, "the text tower needs another package: ImportError"),
        (ConfigError("no"), DataError, "the text tower does not work: no"),
    ],
)
def test_what_goes_wrong_in_a_tower_is_said_of_it(
    tiny_clip: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception], message: str
) -> None:
    backbone = Backbone.load(tiny_clip, CPU)

    def fails(sentences: list[str]) -> Any:
        raise error

    monkeypatch.setattr(backbone, "encode_sentences", fails)
    if "out of memory" in str(error):
        monkeypatch.setattr(proof, "is_out_of_memory", lambda error: True)
    with pytest.raises(kind, match=message):
        proof.towers_work(backbone, tiny_clip)


@pytest.mark.parametrize("counts", [(0, 9), (40, 99), (9, 9), (9, 3)])
def test_a_senseless_count_of_tokens_is_told(
    tiny_clip: Path, monkeypatch: pytest.MonkeyPatch, counts: tuple[int, int]
) -> None:
    backbone = Backbone.load(tiny_clip, CPU)
    given = iter(counts)
    monkeypatch.setattr(backbone, "count_tokens", lambda sentence: next(given))
    with pytest.raises(DataError, match=f"tokenizer does not work: .* {counts[0]} tokens .* {counts[1]} in"):
        proof.towers_work(backbone, tiny_clip)


def test_weights_of_another_architecture_are_told_in_a_few_lines(tiny_clip: Path, tmp_path: Path) -> None:
    """torch would name every tensor."""
    model = ModelParams("ViT-B-32", None, str(tiny_clip / WEIGHTS_FILE), 0, False)
    with pytest.raises(DataError) as caught:
        _described(tmp_path / "w", model)
    assert len(caught.value.what) <= 600
    assert "were made for ViT-B-32" in caught.value.fix


# Code of others


def test_a_file_that_names_code_is_placed_without_it(tmp_path: Path) -> None:
    """transformers would ask on the terminal whether to run it."""
    (tmp_path / "a.json").write_text('{"model_type": "bert", "auto_map": {"AutoTokenizer": "org/x--code.T"}}')
    copy_without_code(tmp_path / "a.json", tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text()) == {"model_type": "bert"}
    (tmp_path / "a.json").write_text('{"model_type":   "bert"}')
    copy_without_code(tmp_path / "a.json", tmp_path / "b.json")
    assert (tmp_path / "b.json").read_text() == '{"model_type":   "bert"}'


# With the libraries themselves


LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _bert(folder: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, ".", ",", *(f"##{x}" for x in LETTERS)]
    (folder / "vocab.txt").write_text("\n".join(words))


def _roberta(folder: Path) -> None:
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *LETTERS, ".", ",", "Ġ"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")


def _sentencepiece(name: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        import sentencepiece

        sentences = ["a photo of a cat.", "a photo of a dog, and of a cat.", *LETTERS] * 30
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_prefix=str(folder / "trained"),
            vocab_size=40,
            character_coverage=1.0,
            model_type="unigram",
            pad_id=3,
            hard_vocab_limit=False,
        )
        (folder / "trained.model").rename(folder / name)
        (folder / "trained.vocab").unlink()

    return write


TOKENIZERS = {
    "bert": _bert,
    "roberta": _roberta,
    "xlm-roberta": _sentencepiece("sentencepiece.bpe.model"),
    "t5": _sentencepiece("spiece.model"),
    "mt5": _sentencepiece("spiece.model"),
}


@needs_transformers
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_tokenizer_that_only_its_config_tells_works(tiny_clip: Path, tmp_path: Path, kind: str) -> None:
    """Its tokenizer_config.json names no class, as in CLIPA and roberta-*: config.json says which it is."""
    config = _config(hf_tokenizer_name="org/words")
    model = _folder(tiny_clip, tmp_path / "f", config)
    TOKENIZERS[kind](tmp_path / "f")
    (tmp_path / "f" / "tokenizer_config.json").write_text('{"model_max_length": 512}')
    (tmp_path / "f" / "config.json").write_text(json.dumps({"model_type": kind}))
    _described(tmp_path / "w", model)
    assert (tmp_path / "w" / "config.json").is_file()
    rows = next(iter(Backbone.load(tmp_path / "w", CPU).encode_sentences(["a cat."])))[1]
    assert np.linalg.norm(rows[0]) == pytest.approx(1, abs=1e-5)


@needs_transformers
def test_without_that_config_it_is_told(tiny_clip: Path, tmp_path: Path) -> None:
    """The negative control: this was fetched, and failed at the first sentence."""
    model = _folder(tiny_clip, tmp_path / "f", _config(hf_tokenizer_name="org/words"))
    _bert(tmp_path / "f")
    (tmp_path / "f" / "tokenizer_config.json").write_text('{"model_max_length": 512}')
    with pytest.raises(DataError, match="the tokenizer does not work"):
        resolve.fetch_model(replace(model), tmp_path / "w")
    assert not (tmp_path / "w" / WEIGHTS_FILE).exists()


@needs_transformers
def test_a_whole_text_tower_of_transformers_works(tmp_path: Path) -> None:
    """Tokenizer and tower of RoBERTa, random, through both of our steps."""
    folder = tmp_path / "f"
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = {
        "model_type": "roberta",
        "vocab_size": 64,
        "max_position_embeddings": 64,
        "pad_token_id": 1,
        **small,
    }
    text = {"hf_model_name": str(folder), "hf_tokenizer_name": "org/words", "hf_proj_type": "mlp"}
    text |= {"hf_pooler_type": "mean_pooler", "context_length": 32}
    architecture = {**TINY_CONFIG["model_cfg"], "text_cfg": text}  # type: ignore[dict-item]
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / CONFIG_FILE).write_text(json.dumps({**TINY_CONFIG, "model_cfg": architecture}))
    _roberta(folder)
    made = open_clip.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    state = {name: tensor.contiguous() for name, tensor in made.state_dict().items()}
    safetensors.torch.save_file(state, folder / WEIGHTS_FILE)
    _described(tmp_path / "w", ModelParams(f"local-dir:{folder}", None, str(folder), 0, False))


@needs_transformers
def test_a_clip_of_transformers_itself_gives_the_same_vectors(tmp_path: Path) -> None:
    """Written by the library, converted by ours, computed by open_clip."""
    import transformers

    part = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256}
    text = {**part, "vocab_size": 49408, "max_position_embeddings": 32, "eos_token_id": 49407}
    vision = {**part, "image_size": 32, "patch_size": 8}
    parts = {"text_config": {**text, "hidden_act": "gelu"}, "vision_config": {**vision, "hidden_act": "gelu"}}
    theirs = transformers.CLIPModel(transformers.CLIPConfig(**parts, projection_dim=32)).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    architecture = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32},
        "text_cfg": {"context_length": 32, "width": 64, "heads": 2, "layers": 2},
    }
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / CONFIG_FILE).write_text(json.dumps({**TINY_CONFIG, "model_cfg": architecture}))
    (folder / "model.safetensors").write_bytes((tmp_path / "theirs" / "model.safetensors").read_bytes())
    resolve.fetch_model(ModelParams(f"local-dir:{folder}", None, str(folder), 0, False), tmp_path / "w")
    ours = open_clip.create_model(f"local-dir:{tmp_path / 'w'}", require_pretrained=True).eval()
    pixels = torch.randn(2, 3, 32, 32)
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'w'}")(["a photo of a cat.", "two dogs"])
    with torch.inference_mode():
        expected = theirs(input_ids=tokens, pixel_values=pixels)
        image, sentence = ours.encode_image(pixels, normalize=True), ours.encode_text(tokens, normalize=True)
    torch.testing.assert_close(image, expected.image_embeds, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(sentence, expected.text_embeds, atol=1e-5, rtol=1e-4)
