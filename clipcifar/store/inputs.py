"""What a method starts from: embeddings, sentences and the split, checked to belong together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core import params
from clipcifar.core.errors import ClipcifarError, DataError
from clipcifar.core.files import Attribute
from clipcifar.store import container
from clipcifar.store.dataset import Prepared
from clipcifar.store.embeddings import ImageEmbeddings, TextEmbeddings, check_same_space, read_texts
from clipcifar.store.fields import class_names_attribute
from clipcifar.store.images import read_images
from clipcifar.store.model import ModelParams, check_requested
from clipcifar.store.splits import TrainVal, check_classes, read_splits

ON_TEST_ALONE = "`dvc repro zero_shot prompt_sets`"


def requested_images(path: Path, settings: Mapping[str, Any]) -> ImageEmbeddings:
    """The image embeddings, made with the model that params.yaml asks for.

    Args:
        path: of the file.
        settings: params.yaml.

    Raises:
        DataError: the file is damaged, or was made with another model.
    """
    images = read_images(path)
    check_requested(images.attributes, params.read(settings, "model", ModelParams))
    return images


def matching_texts(path: Path, images: ImageEmbeddings) -> TextEmbeddings:
    """The embeddings of one prompt set, in the space of these images.

    Raises:
        DataError: the file is damaged, or of another model or other classes.
    """
    texts = read_texts(path)
    check_same_space(images, texts)
    return texts


def val_of(images: ImageEmbeddings, path: Path) -> NDArray[np.int64]:
    """The val rows of the official train images, for what learns from none; a dataset may have none.

    Raises:
        DataError: see `read_splits`; or there is no test image, or one class alone.
    """
    return _split_of(images, path).val


def train_val_of(images: ImageEmbeddings, path: Path, *, learner: str) -> TrainVal:
    """The split of embedded images, for a method to learn and to choose by.

    Args:
        learner: who learns, for the message.

    Raises:
        DataError: see `val_of`; or there is no train or val image, or train lacks a class.
    """
    rows = _split_of(images, path)
    for part, does in (("train", "learns from"), ("val", "chooses by")):
        if not len(getattr(rows, part)):
            raise lacking(part, f"{learner} {does}")
    check_classes(images.train.labels[rows.train], class_names=images.class_names, split="train")
    return rows


def train_val_if_any(images: ImageEmbeddings, path: Path) -> TrainVal | None:
    """The same for what can do without learning; None where there is no train or no val image."""
    rows = _split_of(images, path)
    return rows if len(rows.train) and len(rows.val) else None


def _split_of(images: ImageEmbeddings, path: Path) -> TrainVal:
    rows = read_splits(path, images.train.ids, dataset_digest=images.dataset_digest)
    if not len(images.test.labels) or len(images.class_names) < 2:  # a class may lack test images, not all
        check_classes(images.test.labels, class_names=images.class_names, split="test")
    return rows


def check_train(images: ImageEmbeddings, asks: str) -> None:
    """Raise `lacking` where no image was embedded but those of test."""
    if not len(images.train.ids):
        raise lacking("train", asks)


def check_split(path: Path, asks: str) -> None:
    """Raise `lacking` where there is a split at a path, and it has no train or no val image.

    Args:
        asks: who needs them, and that: "the study ensemble needs".
    """
    try:
        with container.reading(path, kind="splits", what="a split") as file:
            is_val = file.arrays["is_val"].astype(bool)
    except ClipcifarError:  # what is wrong with the file, its readers say
        return
    if is_val.all() or not is_val.any():
        raise lacking("train" if is_val.all() else "val", asks)


def lacking(part: str, asks: str) -> DataError:
    """What to say of a dataset without train or val images, in one line.

    Args:
        part: train or val.
        asks: who does what with them: "linear_probe learns from".
    """
    return DataError(
        f"{asks} {part} images, and this dataset has none: add {part}/<class>/…, or run "
        f"{ON_TEST_ALONE}, which needs test images alone"
    )


def check_embedded(dataset: Prepared, images: ImageEmbeddings, *, where: Path) -> None:
    """Raise DataError naming the first field on which a dataset and embeddings differ.

    Args:
        where: the file to name, one of the two.
    """
    fields: dict[str, Attribute] = {  # what says more comes before the digest
        "dataset": dataset.name,
        "class_names": class_names_attribute(dataset.class_names),
        "max_per_class": dataset.max_per_class,
        "dataset_digest": dataset.digest,
    }
    for field, of_dataset in fields.items():
        if images.attributes.get(field) != of_dataset:
            raise DataError(
                f"the embeddings are not of the prepared dataset: {field} is {of_dataset!r} for the dataset "
                f"and {images.attributes.get(field)!r} for the embeddings",
                where=str(where),
                fix="run `dvc repro`, which embeds again what is stale",
            )
