"""Dropout whose random numbers cost a CPU next to nothing.

torch draws one Bernoulli number for each value, a quarter of a small head's training time. Here
every 64-bit draw decides four values, by 16 bits each; other devices use torch's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

_LEVELS = 2**16


def _factors(like: torch.Tensor, dropped: int) -> torch.Tensor:
    """float32 factors shaped like a tensor: 0 with probability dropped / 65,536, else what keeps the mean."""
    n = like.numel()
    draws = torch.empty(-(-n // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = draws.view(torch.int16)[:n].view(like.shape)  # uniform over -32,768 ... 32,767
    return (bits >= dropped - _LEVELS // 2).to(torch.float32).mul_(_LEVELS / (_LEVELS - dropped))


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, dropped: int) -> torch.Tensor:
        ctx.factors = _factors(values, dropped)
        out: torch.Tensor = values * ctx.factors
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        passed: torch.Tensor = grad * ctx.factors
        return passed, None


class Dropout(nn.Module):
    """As `torch.nn.Dropout` on float32 values, with p rounded to a multiple of 2 ** -16.

    Args:
        p: the probability of a value to become zero, 0 to 0.95.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        dropped = round(self.p * _LEVELS)
        if not self.training or dropped == 0:
            return values
        if values.device.type != "cpu":
            return F.dropout(values, self.p)
        apply: Callable[..., torch.Tensor] = _Apply.apply  # which torch 2.11 leaves without types
        return apply(values, dropped)
