"""Training a small head on cached embeddings, with early stopping on val.

All tensors live on the device; an epoch is a permutation of rows, not a data loader.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from clipcifar.backbone.device import make_deterministic
from clipcifar.backbone.params import DeviceName
from clipcifar.core.errors import ConfigError
from clipcifar.core.params import MAX_SEED, Range
from clipcifar.methods.trained.adamw import AdamW
from clipcifar.store.rows import Embeddings, blocks_of

Head = TypeVar("Head", bound=torch.nn.Module)
_EVALUATION_ROWS = 16_384  # bounds the memory of hidden layers, not a knob


@dataclass(frozen=True)
class TrainingParams:
    """The `mlp_probe` and `projection` sections; `hidden` is the width of the hidden layer.

    Of more train or val rows than `max_rows`, as many are drawn (`splits.drawn`); None for all.
    """

    hidden: Annotated[int, Range(1)]
    dropout: Annotated[float, Range(0, 0.95)]
    learning_rate: Annotated[float, Range(1e-8, 10)]
    weight_decay: Annotated[float, Range(0, 100)]
    batch_size: Annotated[int, Range(1)]
    max_epochs: Annotated[int, Range(1)]
    patience: Annotated[int, Range(1)]
    seeds: Annotated[tuple[int, ...], Range(0, MAX_SEED)]
    device: DeviceName
    max_rows: Annotated[int | None, Range(1)] = 1_000_000

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
    """One seed's training: the curve, and the head's state at the epoch that val chose."""

    seed: int
    curve: list[Epoch]
    state: dict[str, Any]

    @property
    def best(self) -> Epoch:
        """The epoch that val chose."""
        return best(self.curve)


@torch.inference_mode()
def scores(head: torch.nn.Module, embeddings: torch.Tensor) -> torch.Tensor:
    """The logits of a head in evaluation mode, (N, D) -> (N, C)."""
    head.eval()
    return torch.cat([head(rows) for rows in torch.split(embeddings, _EVALUATION_ROWS)])


def scores_of(
    head: torch.nn.Module, embeddings: Embeddings, device: torch.device | str = "cpu"
) -> NDArray[np.float32]:
    """`scores` of rows in memory or in parts, (N, D) -> (N, C) float32; the head is on the device."""
    blocks = (torch.from_numpy(rows).to(device) for _, rows in blocks_of(embeddings))
    return np.concatenate([scores(head, rows).cpu().numpy() for rows in blocks])


def loss_and_accuracy(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Cross-entropy in nats per row, and accuracy, of (n, C) logits against (n,) labels."""
    correct = (logits.argmax(dim=1) == labels).float().mean()
    return float(F.cross_entropy(logits, labels)), float(correct)


def _evaluate(head: torch.nn.Module, data: Labelled) -> tuple[float, float]:
    return loss_and_accuracy(scores(head, data.embeddings), data.labels)


def merit(epoch: Epoch) -> tuple[float, float]:
    """What val chooses by: accuracy, then a lower loss. An epoch that diverged is below all others."""
    return (epoch.val_accuracy, -epoch.val_loss) if math.isfinite(epoch.val_loss) else (-1, 0)


def best(curve: Sequence[Epoch]) -> Epoch:
    """The epoch that val chooses; of equals, the first."""
    return max(curve, key=merit)


def load_arrays(head: Head, arrays: Mapping[str, NDArray[Any]]) -> Head:
    """Give a head the arrays of `arrays_of`; KeyError or RuntimeError where they are not its own."""
    head.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in arrays.items()})
    return head


def arrays_of(state: Mapping[str, torch.Tensor]) -> dict[str, NDArray[Any]]:
    """A module's state as arrays by name."""
    return {name: tensor.cpu().numpy() for name, tensor in state.items()}


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
    make_deterministic(seed)
    head = build()
    optimiser = AdamW(head.parameters(), learning_rate=params.learning_rate, weight_decay=params.weight_decay)
    order = torch.Generator().manual_seed(seed)
    train_loss, _ = _evaluate(head, train_data)
    curve = [Epoch(0, train_loss, *_evaluate(head, val_data))]
    state = copy.deepcopy(head.state_dict())
    while len(curve) <= min(params.max_epochs, best(curve).epoch + params.patience):
        head.train()
        total = torch.zeros((), device=train_data.labels.device)
        shuffled = torch.randperm(len(train_data.labels), generator=order).to(train_data.labels.device)
        for rows in torch.split(shuffled, params.batch_size):
            loss = F.cross_entropy(head(train_data.embeddings[rows]), train_data.labels[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += loss.detach() * len(rows)
        curve.append(Epoch(len(curve), float(total) / len(train_data.labels), *_evaluate(head, val_data)))
        if best(curve) is curve[-1]:
            state = copy.deepcopy(head.state_dict())
        on_epoch()
    return Run(seed, curve, state)
