"""Embeddings without a model: noisy class prototypes on the unit sphere, of few dimensions and classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.files import Attribute
from clipcifar.store import splits
from clipcifar.store.embeddings import ImageEmbeddings, Split
from clipcifar.store.fields import class_names_attribute
from clipcifar.store.splits import TrainVal

CLASSES = ["ant", "bee", "cow"]
DIM = 24
ATTRIBUTES: dict[str, Attribute] = {
    "model": "a-model",
    "pretrained": "a-tag",
    "weights_sha256": "ab" * 32,
    "preprocess": "{}",
    "logit_scale": 20.0,
    "class_names": class_names_attribute(CLASSES),
    "dataset": "synthetic",
    "dataset_digest": "cd" * 32,
    "max_per_class": 0,
}


def unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def prototypes(num_classes: int = len(CLASSES), *, dim: int = DIM, seed: int = 0) -> NDArray[np.float32]:
    """Orthogonal directions, one per class: (C, D) unit rows."""
    square = np.random.default_rng(seed).standard_normal((dim, dim))
    return np.asarray(np.linalg.qr(square)[0][:num_classes], dtype=np.float32)


def around(
    centres: NDArray[np.float32], labels: NDArray[np.int64], *, noise: float, seed: int
) -> NDArray[np.float32]:
    """One unit row per label, near its class's centre; `noise` is the length of what is added."""
    rows = np.random.default_rng(seed).standard_normal((len(labels), centres.shape[1]))
    return unit(centres[labels] + noise * rows / np.sqrt(centres.shape[1]))


def task(
    n: int, *, num_classes: int = len(CLASSES), dim: int = DIM, noise: float = 0.7, seed: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """N rows of balanced classes; equal `dim` and `num_classes` give the same prototypes for every seed."""
    labels = np.random.default_rng(seed).permutation(np.arange(n, dtype=np.int64) % num_classes)
    return around(prototypes(num_classes, dim=dim), labels, noise=noise, seed=seed), labels


def image_embeddings(
    *, n_train: int = 180, n_test: int = 90, noise: float = 1.5, seed: int = 1
) -> ImageEmbeddings:
    """Image embeddings as they come out of a file; `fingerprint` stands for the one the file would have."""
    train, test = (
        Split(*task(n, noise=noise, seed=seed + i), [f"{name}/{row:05d}" for row in range(n)])
        for i, (name, n) in enumerate((("train", n_train), ("test", n_test)))
    )
    return ImageEmbeddings(train, test, {**ATTRIBUTES, "fingerprint": "ef" * 32})


def train_val(images: ImageEmbeddings, *, val_fraction: float = 0.25) -> TrainVal:
    return splits.stratified_split(
        images.train.labels, images.train.ids, class_names=CLASSES, val_fraction=val_fraction, seed=0
    )


def with_test(
    images: ImageEmbeddings,
    *,
    embeddings: NDArray[np.float32] | None = None,
    labels: NDArray[np.int64] | None = None,
) -> ImageEmbeddings:
    """The same images but for the embeddings or labels of the test split."""
    changed = images.test
    if embeddings is not None:
        changed = replace(changed, embeddings=embeddings)
    if labels is not None:
        changed = replace(changed, labels=labels)
    return replace(images, test=changed)
