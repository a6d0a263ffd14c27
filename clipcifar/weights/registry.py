"""What open_clip knows of an architecture and of its tags; which activation goes with which weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import open_clip

from clipcifar.core.errors import ConfigError
from clipcifar.core.params import suggestion
from clipcifar.store.model import LOCAL_DIR, ModelParams, known_as

_QUICK = "-quickgelu"  # what open_clip calls an architecture that it has with the other activation, too

_ACTIVATIONS = {True: "QuickGELU", False: "GELU"}


def architecture_of(name: str) -> dict[str, Any]:
    """The config of an architecture, in every spelling that open_clip takes."""
    config: dict[str, Any] | None = open_clip.get_model_config(known_as(name, "")[0])
    if config is None:
        raise ConfigError(
            f"open_clip has no architecture {name!r}",
            where="params.yaml: model.name",
            fix=suggestion(name, open_clip.list_models()),
        )
    return config


def tags_of(name: str) -> dict[str, dict[str, Any]]:
    """What open_clip says about each tag of an architecture; empty where there is none."""
    name = known_as(name, "")[0]
    return {
        tag: open_clip.get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)
    }


def tag_config(model: ModelParams, architecture: Mapping[str, Any]) -> Mapping[str, Any]:
    """What open_clip knows about the tag that was asked for.

    Raises:
        ConfigError: there is no such tag, or it was trained with the activation of another architecture
            of open_clip. Where there is no other, the architecture's own is right and only the table of
            tags says otherwise.
    """
    name, tag = known_as(model.name, model.pretrained or "")
    config: dict[str, Any] = open_clip.get_pretrained_cfg(name, tag)
    if not config:
        raise ConfigError(
            f"open_clip has no weights {model.pretrained!r} for {model.name}",
            where="params.yaml: model.pretrained",
            fix=_other_tag(name, tag)
            + " For a file of your own set model.path to it and model.pretrained: null.",
        )
    other = _with_activation(name, quick=_is_quick(config))
    if _is_quick(config) != _is_quick(architecture) and other and open_clip.get_pretrained_cfg(other, tag):
        raise ConfigError(
            f"the weights {model.pretrained!r} were trained with another activation than {model.name} has",
            where="params.yaml: model.name",
            fix=f"use {other}",
        )
    return config


def tag_remark(name: str, architecture: Mapping[str, Any], tag: Mapping[str, Any]) -> str:
    """What is to be said of a tag that `tag_config` took although the table of tags disagrees."""
    if _is_quick(tag) == _is_quick(architecture):
        return ""
    return f"activation: {_ACTIVATIONS[_is_quick(architecture)]}, as {name} has it and its tag does not say"


def activation_remark(name: str, architecture: Mapping[str, Any]) -> str:
    """Which activation weights without a tag are read with, and which tags have the other.

    Raises:
        ConfigError: all known weights of the architecture have the other, and it goes by another name.
    """
    name = known_as(name, "")[0]
    quick, tags = _is_quick(architecture), tags_of(name)
    differing = [tag for tag, config in tags.items() if _is_quick(config) != quick]
    other = _with_activation(name, quick=not quick)
    has, lacks = _ACTIVATIONS[quick], _ACTIVATIONS[not quick]
    if differing and len(differing) == len(tags) and other:
        raise ConfigError(
            f"all weights that open_clip knows for {name} were trained with {lacks}, and it has {has}",
            where="params.yaml: model.name",
            fix=f"use {other}; if yours were trained with {has}, put them and their config into a folder "
            f"and use {LOCAL_DIR}<folder>",
        )
    if not differing:
        return ""
    need = f"need {other}" if other else "do not say so, and it goes by no other name"
    return f"activation: {has}, as {name} has it; its tags {', '.join(differing)} {need}"


def _is_quick(config: Mapping[str, Any]) -> bool:
    return bool(config.get("quick_gelu"))


def _with_activation(name: str, *, quick: bool) -> str:
    """What open_clip calls the same architecture with the other activation; empty if nothing."""
    other = name.removesuffix(_QUICK) + (_QUICK if quick else "")
    return other if other != name and other in open_clip.list_models() else ""


def _other_tag(name: str, tag: str) -> str:
    for quick in (False, True):
        other = _with_activation(name, quick=quick)
        if other and open_clip.get_pretrained_cfg(other, tag):
            return f"{other} has them."
    tags = open_clip.list_pretrained_tags_by_model(name)
    return suggestion(tag, tags) if tags else f"it knows none for {name}."
