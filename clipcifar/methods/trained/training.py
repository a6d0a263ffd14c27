"""Training a small head on cached embeddings, with early stopping on val.

All tensors live on the device; an epoch is a permutation of rows, not a data loader.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from clipcifar.backbone import device as devices
from clipcifar.backbone.params import DeviceName
from clipcifar.core.errors import ConfigError
from clipcifar.core.params import MAX_SEED, Range
from clipcifar.methods.trained.adamw import AdamW

_EVALUATION_ROWS = 16_384  # bounds the memory of hidden layers, not a knob


@dataclass(frozen=True)
class TrainingParams:
    """The `mlp_probe` and `projection` sections; `hidden` is the width of the hidden layer."""

    hidden: Annotated[int, Range(1)]
    dropout: Annotated[float, Range(0, 0.95)]
    learning_rate: Annotated[float, Range(1e-8, 10)]
    weight_decay: Annotated[float, Range(0, 100)]
    batch_size: Annotated[int, Range(1)]
    max_epochs: Annotated[int, Range(1)]
    patience: Annotated[int, Range(1)]
    seeds: Annotated[tuple[int, ...], Range(0, MAX_SEED)]
    device: DeviceName

    def __post_init__(self) -> None:
        if len(set(self.seeds)) != len(self.seeds):
            raise ConfigError(
                f"a seed occurs twice in {list(self.seeds)}", where="params.yaml", fix="keep one"
            )


@dataclass(frozen=True)
class Labelled:
    """Rows to train or select on, on the device: (N, D) float32 and (N,) int64."""

    embeddings: torch.Tensor
    labels: torch.Tensor

    @classmethod
    def on(cls, device: torch.device, embeddings: NDArray[np.float32], labels: NDArray[np.int64]) -> Labelled:
        return cls(torch.from_numpy(embeddings).to(device), torch.from_numpy(labels).to(device))


@dataclass(frozen=True)
class Epoch:
    """One point of a training curve; epoch 0 is the untrained head."""

    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float


@dataclass(frozen=True)
class Run:
    """One seed's training: the curve, the epoch chosen on val, and the head's state at that epoch."""

    seed: int
    curve: list[Epoch]
    best: Epoch
    state: dict[str, Any]


@torch.inference_mode()
def scores(head: torch.nn.Module, embeddings: torch.Tensor) -> torch.Tensor:
    """The logits of a head in evaluation mode, (N, D) -> (N, C)."""
    head.eval()
    return torch.cat([head(rows) for rows in torch.split(embeddings, _EVALUATION_ROWS)])


def _evaluate(head: torch.nn.Module, data: Labelled) -> tuple[float, float]:
    """(cross-entropy in nats per row, accuracy)."""
    logits = scores(head, data.embeddings)
    correct = (logits.argmax(dim=1) == data.labels).float().mean()
    return float(F.cross_entropy(logits, data.labels)), float(correct)


def better(candidate: Epoch, incumbent: Epoch) -> bool:
    """Higher val accuracy wins; of equals, lower val loss. An epoch that diverged never wins."""
    if not (math.isfinite(candidate.val_loss) and math.isfinite(incumbent.val_loss)):
        return math.isfinite(candidate.val_loss)
    return (candidate.val_accuracy, -candidate.val_loss) > (incumbent.val_accuracy, -incumbent.val_loss)


def train(
    build: Callable[[], torch.nn.Module],
    train_data: Labelled,
    val_data: Labelled,
    *,
    params: TrainingParams,
    seed: int,
    on_epoch: Callable[[], object] = lambda: None,
) -> Run:
    """Train one head with AdamW until val has not improved for `patience` epochs.

    Args:
        build: makes the untrained head on the data's device; called once, after seeding.
        train_data: rows to learn from.
        val_data: rows to choose the epoch by.
        seed: of the initial weights, the dropout and the order of rows.
        on_epoch: called after each epoch.
    """
    devices.make_deterministic(seed)
    head = build()
    optimiser = AdamW(head.parameters(), learning_rate=params.learning_rate, weight_decay=params.weight_decay)
    order = torch.Generator().manual_seed(seed)
    train_loss, _ = _evaluate(head, train_data)
    best = Epoch(0, train_loss, *_evaluate(head, val_data))
    curve, state = [best], copy.deepcopy(head.state_dict())
    while len(curve) <= params.max_epochs and len(curve) <= best.epoch + params.patience:
        head.train()
        total = torch.zeros((), device=train_data.labels.device)
        for rows in torch.split(torch.randperm(len(train_data.labels), generator=order), params.batch_size):
            rows = rows.to(train_data.labels.device)
            loss = F.cross_entropy(head(train_data.embeddings[rows]), train_data.labels[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += loss.detach() * len(rows)
        epoch = Epoch(len(curve), float(total) / len(train_data.labels), *_evaluate(head, val_data))
        curve.append(epoch)
        if better(epoch, best):
            best, state = epoch, copy.deepcopy(head.state_dict())
        on_epoch()
    return Run(seed, curve, best, state)
