"""The image tower and the MLP probe's head trained together, from where the frozen probe ended.

A new head's first gradients would distort the tower's features before the head knows what to ask of
them; so the head begins as the trained probe (Kumar et al. 2022, https://arxiv.org/abs/2202.10054).
Epoch 0 is the frozen probe itself, and val chooses among it and the epochs after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from torch.amp.grad_scaler import GradScaler

from clipcifar.backbone import device as devices
from clipcifar.core.files import sha256_of
from clipcifar.core.progress import progress
from clipcifar.methods.trained.training import Epoch, best, loss_and_accuracy
from clipcifar.studies.finetune.params import FinetuneParams
from clipcifar.studies.finetune.train import optimiser as optimisers
from clipcifar.studies.finetune.train.augment import augment, draw
from clipcifar.studies.finetune.train.checkpoint import Checkpoints
from clipcifar.studies.finetune.train.pixels import Pixels
from clipcifar.studies.finetune.train.state import TrainingState
from clipcifar.studies.finetune.train.tower import ImageTower


@dataclass(frozen=True)
class Rows:
    """Rows of the official train images, (n,) int64 on the host, and their labels on the device."""

    rows: torch.Tensor
    labels: torch.Tensor

    @classmethod
    def of(cls, rows: NDArray[np.int64], labels: NDArray[np.int64], device: torch.device) -> Rows:
        """Some rows of all the labels, (N,) int64."""
        return cls(torch.from_numpy(rows), torch.from_numpy(labels[rows]).to(device))


class TowerAndHead(nn.Module):
    """(B, 3, H, W) uint8 -> (B, C) logits."""

    def __init__(self, tower: ImageTower, head: nn.Module) -> None:
        super().__init__()
        self.tower, self.head = tower, head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.tower(images))
        return logits


@torch.no_grad()
def scores(model: nn.Module, pixels: Pixels, rows: torch.Tensor, *, batch_size: int) -> torch.Tensor:
    """The logits of (n,) rows of images in evaluation mode, (n, C) float32 on the device."""
    model.eval()
    with devices.out_of_memory_explained("finetune.batch_size"):
        return torch.cat([model(images) for images in pixels.batches(torch.split(rows, batch_size))])


def train(
    model: TowerAndHead,
    optimiser: torch.optim.AdamW,
    pixels: Pixels,
    train_data: Rows,
    val_data: Rows,
    *,
    start: Epoch,
    params: FinetuneParams,
    checkpoints: Checkpoints,
) -> list[Epoch]:
    """Train until val has not improved for `patience` epochs; the model is left as val chose it.

    Every epoch draws from seeds of its own, and a checkpoint follows it. So a run that was killed
    goes on after its last finished epoch and ends with the bits of one that was not.

    Args:
        model: as it begins, the layers to train unfrozen; on the device.
        optimiser: of those layers and the head.
        pixels: the official train images.
        start: epoch 0.
        checkpoints: where finished epochs are kept; the caller holds its lock.

    Returns:
        The curve, epoch 0 first; the model is that of the best of them.
    """
    scaler = devices.gradient_scaler(train_data.labels.device, params.precision)
    state = TrainingState(model, optimiser, scaler, checkpoints, start)
    n = len(train_data.rows)
    with (
        devices.out_of_memory_explained("finetune.batch_size"),
        progress(
            total=n * params.epochs, initial=n * (len(state.curve) - 1), unit="images", what="fine-tuning"
        ) as bar,
    ):
        while len(state.curve) <= min(params.epochs, best(state.curve).epoch + params.patience):
            number = len(state.curve)
            loss = _epoch(
                model,
                optimiser,
                scaler,
                pixels,
                train_data,
                number=number,
                params=params,
                on_images=bar.update,
            )
            on_val = scores(model, pixels, val_data.rows, batch_size=params.batch_size)
            state.finish(Epoch(number, loss, *loss_and_accuracy(on_val, val_data.labels)))
    state.restore_best()
    return state.curve


def _epoch(
    model: TowerAndHead,
    optimiser: torch.optim.AdamW,
    scaler: GradScaler,
    pixels: Pixels,
    data: Rows,
    *,
    number: int,
    params: FinetuneParams,
    on_images: Callable[[int], object],
) -> float:
    """Train on every image once; returns the mean cross-entropy in nats, as it was met on the way."""
    seed = int(sha256_of([params.seed, number])[:15], 16)
    devices.make_deterministic(seed)
    generator, n = torch.Generator().manual_seed(seed), len(data.rows)
    order, numbers = torch.randperm(n, generator=generator), draw(n, generator)
    steps = torch.split(torch.arange(n), params.batch_size * params.accumulate)
    passes = [(part, step) for step in steps for part in torch.split(step, params.batch_size)]
    taken, warmup = (number - 1) * len(steps), params.warmup_epochs * len(steps)
    model.train()
    total = torch.zeros((), device=data.labels.device)
    batches = pixels.batches([data.rows[order[part]] for part, _ in passes])
    for (part, step), images in zip(passes, batches, strict=True):
        images = augment(
            images, numbers[part], crop=params.crop, smallest_crop=params.smallest_crop, flip=params.flip
        )
        labels = data.labels[order[part].to(data.labels.device)]
        loss = F.cross_entropy(model(images), labels, reduction="sum") / len(step)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        total += loss.detach() * len(step)
        if part[-1] == step[-1]:
            taken += 1
            optimisers.set_rates(
                optimiser,
                optimisers.schedule(taken, steps=params.epochs * len(steps), warmup=warmup),
            )
            scaler.step(optimiser)
            scaler.update()
            optimiser.zero_grad()
        on_images(len(part))
    return float(total) / n
