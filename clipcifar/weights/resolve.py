"""Resolve a model once into a folder in open_clip's own format; nothing else asks a hub.

Whatever the source (a tag, a file, a folder, a hub repository, a seed), the folder ends up with
one config that states architecture and preprocessing, and one safetensors file. So one code path
loads the real weights, the embedded stand-in and a random model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from clipcifar.core.errors import ConfigError
from clipcifar.core.files import explained, write_json
from clipcifar.core.params import NO_PATH
from clipcifar.store.model import CONFIG_FILE, HF_HUB, LOCAL_DIR, RANDOM, WEIGHTS_FILE, ModelParams
from clipcifar.weights import checkpoint, hub, pins, preprocessing, proof, registry
from clipcifar.weights.config import copy_without_code, read_config
from clipcifar.weights.file_kind import PICKLES, refuse_folder
from clipcifar.weights.pins import PINS, Pin

__all__ = ["PINS", "Pin", "Resolved", "fetch_model"]
_PATH = "params.yaml: model.path"


@dataclass(frozen=True)
class Resolved:
    """Where the weights came from: text for a person, and the revision if the source has one.

    Attributes:
        remarks: as of `ModelDescription`.
    """

    source: str
    revision: str
    remarks: tuple[str, ...] = ()


def fetch_model(model: ModelParams, folder: Path) -> Resolved:
    """Fill `folder` with the model's config, weights and tokenizer files.

    Raises:
        ConfigError: the name, tag or path does not exist, or the combination makes no sense.
        DataError: the weights have another digest than known, or are not readable.
        EnvironmentFault: they could not be downloaded, or a package that the model needs is not there.
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
            where=_PATH,
            fix=f"set model.path: {source}, so that DVC notices when the folder changes",
        )
    if not (source / CONFIG_FILE).is_file():
        what, fix = f"there is no {CONFIG_FILE} in {source}", "use a folder in open_clip's format"
        refuse_folder(source, where="params.yaml: model.name", what=what, fix=fix)
    config = read_config(source / CONFIG_FILE)
    stated, remark = preprocessing.of_config(model, config)
    config = _write_config(config, stated, folder)
    for file in hub.tokenizer_files(source):
        copy_without_code(file, folder / file.name)
    _require_working(config, folder)
    checkpoint.place(_weights_in(source, model.allow_pickle), folder, model.allow_pickle)
    return Resolved(str(source), "", _said(remark))


def _weights_in(source: Path, allow_pickle: bool) -> Path:
    """The one file of weights in a folder; safetensors before pickles."""
    patterns = ("*.safetensors", *PICKLES) if allow_pickle else ("*.safetensors",)
    files = [file for pattern in patterns for file in sorted(source.glob(pattern))]
    safe = [file for file in files if file.suffix == ".safetensors"]
    files = safe or files
    usual = [file for name in (WEIGHTS_FILE, hub.PICKLED_FILE) for file in files if file.name == name]
    if len(files) != 1 and not usual:
        held = sorted(file.name for pattern in PICKLES for file in source.glob(pattern))
        if held and not files:
            raise ConfigError(
                f"{source} holds no safetensors file, but {', '.join(held)}",
                where=str(source),
                fix="set model.allow_pickle: true to read it without executing code, or convert it",
            )
        if not files:
            raise ConfigError(
                f"{source} holds a config and no weights",
                where=str(source),
                fix=f"put them beside it, as {WEIGHTS_FILE}",
            )
        what = "safetensors files" if safe else "pickles"
        raise ConfigError(
            f"{source} holds {len(files)} {what}",
            where=str(source),
            fix=f"name one of them {hub.PICKLED_FILE if what == 'pickles' else WEIGHTS_FILE}",
        )
    return (usual or files)[0]


def _from_hub(model: ModelParams, repository: str, folder: Path) -> Resolved:
    _refuse_tag(model)
    if model.path != NO_PATH:
        raise ConfigError(
            "a repository is downloaded, model.path would not be used",
            where=_PATH,
            fix=f"set it to {NO_PATH}, or use model.name: {LOCAL_DIR}<folder>",
        )
    config = read_config(hub.fetch(repository, [CONFIG_FILE], None))
    stated, remark = preprocessing.of_config(model, config)
    written = _write_config(config, stated, folder)
    hub.fetch_tokenizer(config["model_cfg"], folder)
    _require_working(written, folder)
    pin = pins.of_repository(repository)
    weights = _fetch(repository, hub.candidates("", model.allow_pickle), pin)
    checkpoint.place(weights, folder, model.allow_pickle)
    return Resolved(f"{HF_HUB}{repository}", hub.revision_of(weights), _said(remark))


def _from_architecture(model: ModelParams, folder: Path) -> Resolved:
    architecture = registry.architecture_of(model.name)
    is_random = model.pretrained is None and model.path == NO_PATH
    tag: Mapping[str, Any] = {}
    about_activation = ""
    if model.pretrained is not None:
        tag = registry.tag_config(model, architecture)
        stated, remark = preprocessing.of_tag(model, tag)
        about_activation = registry.tag_remark(model.name, architecture, tag)
    elif is_random:
        stated, remark = preprocessing.of_random(model)
    else:
        _require_file(model)
        about_activation = registry.activation_remark(model.name, architecture)
        stated, remark = preprocessing.of_architecture(model)
    config = _write_config({"model_cfg": architecture}, stated, folder)
    hub.fetch_tokenizer(architecture, folder)
    _require_working(config, folder)
    if is_random:
        checkpoint.place_random(folder, model.seed)
        return Resolved(f"{RANDOM}, seed {model.seed}", "", _said(remark))
    pin = pins.of_tag(model.name, model.pretrained)
    if model.path != NO_PATH:
        weights = _require_file(model)
        if pin:
            pins.check(pin, f"{model.name} {model.pretrained}", weights)
        resolved = Resolved(str(weights), "")
    else:
        weights, resolved = _download_tag(model, tag, pin)
    checkpoint.place(weights, folder, model.allow_pickle)
    return replace(resolved, remarks=_said(remark, about_activation))


def _require_file(model: ModelParams) -> Path:
    weights = Path(model.path)
    if not weights.is_file():
        fix = f"give a weights file, or set model.name: {LOCAL_DIR}<folder>"
        refuse_folder(weights, where=_PATH, what=f"{weights} is not a file", fix=fix)
    return weights


def _write_config(config: Mapping[str, Any], preprocess: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write the config of a model as it is loaded from `folder`, and give it back."""
    architecture = hub.with_text_config(config["model_cfg"], folder)
    written = {**config, "model_cfg": architecture}
    written["preprocess_cfg"] = {**(config.get("preprocess_cfg") or {}), **preprocess}
    write_json(folder / CONFIG_FILE, written)
    return written


def _require_working(config: Mapping[str, Any], folder: Path) -> None:
    """Before the weights, which may be large: packages and tokenizer."""
    proof.require_packages(config, folder)
    proof.tokenizer_works(config, folder)


def _said(*remarks: str) -> tuple[str, ...]:
    return tuple(remark for remark in remarks if remark)


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
    weights = _fetch(repository, hub.candidates(filename, model.allow_pickle), pin)
    return weights, Resolved(f"{HF_HUB}{repository}", hub.revision_of(weights))


def _fetch(repository: str, names: list[str], pin: Pin | None) -> Path:
    if pin is None:
        return hub.fetch(repository, names, None)
    # A wrong file must not become the trusted one.
    return hub.fetch(repository, names, pin.revision, check=partial(pins.check, pin))
