"""Resolve a model once into a folder in open_clip's own format; nothing else asks a hub.

Whatever the source (a tag, a file, a folder, a hub repository, a seed), the folder ends up with
one config that states architecture and preprocessing, and one safetensors file. So one code path
loads the real weights, the embedded stand-in and a random model.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import safetensors.torch
import torch
from open_clip.factory import load_state_dict
from safetensors import SafetensorError

from clipcifar.core.errors import ConfigError, DataError
from clipcifar.core.files import copy_file, explained, fault_behind, file_sha256, require_space, write_json
from clipcifar.core.params import NO_PATH, suggestion
from clipcifar.store.model import CONFIG_FILE, RANDOM, WEIGHTS_FILE, ModelParams
from clipcifar.weights import hub, tensor_file
from clipcifar.weights.config import read_config

LOCAL_DIR, HF_HUB = "local-dir:", "hf-hub:"


@dataclass(frozen=True)
class Pin:
    """Digest and revision that known weights must have, and where the two are from."""

    sha256: str
    revision: str
    source: str


PINS = {
    ("ViT-B-32", "laion2b_s34b_b79k"): Pin(
        sha256="ac4f8c4b88af6d963118cbf40ad93176d092abbedfcb752601ae1866352656e6",
        revision="1a25a446712ba5ee05982a381eed697ef9b435cf",
        source="found in several independent public sources, not checked at the origin",
    ),
}


@dataclass(frozen=True)
class Resolved:
    """Where the weights came from: text for a person, and the revision if the source has one."""

    source: str
    revision: str


def fetch_model(model: ModelParams, folder: Path) -> Resolved:
    """Fill `folder` with the model's config, weights and tokenizer files.

    Raises:
        ConfigError: the name, tag or path does not exist, or the combination makes no sense.
        DataError: the weights have another digest than known, or are not readable.
        EnvironmentFault: they could not be downloaded.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if model.name.startswith(LOCAL_DIR):
        return _from_folder(model, Path(model.name.removeprefix(LOCAL_DIR)), folder)
    if model.name.startswith(HF_HUB):
        return _from_hub(model, model.name.removeprefix(HF_HUB), folder)
    return _from_architecture(model, folder)


def _from_folder(model: ModelParams, source: Path, folder: Path) -> Resolved:
    _refuse_tag(model)
    if Path(model.path) != source:
        raise ConfigError(
            f"model.name points at {source}, model.path at {model.path}",
            where="params.yaml: model.path",
            fix=f"set model.path: {source}, so that DVC notices when the folder changes",
        )
    if not (source / CONFIG_FILE).is_file():
        raise ConfigError(f"there is no {CONFIG_FILE} in {source}", where="params.yaml: model.name")
    _write_config(read_config(source / CONFIG_FILE), folder)
    files = sorted(source.glob("*.safetensors"))
    preferred = [file for file in files if file.name == WEIGHTS_FILE] or files
    if len(preferred) != 1:
        raise ConfigError(
            f"{source} holds {len(files)} safetensors files",
            where=str(source),
            fix=f"name one of them {WEIGHTS_FILE}",
        )
    _place_weights(preferred[0], folder, model.allow_pickle)
    for file in hub.tokenizer_files(source):
        copy_file(file, folder / file.name)
    return Resolved(str(source), "")


def _from_hub(model: ModelParams, repository: str, folder: Path) -> Resolved:
    _refuse_tag(model)
    if model.path != NO_PATH:
        raise ConfigError(
            "a repository is downloaded, model.path would not be used",
            where="params.yaml: model.path",
            fix=f"set it to {NO_PATH}, or use model.name: {LOCAL_DIR}<folder>",
        )
    config = read_config(hub.fetch(repository, [CONFIG_FILE], None))
    _write_config(config, folder)
    weights = hub.fetch(repository, hub.candidates("", model.allow_pickle), None)
    _place_weights(weights, folder, model.allow_pickle)
    hub.fetch_tokenizer(config["model_cfg"], folder)
    return Resolved(f"{HF_HUB}{repository}", hub.revision_of(weights))


def _from_architecture(model: ModelParams, folder: Path) -> Resolved:
    architecture = open_clip.get_model_config(model.name)
    if architecture is None:
        raise ConfigError(
            f"open_clip has no architecture {model.name!r}",
            where="params.yaml: model.name",
            fix=suggestion(model.name, open_clip.list_models()),
        )
    tag = _tag_config(model, architecture)
    preprocess = {
        key: value for key, value in tag.items() if key in asdict(open_clip.transform.PreprocessCfg())
    }
    _write_config({"model_cfg": architecture, "preprocess_cfg": preprocess}, folder)
    hub.fetch_tokenizer(architecture, folder)
    pin = PINS.get((model.name, model.pretrained or ""))
    if model.path != NO_PATH:
        weights = Path(model.path)
        if not weights.is_file():
            raise ConfigError(
                f"{weights} is not a file",
                where="params.yaml: model.path",
                fix=f"give a weights file, or set model.name: {LOCAL_DIR}<folder>",
            )
        if pin:
            _check_pin(pin, f"{model.name} {model.pretrained}", weights)
        resolved = Resolved(str(weights), "")
    elif model.pretrained is None:
        _save_random(folder, model.seed)
        return Resolved(f"{RANDOM}, seed {model.seed}", "")
    else:
        weights, resolved = _download_tag(model, tag, pin)
    _place_weights(weights, folder, model.allow_pickle)
    return resolved


def _write_config(config: Mapping[str, Any], folder: Path) -> None:
    architecture = hub.with_text_config(config["model_cfg"], folder)
    write_json(folder / CONFIG_FILE, {**config, "model_cfg": architecture})


def _refuse_tag(model: ModelParams) -> None:
    if model.pretrained is not None:
        raise ConfigError(
            f"{model.name} brings its own weights",
            where="params.yaml: model.pretrained",
            fix="set it to null",
        )


def _download_tag(model: ModelParams, tag: Mapping[str, Any], pin: Pin | None) -> tuple[Path, Resolved]:
    repository, _, filename = tag.get("hf_hub", "").rpartition("/")
    if not repository:
        raise ConfigError(
            f"the weights {model.pretrained!r} are not on the hub, only at {tag.get('url')}",
            where="params.yaml: model.pretrained",
            fix="download the file and set model.path to it",
        )
    names = hub.candidates(filename, model.allow_pickle)
    if pin:  # a wrong file must not become the trusted one
        weights = hub.fetch(repository, names, pin.revision, check=partial(_check_pin, pin))
    else:
        weights = hub.fetch(repository, names, None)
    return weights, Resolved(f"{HF_HUB}{repository}", hub.revision_of(weights))


def _check_pin(pin: Pin, name: str, weights: Path) -> None:
    """Raise DataError when the weights of a known tag are other bytes than known."""
    if (digest := file_sha256(weights)) != pin.sha256:
        raise DataError(
            f"the weights {name} have sha256 {digest}, expected {pin.sha256} ({pin.source})",
            where=str(weights),
            fix="if they are your own, set model.pretrained: null; else fetch the file again",
        )


def _tag_config(model: ModelParams, architecture: Mapping[str, Any]) -> Mapping[str, Any]:
    """What open_clip knows about the tag; refuses a tag trained with another activation."""
    if model.pretrained is None:
        return {}
    tag: dict[str, Any] = open_clip.get_pretrained_cfg(model.name, model.pretrained)
    if not tag:
        raise ConfigError(
            f"open_clip has no weights {model.pretrained!r} for {model.name}",
            where="params.yaml: model.pretrained",
            fix=suggestion(model.pretrained, open_clip.list_pretrained_tags_by_model(model.name))
            + " For a file of your own set model.path to it and model.pretrained: null.",
        )
    if bool(tag.get("quick_gelu")) != bool(architecture.get("quick_gelu")):
        raise ConfigError(
            f"the weights {model.pretrained!r} were trained with another activation than {model.name} has",
            where="params.yaml: model.name",
            fix=f"use {model.name.removesuffix('-quickgelu')}{'-quickgelu' if tag.get('quick_gelu') else ''}",
        )
    return tag


def _place_weights(source: Path, folder: Path, allow_pickle: bool) -> None:
    if source.suffix == ".safetensors":
        tensor_file.check(source)
        copy_file(source, folder / WEIGHTS_FILE)
        return
    if not allow_pickle:
        raise ConfigError(
            f"{source.name} is not a safetensors file",
            where=str(source),
            fix="convert it, or set model.allow_pickle: true to read it without executing code",
        )
    try:
        tensors = load_state_dict(str(source), weights_only=True)
        separate = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    except Exception as error:  # the unpickler raises many types on hostile input
        what = f"cannot be read as plain tensors: {error}"
        raise fault_behind(error, source) or DataError(what, where=str(source)) from error
    _save(separate, folder / WEIGHTS_FILE)


def _save(tensors: dict[str, torch.Tensor], target: Path) -> None:
    require_space(target.parent, sum(tensor.nbytes for tensor in tensors.values()))
    with explained(target):
        target.unlink(missing_ok=True)  # through a link, some versions would write into DVC's cache
        try:
            safetensors.torch.save_file(tensors, target)
        except SafetensorError as error:  # also what it makes of a full disk
            raise OSError(str(error)) from error


def _save_random(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    logging.disable(logging.WARNING)  # open_clip warns that the model is random, which was asked for
    try:
        model = open_clip.create_model(f"{LOCAL_DIR}{folder}", pretrained_text=False, load_weights=False)
    finally:
        logging.disable(logging.NOTSET)
    _save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / WEIGHTS_FILE)
