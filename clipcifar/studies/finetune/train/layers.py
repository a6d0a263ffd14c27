"""The image tower in layers from input to output: which are trained, at what rate, and on what schedule.

Later layers are more particular to what a model was trained on and may move more, so the learning
rate falls by a constant factor from each layer to the one before (Clark et al. 2020,
https://arxiv.org/abs/2003.10555; Dong et al. 2022, https://arxiv.org/abs/2212.06138, for CLIP).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from clipcifar.core.counts import count_of
from clipcifar.core.errors import ConfigError

_RESNET_STAGES = ("layer1", "layer2", "layer3", "layer4")
_STEMS = ("conv", "bn", "class_embedding", "positional_embedding", "ln_pre", "patch")


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        name: "input", "block 1" and so on, or "output".
        depth: 0 for what follows the last block, 1 for the last block, and so on to the input.
        parameters: by name within the tower.
    """

    name: str
    depth: int
    parameters: dict[str, nn.Parameter]


def layers(visual: nn.Module) -> list[Layer]:
    """The layers of a tower, from input to output; each of its trainable parameters is in one.

    A vision transformer's blocks are its residual blocks, a ResNet's its four stages. Any other tower
    is one block.
    """
    blocks = _block_prefixes(visual)
    by_position: list[dict[str, nn.Parameter]] = [{} for _ in range(len(blocks) + 2)]
    for name, parameter in visual.named_parameters():
        if parameter.requires_grad:  # not where open_clip has a fixed one
            by_position[_position(name, blocks)][name] = parameter
    names = ["input", *(f"block {i}" for i in range(1, len(blocks) + 1)), "output"]
    last = len(by_position) - 1
    listed = [Layer(names[i], last - i, parameters) for i, parameters in enumerate(by_position)]
    return [layer for layer in listed if layer.parameters]


def _block_prefixes(visual: nn.Module) -> list[str]:
    """What the names of a block's parameters begin with, block by block; [""] for an unknown tower."""
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if isinstance(blocks, nn.ModuleList):
        return [f"transformer.resblocks.{i}." for i in range(len(blocks))]
    if all(isinstance(getattr(visual, stage, None), nn.Sequential) for stage in _RESNET_STAGES):
        return [f"{stage}." for stage in _RESNET_STAGES]
    return [""]


def _position(name: str, blocks: list[str]) -> int:
    for i, prefix in enumerate(blocks, start=1):
        if name.startswith(prefix):
            return i
    return 0 if name.startswith(_STEMS) else len(blocks) + 1


def unfreeze(visual: nn.Module, blocks: int | None) -> list[Layer]:
    """Freeze the tower but for its last blocks and what follows them; returns the layers left to train.

    Args:
        blocks: how many; None for the whole tower, 0 for nothing.

    Raises:
        ConfigError: the tower has fewer blocks, or none that are known.
    """
    everything, known = layers(visual), _block_prefixes(visual)
    where = "params.yaml: finetune.unfrozen_blocks"
    if blocks and known == [""]:
        raise ConfigError(
            "the blocks of this image tower are not known",
            where=where,
            fix="set null for the whole tower, or 0 for the head alone",
        )
    if blocks is not None and blocks > len(known):
        raise ConfigError(
            f"the tower has {count_of(len(known), 'block')}, {blocks} are asked for",
            where=where,
            fix="set null for the whole tower",
        )
    deepest = len(known) + 1 if blocks is None else blocks
    trained = [layer for layer in everything if blocks != 0 and layer.depth <= deepest]
    visual.requires_grad_(False)
    for layer in trained:
        for parameter in layer.parameters.values():
            parameter.requires_grad_(True)
    return trained


def schedule(step: int, *, steps: int, warmup: float) -> float:
    """The factor on every learning rate: linear warm-up to 1, then half a cosine to 0.

    Args:
        step: 1 for the first step, `steps` for the last.
        warmup: steps of it, 0 to `steps`.

    >>> [round(schedule(step, steps=6, warmup=2), 3) for step in range(1, 7)]
    [0.5, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def build_optimiser(
    layers: Iterable[Layer],
    head: nn.Module,
    *,
    learning_rate: float,
    layer_decay: float,
    weight_decay: float,
) -> torch.optim.AdamW:
    """The optimiser of a tower's layers and of the head, whose rate is that of depth 0.

    Each group holds its own full rate as `peak`, which the schedule scales. Weights decay in
    matrices and filters alone: of biases and of a norm's scales there are few, and zero is not where
    they belong.
    """
    groups: list[dict[str, Any]] = []
    sets = [(layer.depth, list(layer.parameters.values())) for layer in layers]
    for depth, parameters in [*sets, (0, list(head.parameters()))]:
        peak = learning_rate * layer_decay**depth
        for decayed in (True, False):
            members = [parameter for parameter in parameters if (parameter.dim() > 1) == decayed]
            if members:
                decay = weight_decay if decayed else 0.0
                groups.append({"params": members, "lr": peak, "peak": peak, "weight_decay": decay})
    return torch.optim.AdamW(groups, fused=True)


def set_rates(optimiser: torch.optim.AdamW, factor: float) -> None:
    """Set every group's rate to `factor` of its full one."""
    for group in optimiser.param_groups:
        group["lr"] = factor * group["peak"]
