"""Whatever lies where weights are looked for is read as the same weights, or told by name with a way out."""

from __future__ import annotations

import json
import shlex
import struct
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch
from open_clip import factory

from clipcifar.core.errors import ClipcifarError, ConfigError, DataError
from clipcifar.core.params import NO_PATH
from clipcifar.store.model import CONFIG_FILE, WEIGHTS_FILE, ModelParams
from clipcifar.weights import checkpoint, layout, resolve
from tests.conftest import TINY_CONFIG

State = dict[str, torch.Tensor]


@pytest.fixture(scope="session")
def state(tiny_clip: Path) -> State:
    return safetensors.torch.load_file(tiny_clip / WEIGHTS_FILE)


def _placed(content: Any, folder: Path) -> State:
    torch.save(content, folder / "w.pt")
    return _read(folder / "w.pt", folder)


def _read(file: Path, folder: Path, allow_pickle: bool = True) -> State:
    target = folder / "target"
    target.mkdir(exist_ok=True)
    checkpoint.place(file, target, allow_pickle)
    return safetensors.torch.load_file(target / WEIGHTS_FILE)


def _refused(file: Path, folder: Path, allow_pickle: bool = True) -> str:
    with pytest.raises(ClipcifarError) as caught:
        _read(file, folder, allow_pickle)
    assert caught.value.where == str(file)
    assert caught.value.fix
    assert not (folder / "target" / WEIGHTS_FILE).exists()
    return str(caught.value)


def _equal(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in second)


def _before(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


# What wraps a state dict

ADAM = {"state": {0: {"step": torch.ones(1), "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
SHARDED_ADAM = {"state": {"visual.proj": {"exp.avg": torch.ones(2)}}}
WRAPPED: dict[str, Callable[[State], Any]] = {
    "itself": lambda state: state,
    "ordered": OrderedDict,
    "model": lambda state: {"model": state},
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "name": "run", "optimizer": ADAM},
    "optimizer by name": lambda state: {"model": state, "optimizer": SHARDED_ADAM, "scaler": {"scale": 1.0}},
    "ema": lambda state: {"state_dict_ema": state},
    "two deep": lambda state: {"model": {"state_dict": state}, "epoch": 1},
    "module.": lambda state: {"state_dict": _before("module.", state)},
    "_orig_mod.": lambda state: _before("_orig_mod.", state),
    "module._orig_mod.": lambda state: {"model": _before("module._orig_mod.", state)},
    "compiled tower": lambda s: {name.replace("visual.", "visual._orig_mod."): s[name] for name in s},
    "Lightning": lambda state: {"state_dict": _before("model.", state), "pytorch-lightning_version": "2"},
    "DeepSpeed, one rank": lambda state: {"module": _before("module.", state), "optimizer": None},
    "OpenAI's numbers": lambda s: {**s, "input_resolution": torch.tensor(32), "vocab_size": torch.tensor(9)},
}  # fmt: skip


@pytest.mark.parametrize("kind", WRAPPED)
def test_the_weights_are_the_same_whatever_wraps_them(state: State, tmp_path: Path, kind: str) -> None:
    assert _equal(_placed(WRAPPED[kind](state), tmp_path), state)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_wrappers_in_a_safetensors_file_are_undone_as_well(state: State, tmp_path: Path, prefix: str) -> None:
    safetensors.torch.save_file(_before(prefix, state), tmp_path / "w.safetensors")
    assert _equal(_read(tmp_path / "w.safetensors", tmp_path, allow_pickle=False), state)


def test_safetensors_under_another_name_need_no_permission(state: State, tmp_path: Path) -> None:
    safetensors.torch.save_file(state, tmp_path / "w.bin")
    assert _equal(_read(tmp_path / "w.bin", tmp_path, allow_pickle=False), state)
    assert (tmp_path / "target" / WEIGHTS_FILE).read_bytes() == (tmp_path / "w.bin").read_bytes()


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (lambda s: {"state_dict": s, "state_dict_ema": s}, ["state_dict, state_dict_ema", "['state_dict']"]),
        (lambda s: {"a": {"model": s, "model_ema": s}}, ["a.model, a.model_ema", "['a']['model']"]),
        (lambda s: {"epoch": 3, "lr": 0.1}, ["no state dict", "epoch, lr", "model.state_dict()"]),
        (lambda s: [s], ["a list"]),
        (lambda s: s["logit_scale"], ["a Tensor"]),
        (lambda s: {}, ["no state dict"]),
        (lambda s: {f"visual.{n}.lora_A.weight": t for n, t in s.items()}, ["LoRA", "merge_and_unload"]),
        (
            lambda s: {"blocks.0.weight": torch.ones(2)},
            ["blocks.0.weight", "expected visual.", "both towers"],
        ),
        (
            lambda s: {"text_model.encoder.a": s["logit_scale"], "vision_model.encoder.b": s["logit_scale"]},
            ["text_model.encoder.a", "CLIPModel is converted", "open_clip's format"],
        ),
    ],
)
def test_what_is_not_one_state_dict_in_a_known_layout_is_told(
    state: State, tmp_path: Path, content: Callable[[State], Any], parts: list[str]
) -> None:
    torch.save(content(state), tmp_path / "w.pt")
    message = _refused(tmp_path / "w.pt", tmp_path)
    assert all(part in message for part in parts), message


def test_the_command_that_keeps_one_of_two_works(state: State, tmp_path: Path) -> None:
    torch.save({"a": {"model": state, "ema": state}}, tmp_path / "w2.pt")
    command = _refused(tmp_path / "w2.pt", tmp_path).partition("such as: ")[2]
    subprocess.run([sys.executable, "-c", f"import torch; {command}"], cwd=tmp_path, check=True)
    assert _equal(_read(tmp_path / "w.pt", tmp_path), state)


# Files of another kind


def _zip(path: Path, names: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in names.items():
            archive.writestr(name, content)


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(Path(__file__), "w.bin")


KINDS: dict[str, tuple[str, Callable[[Path], object], list[str]]] = {
    "LFS pointer": (
        "w.safetensors",
        lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        ["Git-LFS pointer", "git lfs pull"],
    ),
    "HTML": ("w.safetensors", lambda p: p.write_text("\n<!DOCTYPE html><html></html>"), ["page of the web"]),
    "HTML as bin": ("w.bin", lambda p: p.write_text("<html>"), ["page of the web", "login"]),
    "JSON": ("w.bin", lambda p: p.write_text('{"error": "no"}'), ["JSON"]),
    "empty": ("w.safetensors", lambda p: p.write_bytes(b""), ["empty"]),
    "ONNX": ("w.onnx", lambda p: p.write_bytes(b"\x08\x07\x12\x07pytorch"), ["ONNX", "exported from"]),
    "ONNX as bin": ("w.bin", lambda p: p.write_bytes(b"\x08\x07\x12\x07pytorch"), ["ONNX"]),
    "gzip": ("w.pt", lambda p: p.write_bytes(b"\x1f\x8b\x08"), ["gzip", "unpack"]),
    "tar": ("w.pt", _tar, ["tar archive", "unpack"]),
    "zip": ("w.pt", lambda p: _zip(p, {"w.bin": b"x"}), ["zip archive", "unpack"]),
    "half a zip": ("w.pt", lambda p: p.write_bytes(b"PK\x03\x04" + b"x" * 99), ["breaks off", "again"]),
    "numpy": ("w.npy", lambda p: np.save(p, np.zeros(3)), ["numpy array"]),
    "HDF5": ("w.h5", lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n"), ["HDF5"]),
    "GGUF": ("w.gguf", lambda p: p.write_bytes(b"GGUF\x03"), ["GGUF"]),
    "anything": ("w.pth", lambda p: p.write_bytes(b"abcdefgh" * 9), ["abcdefgh", "state dict"]),
}


@pytest.mark.parametrize("allow_pickle", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_kind_is_told_by_its_content(tmp_path: Path, kind: str, allow_pickle: bool) -> None:
    name, write, parts = KINDS[kind]
    write(tmp_path / name)
    message = _refused(tmp_path / name, tmp_path, allow_pickle)
    assert all(part in message for part in (name, *parts)), message
    assert "set model.allow_pickle" not in message  # which would not help


def test_safetensors_that_break_off_are_told(state: State, tmp_path: Path) -> None:
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    content = (tmp_path / "w.safetensors").read_bytes()
    for size in (4, 8, 60, len(content) // 2, len(content) - 1):
        (tmp_path / "w.safetensors").write_bytes(content[:size])
        assert "not a safetensors file" in _refused(tmp_path / "w.safetensors", tmp_path)


@pytest.mark.parametrize("size", [60 * 256 + 12, 123, 0x4B50, 0x0280])
def test_the_length_of_a_header_is_not_taken_for_a_mark(state: State, tmp_path: Path, size: int) -> None:
    """Its first bytes may read <, {, PK or as those of a pickle."""
    content = safetensors.torch.save(state)
    length = struct.unpack("<Q", content[:8])[0]
    while size < length:
        size += 1 << 16
    header = content[8 : 8 + length] + b" " * (size - length)
    (tmp_path / "w.bin").write_bytes(struct.pack("<Q", size) + header + content[8 + length :])
    assert _equal(_read(tmp_path / "w.bin", tmp_path, allow_pickle=False), state)


def test_a_torchscript_archive_is_told_and_its_command_converts_it(
    tmp_path: Path,
) -> None:
    """As OpenAI gave its weights away."""

    model = torch.nn.ModuleDict({"visual": torch.nn.Linear(2, 3)})
    model.register_buffer("input_resolution", torch.tensor(224))
    with warnings.catch_warnings(action="ignore"):  # it is out of date, and so are those archives
        torch.jit.script(model).save(str(tmp_path / "jit.pt"))
    for allow_pickle in (True, False):
        message = _refused(tmp_path / "jit.pt", tmp_path, allow_pickle)
        assert "TorchScript archive" in message
        assert "model.pretrained: openai" in message
    command = message.partition("w.safetensors: ")[2].partition(" <file>")[0]
    program, *arguments = shlex.split(command)
    assert program == "python"
    subprocess.run([sys.executable, *arguments, "jit.pt"], cwd=tmp_path, check=True)
    placed = _read(tmp_path / "w.safetensors", tmp_path)
    assert placed.keys() == {"visual.weight", "visual.bias"}
    assert torch.equal(placed["visual.weight"], model["visual"].weight)


class Trainer:
    """Of a class that only its own project has."""


def test_a_whole_object_is_not_unpickled_and_its_class_is_named(tmp_path: Path) -> None:
    torch.save({"model": Trainer()}, tmp_path / "w.pt")
    message = _refused(tmp_path / "w.pt", tmp_path)
    assert "plain tensors: it holds tests.weights.test_checkpoint.Trainer" in message
    assert "model.state_dict()" in message


# Layouts of other libraries


def _as_transformers(state: State) -> State:
    """What transformers' CLIPModel calls open_clip's tensors; the opposite way, written by itself."""
    single = {new: old for old, new in layout._SINGLE.items()}
    made: State = {"text_model.embeddings.position_ids": torch.arange(3)}
    for name, tensor in state.items():
        if name in single:
            made[single[name]] = tensor.T if name in ("visual.proj", "text_projection") else tensor
            continue
        if "resblocks" not in name:
            made[name] = tensor
            continue
        tower = "vision" if name.startswith("visual.") else "text"
        number, _, rest = name.partition("resblocks.")[2].partition(".")
        names = {"ln_": "layer_norm", "attn.out": "self_attn.out", "c_fc": "fc1", "c_proj": "fc2"}
        for old, new in names.items():
            rest = rest.replace(old, new)
        parts = {rest: tensor}
        if "in_proj" in rest:
            kind = rest.rpartition("_")[2]
            thirds = tensor.chunk(3)
            parts = {f"self_attn.{p}_proj.{kind}": t for p, t in zip("qkv", thirds, strict=True)}
        made |= {f"{tower}_model.encoder.layers.{number}.{key}": value for key, value in parts.items()}
    return made


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_clip_of_transformers_is_converted(state: State, tmp_path: Path, suffix: str) -> None:
    theirs = _as_transformers(state)
    assert "vision_model.encoder.layers.1.self_attn.q_proj.weight" in theirs
    assert not set(theirs) & set(state) - {"logit_scale"}
    file = tmp_path / f"model.{suffix}"
    if suffix == "bin":
        torch.save(theirs, file)
    else:
        safetensors.torch.save_file({name: t.contiguous() for name, t in theirs.items()}, file)
    assert _equal(_read(file, tmp_path), state)


def test_half_a_clip_of_transformers_is_damaged(state: State, tmp_path: Path) -> None:
    theirs = _as_transformers(state)
    del theirs["vision_model.encoder.layers.0.self_attn.k_proj.weight"]
    torch.save(theirs, tmp_path / "w.bin")
    assert "cannot be read" in _refused(tmp_path / "w.bin", tmp_path)


def test_an_npz_that_is_not_of_big_vision_is_told(tiny_clip: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", a=np.zeros(3))
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / CONFIG_FILE).write_bytes((tiny_clip / CONFIG_FILE).read_bytes())
    assert "big_vision" in _refused(tmp_path / "w.npz", tmp_path, allow_pickle=False)


SIGLIP = {
    "embed_dim": 192,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 224,
        "timm_model_name": "vit_base_patch16_siglip_224",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": {
        **{"context_length": 16, "vocab_size": 99, "width": 768, "heads": 2, "layers": 1},
        **{"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}},
    },
}


@pytest.mark.nightly
def test_siglip_as_google_gives_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every array holds its own number, so that one in the wrong place would show."""
    config = {**SIGLIP, "embed_dim": 768}
    monkeypatch.setitem(factory._MODEL_CONFIGS, "siglip", config)
    model = open_clip.create_model("siglip")
    width, arrays = 768, {"b": np.full((1,), -3.0, np.float32), "t": np.full((1,), 2.0, np.float32)}

    def block(place: str, count: int, *, mlp: int) -> None:
        shapes = {"LayerNorm_0/scale": (width,), "LayerNorm_0/bias": (width,)}
        shapes |= {"LayerNorm_1/scale": (width,), "LayerNorm_1/bias": (width,)}
        for part in ("query", "key", "value"):
            shapes |= {f"MultiHeadDotProductAttention_0/{part}/kernel": (width, 12, 64)}
            shapes |= {f"MultiHeadDotProductAttention_0/{part}/bias": (12, 64)}
        shapes |= {"MultiHeadDotProductAttention_0/out/kernel": (12, 64, width)}
        shapes |= {"MultiHeadDotProductAttention_0/out/bias": (width,)}
        shapes |= {"MlpBlock_0/Dense_0/kernel": (width, mlp), "MlpBlock_0/Dense_0/bias": (mlp,)}
        shapes |= {"MlpBlock_0/Dense_1/kernel": (mlp, width), "MlpBlock_0/Dense_1/bias": (width,)}
        for index in range(count):
            for name, shape in shapes.items():
                arrays[place.format(index) + name] = np.full(shape, len(arrays) / 1000, np.float32)

    block("img/Transformer/encoderblock_{}/", 12, mlp=3072)
    block("txt/Encoder_0/encoderblock_{}/", 1, mlp=3072)
    block("img/MAPHead_0/", 1, mlp=3072)
    for name, shape in {
        "img/embedding/kernel": (16, 16, 3, width),
        "img/embedding/bias": (width,),
        "img/pos_embedding": (1, 196, width),
        "img/Transformer/encoder_norm/scale": (width,),
        "img/Transformer/encoder_norm/bias": (width,),
        "img/MAPHead_0/probe": (1, 1, width),
        "txt/Embed_0/embedding": (99, width),
        "txt/pos_embedding": (1, 16, width),
        "txt/Encoder_0/encoder_norm/scale": (width,),
        "txt/Encoder_0/encoder_norm/bias": (width,),
        "txt/head/kernel": (width, 768),
        "txt/head/bias": (768,),
    }.items():
        arrays[name] = np.full(shape, len(arrays) / 1000, np.float32)
    np.savez(tmp_path / "siglip.npz", **arrays)
    (tmp_path / "target").mkdir()
    written = {"model_cfg": config, "preprocess_cfg": {}}
    (tmp_path / "target" / CONFIG_FILE).write_text(json.dumps(written))
    placed = _read(tmp_path / "siglip.npz", tmp_path, allow_pickle=False)
    open_clip.convert.load_big_vision_weights(model, str(tmp_path / "siglip.npz"))
    assert _equal(placed, model.state_dict())
    assert placed["logit_bias"].item() == -3.0


# Folders


def _folder(config: Path, folder: Path, names: dict[str, Any]) -> ModelParams:
    folder.mkdir()
    (folder / CONFIG_FILE).write_bytes((config / CONFIG_FILE).read_bytes())
    for name, content in names.items():
        torch.save(content, folder / name)
    return ModelParams(f"local-dir:{folder}", None, str(folder), 0, True)


def _not_resolved(model: ModelParams, target: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve.fetch_model(model, target)
    return str(caught.value)


def test_a_folder_with_a_pickle_alone_is_read_where_that_is_allowed(
    tiny_clip: Path, state: State, tmp_path: Path
) -> None:
    model = _folder(tiny_clip, tmp_path / "f", {"open_clip_pytorch_model.bin": state, "optimizer.pt": {}})
    resolve.fetch_model(model, tmp_path / "w")
    assert _equal(safetensors.torch.load_file(tmp_path / "w" / WEIGHTS_FILE), state)
    careful = ModelParams(model.name, None, model.path, 0, False)
    message = _not_resolved(careful, tmp_path / "w2")
    assert "no safetensors file, but open_clip_pytorch_model.bin, optimizer.pt" in message
    assert "model.allow_pickle: true" in message
    (tmp_path / "f" / "open_clip_pytorch_model.bin").rename(tmp_path / "f" / "my.bin")
    assert "name one of them open_clip_pytorch_model.bin" in _not_resolved(model, tmp_path / "w2")
    (tmp_path / "f" / "optimizer.pt").unlink()
    resolve.fetch_model(model, tmp_path / "w3")


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        ([".metadata", "__0_0.distcp"], ["FSDP", "dcp_to_torch"]),
        (["zero_to_fp32.py", "latest"], ["DeepSpeed", "zero_to_fp32"]),
        (["global_step1/zero_pp_rank_0_mp_rank_00_optim_states.pt"], ["DeepSpeed", "zero_to_fp32"]),
        (["global_step1/mp_rank_00_model_states.pt"], ["DeepSpeed", "mp_rank_00_model_states.pt"]),
        (["model.safetensors.index.json"], ["several shards", "join them"]),
        (["config.json", "model.safetensors"], ["transformers", "model.path to the weights file"]),
        ([CONFIG_FILE], ["open_clip's format", "local-dir:"]),
        (["notes.txt"], ["is not a file", "give a weights file"]),
    ],
)
def test_a_folder_where_a_file_should_be_is_told_by_what_it_holds(
    tmp_path: Path, names: list[str], parts: list[str]
) -> None:
    for name in names:
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / name).touch()
    message = _not_resolved(ModelParams("ViT-B-32", None, str(tmp_path / "f"), 0, False), tmp_path / "w")
    assert all(part in message for part in parts), message
    if CONFIG_FILE not in names and "notes.txt" not in names:
        model = ModelParams(f"local-dir:{tmp_path / 'f'}", None, str(tmp_path / "f"), 0, False)
        message = _not_resolved(model, tmp_path / "w")
        assert f"there is no {CONFIG_FILE}" in message
        assert parts[0] in message


def test_the_command_that_joins_shards_works(state: State, tmp_path: Path) -> None:
    names = sorted(state)
    for number, part in enumerate((names[:9], names[9:])):
        safetensors.torch.save_file(
            {name: state[name] for name in part}, tmp_path / f"m-{number}.safetensors"
        )
    (tmp_path / "model.safetensors.index.json").touch()
    message = _not_resolved(ModelParams("ViT-B-32", None, str(tmp_path), 0, False), tmp_path / "w")
    _, *arguments = shlex.split(message.partition("join them: ")[2].partition(" <folder>")[0])
    shards = sorted(map(str, tmp_path.glob("m-*.safetensors")))
    subprocess.run([sys.executable, *arguments, *shards], cwd=tmp_path, check=True)
    assert _equal(safetensors.torch.load_file(tmp_path / "w.safetensors"), state)


def test_random_weights_need_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of those that do: the same name without a path."""
    monkeypatch.setitem(factory._MODEL_CONFIGS, "tiny", TINY_CONFIG["model_cfg"])
    model = ModelParams("tiny", None, NO_PATH, 0, False)
    assert "random" in resolve.fetch_model(model, tmp_path / "w").source
    (tmp_path / "w.bin").touch()
    with pytest.raises(DataError, match="an empty file"):
        resolve.fetch_model(
            replace(model, path=str(tmp_path / "w.bin"), preprocess="RN50:openai"), tmp_path / "w"
        )
