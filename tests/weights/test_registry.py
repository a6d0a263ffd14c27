"""Every architecture and tag of the installed open_clip: what we resolve is what it would take itself."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
from open_clip import factory, pretrained

from clipcifar.backbone.preprocess import Preprocess
from clipcifar.core.errors import ConfigError
from clipcifar.core.params import NO_PATH
from clipcifar.store.model import CONFIG_FILE, WEIGHTS_FILE, ModelParams
from clipcifar.weights import checkpoint, hub, resolve
from clipcifar.weights.config import TEXT_CONFIG
from clipcifar.weights.registry import activation_remark, architecture_of, tag_remark

PAIRS: list[tuple[str, str]] = open_clip.list_pretrained()
NAMES: list[str] = open_clip.list_models()
HAS_TRANSFORMERS = importlib.util.find_spec("transformers") is not None
# Trained with QuickGELU, which the name has not: open_clip warns and computes something else. The name with
# -quickgelu has the same tags.
ANOTHER_ACTIVATION = {
    "RN50": {"openai", "yfcc15m", "cc12m"},
    "RN50x4": {"openai"},
    "RN50x16": {"openai"},
    "RN50x64": {"openai"},
    "RN101": {"openai", "yfcc15m"},
    "ViT-B-16": {"openai", "dfn2b", "metaclip_400m", "metaclip_fullcc"},
    "ViT-B-32": {"openai", "laion400m_e31", "laion400m_e32", "metaclip_400m", "metaclip_fullcc"},
    "ViT-bigG-14": {"metaclip_fullcc"},
    "ViT-H-14": {"metaclip_fullcc", "dfn5b"},
    "ViT-H-14-378": {"dfn5b"},
    "ViT-H-14-worldwide": {"metaclip2_worldwide"},
    "ViT-L-14": {"openai", "metaclip_400m", "metaclip_fullcc", "dfn2b"},
    "ViT-L-14-336": {"openai"},
}
EXCEPTIONS = {(name, tag) for name, tags in ANOTHER_ACTIVATION.items() for tag in tags}
# The smallest configs of the libraries' text towers, by how open_clip calls what it takes them from.
SMALL = {"hidden_size": 768, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
T5 = {"model_type": "mt5", "d_model": 768, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
NLLB = {"model_type": "m2m_100", "d_model": 1024, "encoder_layers": 1, "decoder_layers": 1}
TEXT_TOWERS = {
    "roberta-base": {"model_type": "roberta", **SMALL},
    "xlm-roberta-base": {"model_type": "xlm-roberta", **SMALL},
    "xlm-roberta-large": {"model_type": "xlm-roberta", **SMALL, "hidden_size": 1024},
    "google/mt5-base": T5,
    "google/mt5-xl": {**T5, "d_model": 2048},
    "facebook/nllb-200-distilled-600M": NLLB,
    "facebook/nllb-200-distilled-1.3B": NLLB,
}


@dataclass(frozen=True)
class Taken:
    """What of a model is fetched, and what it is built and used with."""

    files: list[tuple[str, str]]  # repository and name, in the order they are asked for
    built: tuple[Any, ...]  # the class of the model and its arguments
    preprocess: Preprocess
    tokenizer: tuple[Any, ...]


class _Library:
    """open_clip without a network and without arithmetic: notes what it is asked for."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.files: list[tuple[str, str]] = []
        self.built: tuple[Any, ...] = ()
        for kind in ("CLIP", "CustomTextCLIP", "CoCa"):
            patch.setattr(factory, kind, self._noted(kind))
        for kind in ("HFTokenizer", "SigLipTokenizer", "SimpleTokenizer"):
            patch.setattr(factory, kind, lambda *args, _kind=kind, **more: (_kind, args[1:], more))
        patch.setattr(factory, "load_checkpoint", lambda *args, **more: None)
        patch.setattr(factory, "_set_model_device_and_precision", lambda *args: None)
        patch.setattr(pretrained, "hf_hub_download", self._absent)

    def _noted(self, kind: str) -> Any:
        def build(**arguments: Any) -> Any:
            text = {k: v for k, v in arguments["text_cfg"].items() if not k.startswith("hf_model_")}
            self.built = (kind, {**arguments, "text_cfg": text})
            size = arguments["vision_cfg"].get("image_size", 224)
            return SimpleNamespace(visual=SimpleNamespace(image_size=size))

        return build

    def _absent(self, repo_id: str, filename: str, **_: object) -> str:
        self.files.append((repo_id, filename))
        raise FileNotFoundError(filename)

    def taken(self, name: str, tag: str | None, patch: pytest.MonkeyPatch) -> Taken:
        """By `create_model` and `get_tokenizer` themselves."""
        self.files = []
        if tag is not None:
            with pytest.raises(RuntimeError):  # it asks for all its files in turn, and gets none
                open_clip.create_model(name, pretrained=tag)
        with patch.context() as once:
            once.setattr(factory, "download_pretrained", lambda *args, **more: "weights")
            model = open_clip.create_model(name, pretrained=tag)
        preprocess = Preprocess.from_config(open_clip.get_model_preprocess_cfg(model))
        return Taken(self.files, self.built, preprocess, open_clip.get_tokenizer(name.replace("/", "-")))

    def loaded(self, folder: Path, files: list[tuple[str, str]]) -> Taken:
        """What it makes of a folder of ours."""
        model = open_clip.create_model(f"local-dir:{folder}", require_pretrained=True)
        preprocess = Preprocess.from_config(open_clip.get_model_preprocess_cfg(model))
        return Taken(files, self.built, preprocess, open_clip.get_tokenizer(f"local-dir:{folder}"))


class _Hub:
    """Stands for all that we ask the hub for; the weights it gives are an empty file."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.files: list[tuple[str, str]] = []
        self._folder = folder
        patch.setattr(hub, "fetch", self._fetch)
        patch.setattr(hub, "fetch_tokenizer", lambda architecture, target: None)
        patch.setattr(resolve, "_require_working", lambda config, target: None)
        patch.setattr(checkpoint, "place", self._place)
        patch.setattr(checkpoint, "place_random", lambda target, seed: self._place(None, target, False))

    def _fetch(self, repository: str, names: list[str], revision: str | None, **_: object) -> Path:
        path = self._folder / "fetched"
        path.write_text(json.dumps(TEXT_TOWERS.get(repository, {})))
        if names != ["config.json"]:
            self.files = [(repository, name) for name in names]
        return path

    @staticmethod
    def _place(source: Path | None, folder: Path, allow_pickle: bool) -> None:
        (folder / WEIGHTS_FILE).write_bytes(b"")


def _asked(name: str, tag: str | None) -> ModelParams:
    return ModelParams(name, tag, NO_PATH, 0, True)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Library]:
    logging.disable(logging.CRITICAL)
    yield _Library(monkeypatch)
    logging.disable(logging.NOTSET)


@pytest.mark.filterwarnings("ignore:QuickGELU mismatch")
def test_every_tag_resolves_to_what_open_clip_itself_would_take(
    library: _Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = _Hub(monkeypatch, tmp_path)
    refused: dict[tuple[str, str], str] = {}
    for name, tag in PAIRS:
        try:
            resolve.fetch_model(_asked(name, tag), tmp_path / "w")
        except ConfigError as error:
            refused[name, tag] = error.fix
            continue
        loaded = library.loaded(tmp_path / "w", ours.files)
        assert loaded == library.taken(name, tag, monkeypatch), (name, tag)
        assert loaded.files[0][1].endswith(".safetensors")
    assert refused == {(name, tag): f"use {name}-quickgelu" for name, tag in EXCEPTIONS}
    assert all((f"{name}-quickgelu", tag) in PAIRS for name, tag in EXCEPTIONS)
    print(f"{len(PAIRS)} pairs, {len(NAMES)} architectures, {len(refused)} exceptions")


def test_every_architecture_without_a_tag_is_built_as_open_clip_itself_would(
    library: _Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _Hub(monkeypatch, tmp_path)
    for name in NAMES:
        resolve.fetch_model(_asked(name, None), tmp_path / "w")
        assert library.loaded(tmp_path / "w", []) == library.taken(name, None, monkeypatch), name


def test_another_spelling_is_the_same_model(
    library: _Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = _Hub(monkeypatch, tmp_path)
    for name, tag in (("ViT-B/32", "LAION2B-S34B-B79K"), ("RN50-quickgelu", "OpenAI")):
        resolve.fetch_model(_asked(name, tag), tmp_path / "w")
        assert library.loaded(tmp_path / "w", ours.files) == library.taken(name, tag, monkeypatch)


def test_one_other_value_in_a_tag_would_be_noticed(
    library: _Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the walk."""
    ours = _Hub(monkeypatch, tmp_path)
    resolve.fetch_model(_asked("ViT-B-16-SigLIP", "webli"), tmp_path / "w")
    right = library.loaded(tmp_path / "w", ours.files)
    for part, key, value in (
        ("preprocess_cfg", "std", [0.5, 0.5, 0.4]),
        ("model_cfg", "quick_gelu", True),
        ("model_cfg", "embed_dim", 3),
    ):
        config = json.loads((tmp_path / "w" / CONFIG_FILE).read_text())
        config[part][key] = value
        (tmp_path / "w" / CONFIG_FILE).write_text(json.dumps(config))
        wrong = library.loaded(tmp_path / "w", ours.files)
        assert wrong != right
        right = wrong


# The folders as open_clip builds them, on the meta device and of one layer


def _kind(name: str) -> tuple[str, ...]:
    config = open_clip.get_model_config(name)
    vision, text = config["vision_cfg"], config["text_cfg"]
    image_tower = (vision.get("timm_model_name") or type(vision.get("layers")).__name__).split("_")[0]
    text_tower = f"{text.get('hf_model_name')}{text.get('pool_type')}{config.get('custom_text')}"
    return image_tower, text_tower, str("multimodal_cfg" in config)


ONE_OF_EACH = list({_kind(name): name for name in NAMES}.values())


def _shallow(patch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        config = open_clip.get_model_config(name)
        for part in ("vision_cfg", "text_cfg", "multimodal_cfg"):
            layers = config.get(part, {}).get("layers")
            if layers is not None:
                config[part]["layers"] = [1] * len(layers) if isinstance(layers, list) else 1
        patch.setitem(factory._MODEL_CONFIGS, name, config)


def _state(**asked: Any) -> tuple[dict[str, torch.Size], Any]:
    with torch.device("meta"):
        model = open_clip.create_model(**asked, device="meta", pretrained_text=False)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    return shapes, open_clip.get_model_preprocess_cfg(model)


def _built_alike(names: list[str], folder: Path, patch: pytest.MonkeyPatch) -> Counter[str]:
    """How many were compared, how many need a library that is not here."""
    logging.disable(logging.CRITICAL)
    _shallow(patch)
    _Hub(patch, folder)
    patch.setattr(factory, "load_checkpoint", lambda *args, **more: None)
    counts: Counter[str] = Counter()
    for name in names:
        text_tower = open_clip.get_model_config(name)["text_cfg"].get("hf_model_name")
        if text_tower and not HAS_TRANSFORMERS:
            counts["without transformers"] += 1
            continue
        resolve.fetch_model(_asked(name, None), folder / "w")
        if text_tower:  # open_clip finds the same small config where it would ask the hub
            config = open_clip.get_model_config(name)
            config["text_cfg"]["hf_model_name"] = str(folder / "w" / TEXT_CONFIG)
            patch.setitem(factory._MODEL_CONFIGS, name, config)
        expected = _state(model_name=name, load_weights=False)
        assert _state(model_name=f"local-dir:{folder / 'w'}") == expected, name
        assert len(expected[0]) > 20
        counts["compared"] += 1
    logging.disable(logging.NOTSET)
    return counts


def test_one_architecture_of_each_kind_loads_again_with_the_same_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = _built_alike(ONE_OF_EACH, tmp_path, monkeypatch)
    assert counts["compared"] > 12
    print(dict(counts))


@pytest.mark.nightly
def test_every_architecture_loads_again_with_the_same_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = _built_alike(NAMES, tmp_path, monkeypatch)
    assert sum(counts.values()) == len(NAMES)
    print(dict(counts))


# Activations


def test_a_tag_is_refused_only_where_another_name_has_it() -> None:
    """roberta-ViT-B-32 has QuickGELU, the table of tags says nothing, and there is no other name."""
    assert ("roberta-ViT-B-32", "laion2b_s12b_b32k") in PAIRS
    assert architecture_of("roberta-ViT-B-32")["quick_gelu"] is True
    architecture = architecture_of("roberta-ViT-B-32")
    said = "activation: QuickGELU, as roberta-ViT-B-32 has it"
    assert activation_remark("roberta-ViT-B-32", architecture) == (
        f"{said}; its tags laion2b_s12b_b32k do not say so, and it goes by no other name"
    )
    differing = {}
    for name, tag in sorted(set(PAIRS) - EXCEPTIONS):
        remark = tag_remark(name, architecture_of(name), open_clip.get_pretrained_cfg(name, tag))
        differing.update({(name, tag): remark} if remark else {})
    assert differing == {("roberta-ViT-B-32", "laion2b_s12b_b32k"): f"{said} and its tag does not say"}


def test_ones_own_weights_are_refused_where_all_known_ones_have_the_other_activation() -> None:
    refused = {}
    for name in NAMES:
        try:
            activation_remark(name, architecture_of(name))
        except ConfigError as error:
            refused[name] = error.fix.partition(";")[0]
    names = ["RN50", "RN50x4", "RN50x16", "RN50x64", "RN101"]
    names += ["ViT-H-14-378", "ViT-H-14-worldwide", "ViT-L-14-336"]
    assert refused == {name: f"use {name}-quickgelu" for name in names}


def test_an_activation_that_some_known_weights_lack_is_said() -> None:
    said = activation_remark("ViT-B-16", architecture_of("ViT-B-16"))
    assert said == (
        "activation: GELU, as ViT-B-16 has it; its tags openai, dfn2b, metaclip_400m, metaclip_fullcc need "
        "ViT-B-16-quickgelu"
    )
    assert activation_remark("ViT-B-16-quickgelu", architecture_of("ViT-B-16-quickgelu")) == ""
