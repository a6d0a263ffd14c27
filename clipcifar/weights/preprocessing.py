"""With which preprocessing weights take images: stated, agreed on or asked for, never guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import open_clip

from clipcifar.backbone.preprocess import Preprocess
from clipcifar.core.errors import ConfigError, DataError
from clipcifar.core.files import canonical_json
from clipcifar.core.params import check_keys, suggestion
from clipcifar.store.model import CONFIG_FILE, HF_HUB, LOCAL_DIR, ModelParams, known_as
from clipcifar.weights.registry import tags_of

KEYS = ("mean", "std", "interpolation", "resize_mode")
_WHERE = "params.yaml: model.preprocess"
_FIX = (
    "set it to the tag whose preprocessing the weights were trained with, as <architecture>:<tag>, or to a "
    "mapping of mean, std, interpolation (bicubic or bilinear) and resize_mode (shortest, longest or squash)"
)
Settled = tuple[dict[str, Any], str]  # open_clip's preprocess_cfg, and a remark for a person or nothing


def of_tag(model: ModelParams, tag: Mapping[str, Any]) -> Settled:
    """What a tag says; ConfigError where params.yaml says otherwise."""
    stated = _known_keys(tag)
    _refuse_other(model, stated, says=f"the tag {model.pretrained}")
    return stated, ""


def of_config(model: ModelParams, config: Mapping[str, Any]) -> Settled:
    """What a config in open_clip's format says, completed by params.yaml, then by the format's defaults.

    Raises:
        ConfigError: mean is given without std or the other way round, or params.yaml says otherwise.
        DataError: images cannot be prepared so.
    """
    stated = _known_keys(config.get("preprocess_cfg") or {})
    _refuse_other(model, stated, says=f"the config of {model.name}")
    asked = asked_for(model) or {}
    if len(lacking := [key for key in ("mean", "std") if key not in {**asked, **stated}]) == 1:
        raise ConfigError(
            f"the config of {model.name} states no {lacking[0]} in preprocess_cfg", where=_WHERE, fix=_FIX
        )
    try:
        _require_readable({**asked, **stated})
    except DataError as error:
        error.where, error.fix = f"{model.name}: {CONFIG_FILE}: preprocess_cfg", "mend it there"
        raise
    added = [key for key in asked if key not in stated]
    left = [key for key in KEYS if key not in {**asked, **stated}]
    said = [f"{', '.join(added)} of model.preprocess"] * bool(added)
    said += [f"{', '.join(left)} as open_clip's default, where its config states none"] * bool(left)
    return {**asked, **stated}, f"preprocessing: {'; '.join(said)}" if said else ""


def of_architecture(model: ModelParams) -> Settled:
    """What all tags of an architecture agree on, or params.yaml says, for weights of one's own.

    Raises:
        ConfigError: the tags disagree or there is none, and params.yaml says nothing.
    """
    if asked := asked_for(model):
        return asked, f"preprocessing: model.preprocess, {_named(model)}"
    kinds: dict[str, list[str]] = {}
    for tag, config in tags_of(model.name).items():
        kinds.setdefault(canonical_json(_in_full(config)), []).append(tag)
    if len(kinds) == 1:
        tags = next(iter(kinds.values()))
        agreed = {key: value for key, value in tags_of(model.name)[tags[0]].items() if key in KEYS}
        return agreed, f"preprocessing: that of {model.name}'s known weights ({', '.join(tags)})"
    if kinds:
        lists = "; ".join(", ".join(tags) for tags in kinds.values())
        what = f"the known weights of {model.name} have {len(kinds)} kinds of preprocessing: {lists}"
    else:
        what = f"open_clip knows no weights of {model.name} whose preprocessing could be taken"
    raise ConfigError(what, where=_WHERE, fix=_FIX)


def of_random(model: ModelParams) -> Settled:
    """Of weights that were never trained: open_clip's defaults, unless params.yaml says something."""
    if asked := asked_for(model):
        return asked, f"preprocessing: model.preprocess, {_named(model)}"
    return {}, "preprocessing: open_clip's default, for random weights"


def asked_for(model: ModelParams) -> dict[str, Any] | None:
    """What `model.preprocess` states, checked; None where it is null."""
    asked = model.preprocess
    if asked is None:
        return None
    if isinstance(asked, str):
        return _of_named_tag(model, asked)
    check_keys(asked, KEYS, where=_WHERE)
    try:
        _require_readable(asked)
    except DataError as error:
        raise ConfigError(error.what, where=_WHERE, fix=_FIX) from error
    return asked


def _require_readable(config: Mapping[str, Any]) -> None:
    Preprocess.from_config({**_in_full(config), "size": 1})


def _of_named_tag(model: ModelParams, asked: str) -> dict[str, Any]:
    name, _, tag = asked.rpartition(":")
    name, tag = known_as(name or model.name, tag)
    known = tags_of(name)
    if tag not in known:
        own = not name.startswith((LOCAL_DIR, HF_HUB))
        raise ConfigError(
            f"open_clip has no weights {asked!r}",
            where=_WHERE,
            fix=suggestion(tag, known) if own and known else _FIX,
        )
    return {key: value for key, value in known[tag].items() if key in KEYS}


def _named(model: ModelParams) -> str:
    return model.preprocess if isinstance(model.preprocess, str) else "a mapping"


def _refuse_other(model: ModelParams, stated: Mapping[str, Any], *, says: str) -> None:
    asked = asked_for(model) or {}
    for key in asked.keys() & stated.keys():
        if _listed(asked[key]) != _listed(stated[key]):
            raise ConfigError(
                f"{says} states {key} {_listed(stated[key])}, model.preprocess {_listed(asked[key])}",
                where=_WHERE,
                fix="set it to null",
            )


def _known_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a tag or config open_clip would take."""
    known = asdict(open_clip.transform.PreprocessCfg())
    return {key: value for key, value in config.items() if key in known and value is not None}


def _in_full(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same with open_clip's defaults, but for the size, which is the architecture's."""
    full: dict[str, Any] = open_clip.transform.merge_preprocess_dict(
        open_clip.transform.PreprocessCfg(), dict(config)
    )
    return {key: value for key, value in full.items() if key != "size"}


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
