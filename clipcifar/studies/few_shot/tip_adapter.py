"""Tip-Adapter: labelled images as the keys of a cache whose votes are added to the zero-shot logits.

Zhang et al. 2022, "Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification" (ECCV),
https://arxiv.org/abs/2207.09519. With keys F and their labels as one-hot rows L, the logits of an
image x are the zero-shot logits plus alpha exp(-beta (1 - x F^T)) L. Here the votes of a class are divided
by the mean number of keys per class, so that one grid of alpha serves every size of cache: our alpha is
the paper's times that number. Tip-Adapter-F then learns the keys. NumPy alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcifar.studies.few_shot.shots import Examples

_BLOCK_NUMBERS = 2**24  # affinities held at once
# What the authors' code trains with, save their weight decay, which is negligible at this rate.
_ADAM_MEAN, _ADAM_SQUARE, _ADAM_EPSILON = 0.9, 0.999, 1e-4


class Mix(NamedTuple):
    """Sharpness beta of the votes, and their weight alpha beside the zero-shot logits."""

    sharpness: float
    weight: float


@dataclass(frozen=True)
class Cache:
    """Keys (M, D) float32, their labels (M,) int64, and the number of classes C."""

    keys: NDArray[np.float32]
    labels: NDArray[np.int64]
    num_classes: int

    @property
    def values(self) -> NDArray[np.float32]:
        """(M, C) float32: one-hot rows divided by the mean number of keys per class."""
        one_hot = np.eye(self.num_classes, dtype=np.float32)[self.labels]
        return one_hot * np.float32(self.num_classes / len(self.labels))

    def votes(self, images: NDArray[np.float32], *, sharpness: float) -> NDArray[np.float32]:
        """(N, C) float32 votes for (N, D) unit rows, computed in blocks of images."""
        return self.votes_by_sharpness(images, (sharpness,))[0]

    def votes_by_sharpness(
        self, images: NDArray[np.float32], grid: tuple[float, ...]
    ) -> list[NDArray[np.float32]]:
        """The same for every sharpness of a grid, from one product of images and keys."""
        by_sharpness = [np.empty((len(images), self.num_classes), np.float32) for _ in grid]
        values, rows = self.values, max(1, _BLOCK_NUMBERS // len(self.keys))
        for first in range(0, len(images), rows):
            block = slice(first, first + rows)
            nearness = images[block] @ self.keys.T - 1
            for votes, sharpness in zip(by_sharpness, grid, strict=True):
                votes[block] = np.exp(np.float32(sharpness) * nearness) @ values
        return by_sharpness

    def logits(
        self, images: NDArray[np.float32], zero_shot: NDArray[np.float32], mix: Mix
    ) -> NDArray[np.float32]:
        """(N, C) logits of (N, D) unit rows whose zero-shot logits are (N, C)."""
        return self.logits_by_mix(images, zero_shot, [mix])[0]

    def logits_by_mix(
        self, images: NDArray[np.float32], zero_shot: NDArray[np.float32], mixes: Sequence[Mix]
    ) -> list[NDArray[np.float32]]:
        """The same for every one of several mixes; one without weight is zero-shot, bit for bit."""
        grid = tuple(dict.fromkeys(mix.sharpness for mix in mixes if mix.weight))
        votes = dict(zip(grid, self.votes_by_sharpness(images, grid), strict=True)) if grid else {}
        return [
            zero_shot + np.float32(mix.weight) * votes[mix.sharpness] if mix.weight else zero_shot
            for mix in mixes
        ]


def asking(sharpness: Sequence[float], weights: Sequence[float]) -> list[Mix]:
    """The mixes of both grids in which the cache has weight, beta varying slowest."""
    return [Mix(beta, alpha) for beta in sharpness for alpha in weights if alpha > 0]


def loss_and_gradient(cache: Cache, train: Examples, mix: Mix) -> tuple[float, NDArray[np.float32]]:
    """Mean cross-entropy of N images in nats, and its gradient by the keys, (M, D).

    With affinities A = exp(beta (x F^T - 1)), values V and g = softmax - one-hot:
    dLoss/dF = alpha beta / N (A * (g V^T))^T x.
    """
    values, beta, alpha = cache.values, np.float32(mix.sharpness), np.float32(mix.weight)
    affinities = np.exp(beta * (train.embeddings @ cache.keys.T - 1))
    scores = train.zero_shot + alpha * (affinities @ values)
    scores -= scores.max(axis=1, keepdims=True)
    positions = np.arange(len(train.labels))
    of_labels = scores[positions, train.labels]
    np.exp(scores, out=scores)
    totals = scores.sum(axis=1)
    residual = scores / totals[:, None]
    residual[positions, train.labels] -= 1
    gradient = (affinities * (residual @ values.T)).T @ train.embeddings
    return float((np.log(totals) - of_labels).mean()), gradient * (alpha * beta / np.float32(len(positions)))


def finetuned(
    cache: Cache,
    train: Examples,
    mix: Mix,
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
) -> Iterator[Cache]:
    """Tip-Adapter-F: the cache after each epoch of Adam on the keys, the rate falling along a cosine to zero.

    Args:
        mix: held while the keys are learnt; its weight is not 0.
        seed: of the order of images.
    """
    keys, rng = cache.keys.astype(np.float32, copy=True), np.random.default_rng(seed)
    mean, square, step = np.zeros_like(keys), np.zeros_like(keys), 0
    steps = epochs * -(-len(train.labels) // batch_size)
    for _ in range(epochs):
        order = rng.permutation(len(train.labels))
        for rows in (order[first : first + batch_size] for first in range(0, len(order), batch_size)):
            current = Cache(keys, cache.labels, cache.num_classes)
            _, gradient = loss_and_gradient(current, train.part(rows), mix)
            rate = learning_rate * (1 + np.cos(np.pi * step / steps)) / 2
            step += 1
            mean += (1 - _ADAM_MEAN) * (gradient - mean)
            square += (1 - _ADAM_SQUARE) * (gradient**2 - square)
            size = np.sqrt(square / (1 - _ADAM_SQUARE**step)) + _ADAM_EPSILON
            keys = keys - np.float32(rate / (1 - _ADAM_MEAN**step)) * (mean / size).astype(np.float32)
        yield Cache(keys, cache.labels, cache.num_classes)
