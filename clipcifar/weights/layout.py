"""Which tensor is which: names of checkpoints of others to those of open_clip, where there is no doubt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from clipcifar.core.errors import DataError

Tensors = dict[str, torch.Tensor]
_CONTAINERS = 3  # how deep a state dict may lie in a training checkpoint
_OF_TRAINING = ("opt", "scaler", "scheduler", "lr_scheduler", "amp")
# What trainers put before every name: DDP, torch.compile, Lightning and other wrappers.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "clip.", "clip_model.", "net.")
_NO_WEIGHTS = {"input_resolution", "context_length", "vocab_size"}  # numbers in OpenAI's archives
_LAYER = re.compile(r"(text|vision)_model\.encoder\.layers\.(\d+)\.(.+)")
_EXPECTED = "visual.…, transformer.… or text.…, logit_scale"


def state_dict_in(content: Any, path: Path) -> Tensors:
    """The one state dict in what `torch.load` has read, of which a training checkpoint may hold more.

    Raises:
        DataError: there is none, or more than one.
    """
    places = dict(_state_dicts(content, "", _CONTAINERS))
    if len(places) == 1:
        return next(iter(places.values()))
    if places:
        first = "".join(f"[{key!r}]" for key in next(iter(places)).split("."))
        raise DataError(
            f"{path.name} holds more than one state dict: {', '.join(places)}",
            where=str(path),
            fix="keep the one that you mean, such as: "
            f"torch.save(torch.load({path.name!r}, weights_only=True){first}, 'w.pt')",
        )
    held = ", ".join(map(str, content)) if isinstance(content, Mapping) else f"a {type(content).__name__}"
    raise DataError(
        f"{path.name} holds no state dict, names with their tensors, but {held[:200] or 'nothing'}",
        where=str(path),
        fix="save it with torch.save(model.state_dict(), 'w.pt')",
    )


def _state_dicts(content: Any, place: str, depth: int) -> Iterator[tuple[str, Tensors]]:
    """Every mapping of dotted names to tensors, by where it lies; what belongs to an optimizer is none."""
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        return
    tensors = {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if any("." in key for key in tensors):
        yield place or "itself", tensors
    for key, value in content.items() if depth else ():
        if not key.lower().startswith(_OF_TRAINING):
            yield from _state_dicts(value, f"{place}.{key}" if place else key, depth - 1)


def open_clip_names(names: Iterable[str]) -> dict[str, str]:
    """By the name in a file the one that open_clip has for it; what is no weight is left out."""
    renamed = {name: name.replace("_orig_mod.", "") for name in names}
    while renamed and (wrapper := _common_wrapper(renamed.values())):
        renamed = {name: new.removeprefix(wrapper) for name, new in renamed.items()}
    return {name: new for name, new in renamed.items() if new not in _NO_WEIGHTS}


def _common_wrapper(names: Iterable[str]) -> str:
    names = list(names)
    return next((w for w in _WRAPPERS if all(name.startswith(w) for name in names)), "")


def check(names: Iterable[str], path: Path) -> None:
    """Raise DataError unless the names are of a layout that open_clip reads, or `from_transformers`."""
    names = list(names)
    if any("lora_" in name for name in names):
        raise DataError(
            f"{path.name} holds an adapter (LoRA), not a whole model",
            where=str(path),
            fix="merge it into its model (peft: merge_and_unload) and save that",
        )
    towers = ("visual.", "image_encoder.")  # the second is Apple's, which open_clip converts
    if is_transformers(names) or any(name.startswith(towers) for name in names):
        return
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    raise DataError(
        f"{path.name} is not in open_clip's layout: its {len(names)} tensors are called "
        f"{shown or 'nothing'}; expected {_EXPECTED}",
        where=str(path),
        fix="rename them as the state dict of open_clip.create_model(…) calls them, both towers in one file"
        + (
            "; of transformers' models CLIPModel is converted here, of others use the repository in "
            "open_clip's format"
            if any("_model.encoder." in name or "_model.embeddings." in name for name in names)
            else ""
        ),
    )


def is_transformers(names: Iterable[str]) -> bool:
    """Whether the names are those of CLIPModel of transformers, both towers with their projections."""
    return {"visual_projection.weight", "text_projection.weight"} <= set(names)


def from_transformers(tensors: Tensors) -> Tensors:
    """The tensors of transformers' CLIPModel as open_clip calls and lays them out.

    open_clip keeps query, key and value in one matrix, and projections as factors from the right.
    """
    parts: dict[str, list[torch.Tensor]] = {}
    for name in sorted(tensors):
        if not name.endswith("position_ids"):
            parts.setdefault(_from_transformers(name), []).append(tensors[name])
    for name in ("visual.proj", "text_projection"):
        parts[name] = [tensor.T for tensor in parts[name]]
    return {name: _joined(name, tensors) for name, tensors in parts.items()}


def _joined(name: str, parts: list[torch.Tensor]) -> torch.Tensor:
    if "in_proj" not in name:
        return parts[0]
    key, query, value = parts  # as their names are sorted
    return torch.cat([query, key, value])


_OF_A_LAYER = (
    (re.compile(r"self_attn\.[qkv]_proj\."), "attn.in_proj_"),
    (re.compile(r"self_attn\."), "attn."),
    (re.compile(r"layer_norm"), "ln_"),
    (re.compile(r"mlp\.fc1\."), "mlp.c_fc."),
    (re.compile(r"mlp\.fc2\."), "mlp.c_proj."),
)
_SINGLE = {
    "visual_projection.weight": "visual.proj",
    "text_projection.weight": "text_projection",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}


def _from_transformers(name: str) -> str:
    layer = _LAYER.fullmatch(name)
    if layer is None:
        return _SINGLE.get(name, name)
    tower, number, rest = layer.groups()
    for pattern, replacement in _OF_A_LAYER:
        rest, count = pattern.subn(replacement, rest)
        if count:
            break
    return f"{'visual.' if tower == 'vision' else ''}transformer.resblocks.{number}.{rest}"
