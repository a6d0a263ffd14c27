"""AdamW by torch's own arithmetic, without `torch.optim.Optimizer`.

The class imports torch's compiler on its first call, over a second that every training stage would
wait for; the function that it calls does not.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.optim.adamw import adamw


class AdamW:
    """Decoupled weight decay (Loshchilov and Hutter 2019), torch's defaults for all that is not named here.

    Args:
        parameters: float32 leaves, on one device.
        learning_rate, weight_decay: as `torch.optim.AdamW` has them.
    """

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], *, learning_rate: float, weight_decay: float
    ) -> None:
        self._parameters = list(parameters)
        self._learning_rate, self._weight_decay = learning_rate, weight_decay
        self._means = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._steps = [torch.zeros((), device=parameter.device) for parameter in self._parameters]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        held = [i for i, parameter in enumerate(self._parameters) if parameter.grad is not None]
        adamw(
            [self._parameters[i] for i in held],
            [gradient for i in held if (gradient := self._parameters[i].grad) is not None],
            [self._means[i] for i in held],
            [self._squares[i] for i in held],
            [],
            [self._steps[i] for i in held],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self._learning_rate,
            weight_decay=self._weight_decay,
            eps=1e-8,
            maximize=False,
        )
