"""Small made-up embeddings on disk, as the stages leave them: three classes, noisy unit vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.backbone.params import EmbedParams
from clipcifar.core.files import Attribute
from clipcifar.store import container, splits
from clipcifar.store.embeddings import ImageEmbeddings, Split, write_texts
from clipcifar.store.fields import class_names_attribute
from clipcifar.store.images import read_images, write_images

NAMES = ["cat", "dog", "eel"]
DIM = 24
EMBED = EmbedParams("cpu", "fp32", batch_size=16, workers=0, storage="float32")


def unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def prototypes() -> NDArray[np.float32]:
    return unit(np.random.default_rng(99).normal(size=(3, DIM)))


def clusters(*, seed: int, n: int, noise: float = 0.6) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(n, DIM) float32 unit rows and (n,) labels; `noise` is the length of the noise, prototypes have 1."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 3)
    return unit(prototypes()[labels] + rng.normal(size=(n, DIM)) * noise / np.sqrt(DIM)), labels


def written(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    """Those of a file's attributes that its writer was given."""
    return {name: value for name, value in attributes.items() if name not in container._DIGESTS}


def write_embeddings(
    folder: Path,
    *,
    permute_test_labels: bool = False,
    weights: str = "0",
    class_names: list[str] = NAMES,
    dataset_digest: str = "1",
) -> None:
    """images, texts/photo.h5, texts/other.h5 and splits.h5."""
    attributes: dict[str, Attribute] = {
        "model": "tiny",
        "pretrained": "",
        "weights_sha256": weights,
        "preprocess": "{}",
        "logit_scale": 20.0,
        "class_names": class_names_attribute(class_names),
        "dataset": "made",
        "dataset_digest": dataset_digest,
        "max_per_class": 0,
    }
    parts = {}
    for seed, (name, n) in enumerate((("train", 240), ("test", 90))):
        rows, labels = clusters(seed=seed, n=n, noise=1.5)
        if name == "test" and permute_test_labels:
            labels = np.random.default_rng(5).permutation(labels)
        parts[name] = Split(rows, labels, [f"{name}/{i:04d}" for i in range(n)])
    write_images(folder / "images", train=parts["train"], test=parts["test"], attributes=attributes)
    rng = np.random.default_rng(7)
    for name, shift in (("photo", 0.8), ("other", 1.5)):
        write_texts(
            folder / "texts" / f"{name}.h5",
            embeddings=unit(prototypes() + rng.normal(size=(3, DIM)) * shift / np.sqrt(DIM)),
            class_index=np.arange(3),
            sentences=[f"{name} {c}" for c in class_names],
            attributes={**attributes, "prompt_set": name},
        )
    train = parts["train"]
    rows_of = splits.stratified_split(
        train.labels, train.ids, class_names=class_names, val_fraction=0.25, seed=0
    )
    splits.write_splits(
        folder / "splits.h5", train.ids, rows_of, attributes={"dataset_digest": dataset_digest}
    )


def write_rows(
    folder: Path,
    train: NDArray[np.float32],
    test: NDArray[np.float32],
    *,
    labels: NDArray[np.int64] | None = None,
) -> ImageEmbeddings:
    """Write rows as image embeddings of the three classes, and read them; labels are of train."""
    write_embeddings(folder / "made")
    attributes = written(read_images(folder / "made" / "images").attributes)
    splits_of = {
        name: Split(rows, np.arange(len(rows)) % 3, [f"{name}/{i}" for i in range(len(rows))])
        for name, rows in (("train", train), ("test", test))
    }
    if labels is not None:
        splits_of["train"] = replace(splits_of["train"], labels=labels)
    write_images(folder / "images", **splits_of, attributes=attributes)
    return read_images(folder / "images")


def edit_images(folder: Path, arrays: Mapping[str, NDArray[Any]], **attributes: Any) -> None:
    """Replace arrays of image embeddings, by names as "test/labels", and attributes."""
    images = read_images(folder)
    splits_of = {"train": images.train, "test": images.test}
    for key, array in arrays.items():
        split, _, name = key.partition("/")
        splits_of[split] = replace(splits_of[split], **{name: array})
    write_images(folder, **splits_of, attributes={**written(images.attributes), **attributes})
