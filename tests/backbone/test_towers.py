from __future__ import annotations

import copy
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from clipcifar.backbone import towers
from clipcifar.backbone.params import Precision
from clipcifar.backbone.text_tower import TEXT_ROWS
from clipcifar.backbone.towers import Backbone
from clipcifar.core import files
from clipcifar.core.errors import ConfigError, DataError, EnvironmentFault
from clipcifar.core.params import NO_PATH
from clipcifar.methods import zero_shot
from clipcifar.store.model import WEIGHTS_FILE, ModelParams
from clipcifar.weights import resolve
from tests.conftest import TINY_CONFIG
from tests.support.small_input import PREPROCESS

CPU = torch.device("cpu")
SENTENCES = [
    "a cat",
    "a photo of a dog.",
    "a very small photo of the eel in the dark water",
    "a cat.",
    "the cat, seen from above, on a red and blue carpet",
]


@pytest.fixture(scope="module")
def tiny(tiny_clip: Path) -> Backbone:
    return Backbone.load(tiny_clip, CPU)


@pytest.fixture(scope="module")
def model(tiny_clip: Path) -> torch.nn.Module:
    return open_clip.create_model(f"local-dir:{tiny_clip}", require_pretrained=True).eval()


def _embed(backbone: Backbone, sentences: list[str]) -> dict[str, NDArray[np.float32]]:
    found = {}
    for rows, embeddings in backbone.encode_sentences(sentences):
        assert len(rows) <= TEXT_ROWS
        found.update(zip((sentences[row] for row in rows), embeddings, strict=True))
    assert sorted(found) == sorted(set(sentences))
    return found


def test_what_is_loaded_is_the_file_to_the_last_bit(
    tiny_clip: Path, tmp_path: Path, model: torch.nn.Module
) -> None:
    loaded = Backbone.load(tiny_clip, CPU)._model
    saved = safetensors.torch.load_file(tiny_clip / WEIGHTS_FILE)
    parameters = dict(loaded.named_parameters())
    assert parameters.keys() <= saved.keys()
    assert all(torch.equal(value, saved[name]) for name, value in parameters.items())
    buffers = dict(model.named_buffers())
    assert all(torch.equal(value, buffers[name]) for name, value in loaded.named_buffers())
    for name in parameters:  # a parameter that the file lacks would stay undrawn, so it is refused
        shutil.copytree(tiny_clip, tmp_path, dirs_exist_ok=True)
        rest = {key: value for key, value in saved.items() if key != name}
        safetensors.torch.save_file(rest, tmp_path / WEIGHTS_FILE)
        with pytest.raises(DataError, match="cannot be loaded"):
            Backbone.load(tmp_path, CPU)


def test_images_are_embedded_as_open_clip_would(tiny: Backbone, model: torch.nn.Module) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 40, 56, 3)).astype(np.uint8)
    config = PreprocessCfg(size=32, **TINY_CONFIG["preprocess_cfg"])  # type: ignore[arg-type]
    transform = image_transform_v2(config, is_train=False)
    inputs = torch.stack([transform(Image.fromarray(image)) for image in pixels])
    with torch.no_grad():
        expected = model.encode_image(inputs, normalize=True).numpy()  # type: ignore[operator]
    found = tiny.encode_images(torch.from_numpy(pixels).permute(0, 3, 1, 2)).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert ((found * expected).sum(axis=1) >= 0.99999).all()


def test_sentences_cut_after_their_end_are_embedded_as_whole_ones(
    tiny: Backbone, model: torch.nn.Module
) -> None:
    with torch.no_grad():
        tokens = open_clip.get_tokenizer("ViT-B-32", context_length=32)(SENTENCES)
        expected = model.encode_text(tokens, normalize=True).numpy()  # type: ignore[operator]
    found = _embed(tiny, SENTENCES)
    for sentence, row in zip(SENTENCES, expected, strict=True):
        np.testing.assert_allclose(found[sentence], row, atol=1e-6)


def test_the_text_batches_are_cut(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control of the test above: the lengths that the tower sees are the sentences' own."""
    seen = []
    encode = tiny._text.encode
    monkeypatch.setattr(
        tiny._text, "encode", lambda tokens, begun: seen.append(tuple(tokens.shape)) or encode(tokens, begun)
    )
    _embed(tiny, ["a cat", "a dog"])
    assert seen == [(TEXT_ROWS, 4)]


def _bytes_do_not_depend_on_neighbours(backbone: Backbone) -> None:
    together = _embed(backbone, SENTENCES)
    backwards = _embed(backbone, SENTENCES[::-1])
    crowd = [f"a cat{mark}" for mark in ("", ".", "!", "?", ",", ";", ":", "-")] + [
        f"the {n}" for n in range(9)
    ]
    crowded = _embed(backbone, crowd + [s for s in SENTENCES if s not in crowd])
    for sentence in SENTENCES:
        backbone._beginnings = None
        alone = _embed(backbone, [sentence])[sentence].tobytes()
        assert (
            alone
            == together[sentence].tobytes()
            == backwards[sentence].tobytes()
            == crowded[sentence].tobytes()
        )


def test_a_sentences_bytes_do_not_depend_on_its_neighbours(tiny: Backbone) -> None:
    _bytes_do_not_depend_on_neighbours(tiny)


def test_a_sentence_that_does_not_fit_is_named_and_never_cut(tiny: Backbone) -> None:
    fits, long = "cat " * 30, "cat " * 31
    assert (tiny.context_length, tiny.count_tokens(fits)) == (32, 32)
    tiny.check_length(fits, where="x")
    with pytest.raises(ConfigError, match="33 tokens, the model reads 32") as caught:
        tiny.check_length(long, where="prompts.sets.photo")
    assert "prompts.sets.photo" in str(caught.value)


def test_beginnings_of_the_last_sentences_are_used_again_and_change_nothing(
    tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, begun = tiny._text.begin, []
    monkeypatch.setattr(tiny._text, "begin", lambda tokens: begun.append(tokens) or begin(tokens))
    tiny._beginnings = None
    alone = _embed(tiny, ["a photo of a big cat"])
    assert len(begun) == 1
    tiny._beginnings = None
    _embed(tiny, ["a sketch of a dog", "a photo of a dog"])
    again = _embed(tiny, ["a photo of a big cat"])
    assert len(begun) == 2
    assert again["a photo of a big cat"].tobytes() == alone["a photo of a big cat"].tobytes()
    _embed(tiny, ["the cat"])
    assert len(begun) == 3


def test_the_model_is_frozen_and_in_evaluation_mode(tiny: Backbone) -> None:
    assert not tiny._model.training
    assert not any(parameter.requires_grad for parameter in tiny._model.parameters())


def test_without_the_image_tower_sentences_are_the_same_and_its_weights_are_gone(
    tiny_clip: Path, tiny: Backbone
) -> None:
    texts_alone, sentences = Backbone.load(tiny_clip, torch.device("cpu")), ["a photo of a cat.", "an eel"]
    weights = [weakref.ref(weight) for weight in texts_alone._model.visual.parameters()]
    texts_alone.forget_images()
    assert [weight() for weight in weights] == [None] * len(weights)
    of_both, of_text = _embed(tiny, sentences), _embed(texts_alone, sentences)
    assert all((of_both[sentence] == of_text[sentence]).all() for sentence in sentences)


def test_the_image_tower_is_let_go_once(tiny_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts_alone, collected = Backbone.load(tiny_clip, torch.device("cpu")), []
    monkeypatch.setattr(towers.gc, "collect", lambda: collected.append("slow"))
    texts_alone.forget_images()
    texts_alone.forget_images()
    assert collected == ["slow"]


def _clip_benchmark_classifier(
    model: torch.nn.Module,
    tokenizer: Callable[[list[str]], torch.Tensor],
    names: list[str],
    templates: list[str],
) -> NDArray[np.float32]:
    """The algorithm of clip-benchmark's zero_shot_classifier, written again: one class at a time."""
    columns = []
    with torch.no_grad():
        for name in names:
            embeddings = model.encode_text(tokenizer([t.replace("{c}", name) for t in templates]))  # type: ignore[operator]
            mean = torch.nn.functional.normalize(embeddings, dim=-1).mean(dim=0)
            columns.append(mean / mean.norm())
    return torch.stack(columns, dim=1).numpy()


def test_class_weights_are_those_of_open_clip_and_of_clip_benchmark(
    tiny: Backbone, model: torch.nn.Module
) -> None:
    names, templates = ["cat", "dog", "sea eel"], ["a photo of a {c}.", "the {c}", "a small {c} at night"]
    sentences = [template.replace("{c}", name) for name in names for template in templates]
    embeddings = _embed(tiny, sentences)
    ours = zero_shot.class_weights(
        np.stack([embeddings[s] for s in sentences]), np.repeat(np.arange(3), 3), class_names=names
    )
    tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=32)
    functions = [lambda c, t=template: t.replace("{c}", c) for template in templates]
    theirs = open_clip.build_zero_shot_classifier(model, tokenizer, names, functions).numpy()
    np.testing.assert_allclose(ours.T, theirs, atol=1e-6)
    np.testing.assert_allclose(
        ours.T, _clip_benchmark_classifier(model, tokenizer, names, templates), atol=1e-6
    )


def test_weights_that_do_not_fit_are_refused(tiny_clip: Path, tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text((tiny_clip / "open_clip_config.json").read_text())
    (tmp_path / WEIGHTS_FILE).write_bytes((tiny_clip / WEIGHTS_FILE).read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot be loaded"):
        Backbone.load(tmp_path, CPU)
    text = (tiny_clip / "open_clip_config.json").read_text().replace('"embed_dim": 32', '"embed_dim": 16')
    (tmp_path / "open_clip_config.json").write_text(text)
    (tmp_path / WEIGHTS_FILE).write_bytes((tiny_clip / WEIGHTS_FILE).read_bytes())
    with pytest.raises(DataError, match="cannot be loaded"):
        Backbone.load(tmp_path, CPU)


def test_the_full_size_model_with_random_weights(tmp_path: Path) -> None:
    """The real architecture once: its sizes, its determinism, and the text side's exactness at 77 tokens."""
    params = ModelParams("ViT-B-32", None, NO_PATH, seed=3, allow_pickle=False)
    assert "seed 3" in resolve.fetch_model(params, tmp_path / "a").source
    backbone = Backbone.load(tmp_path / "a", CPU)
    assert (backbone.preprocess.size, backbone.context_length) == ((224, 224), 77)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32)).astype(np.uint8))
    embeddings = backbone.encode_images(images)
    assert embeddings.shape == (4, 512)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(4))
    with torch.no_grad():
        whole = backbone._model.encode_text(
            open_clip.get_tokenizer("ViT-B-32")(SENTENCES), normalize=True
        ).numpy()
    found = _embed(backbone, SENTENCES)
    for sentence, row in zip(SENTENCES, whole, strict=True):
        np.testing.assert_allclose(found[sentence], row, atol=1e-6)
    _bytes_do_not_depend_on_neighbours(backbone)
    resolve.fetch_model(params, tmp_path / "b")
    assert files.file_sha256(tmp_path / "a" / WEIGHTS_FILE) == files.file_sha256(
        tmp_path / "b" / WEIGHTS_FILE
    )


@pytest.fixture
def in_bf16(tiny_clip: Path, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """Whatever the processor: where it has no instructions for it, it computes the same, slowly."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    return Backbone.load(tiny_clip, CPU, "bf16")


def test_on_a_cpu_bf16_is_near_fp32_for_images_and_sentences(tiny: Backbone, in_bf16: Backbone) -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (16, 3, 48, 48)).astype(np.uint8))
    expected, rows = (backbone.encode_images(images) for backbone in (tiny, in_bf16))
    texts, sentences = (_embed(backbone, SENTENCES) for backbone in (tiny, in_bf16))
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(16))
    assert 0.999 < float((rows * expected).sum(dim=1).min()) < 1 - 1e-7  # and it is not fp32
    for sentence in SENTENCES:
        assert 0.999 < float(texts[sentence] @ sentences[sentence]) < 1 - 1e-7
    assert in_bf16.logit_scale == tiny.logit_scale
    assert {parameter.dtype for parameter in in_bf16._model.parameters()} == {torch.bfloat16}


def test_in_bf16_bytes_are_the_same_again_and_whatever_stands_beside(in_bf16: Backbone) -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (16, 3, 32, 32)).astype(np.uint8))
    rows = in_bf16.encode_images(images)
    assert torch.equal(rows, in_bf16.encode_images(images))
    assert torch.equal(rows[8:], in_bf16.encode_images(images.roll(8, dims=0))[:8])
    _bytes_do_not_depend_on_neighbours(in_bf16)


def test_a_precision_that_is_not_there_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    with pytest.raises(ConfigError, match="bf16 is slower than fp32 on this processor"):
        Backbone.load(tmp_path / "nothing", CPU, "bf16")


def test_a_model_for_a_card_is_kept_from_rounding_to_tf32(
    tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[torch.device] = []
    monkeypatch.setattr(towers, "keep_fp32_whole", told.append)
    Backbone.load(tiny_clip, CPU)
    assert told == [CPU]


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_on_a_card_the_image_tower_alone_is_cast(
    model: torch.nn.Module, precision: Precision, dtype: torch.dtype
) -> None:
    """Its arithmetic is tested in embeddings/test_on_a_card.py; to see the weights no card is needed."""
    model, tokenizer = copy.deepcopy(model), open_clip.get_tokenizer("ViT-B-32", context_length=32)
    Backbone(model, PREPROCESS, tokenizer, torch.device("cuda"), precision)
    of_images = {id(parameter) for parameter in model.visual.parameters()}  # type: ignore[union-attr]
    assert {parameter.dtype for parameter in model.parameters() if id(parameter) in of_images} == {dtype}
    others = {parameter.dtype for parameter in model.parameters() if id(parameter) not in of_images}
    assert others == {torch.float32}


def test_a_tokenizer_of_a_package_that_is_not_installed_is_named(
    tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: str) -> None:
        raise ModuleNotFoundError("No module named 'transformers'")

    monkeypatch.setattr(open_clip, "get_tokenizer", missing)
    with pytest.raises(ConfigError, match="needs another package: No module named 'transformers'") as caught:
        Backbone.load(tiny_clip, CPU)
    assert caught.value.fix == "pip install transformers sentencepiece"


def test_memory_that_runs_out_while_the_model_is_loaded_is_an_environment_fault(
    tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(open_clip, "create_model", fail)
    with pytest.raises(EnvironmentFault, match="out of memory while the model was loaded"):
        Backbone.load(tiny_clip, CPU)
