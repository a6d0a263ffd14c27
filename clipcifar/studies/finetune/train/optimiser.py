"""AdamW with a rate for each layer, and the schedule of those rates."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from clipcifar.studies.finetune.train.layers import Layer


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


def build(
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
