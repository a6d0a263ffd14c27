"""The scores of the stored heads on any embeddings: what a study needs beyond the test predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clipcifar import heads
from clipcifar.errors import DataError
from clipcifar.files import Attribute
from clipcifar.linear_probe import LinearProbe
from clipcifar.mlp_probe import MLPProbe
from clipcifar.projection import Projection
from clipcifar.store import ImageEmbeddings
from clipcifar.training import scores

Scorer = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def _read(path: Path, images: ImageEmbeddings) -> tuple[Mapping[str, NDArray[Any]], Mapping[str, Attribute]]:
    """A head that was trained on these embeddings.

    Raises:
        DataError: it was trained on others.
    """
    arrays, attributes = heads.read(path)
    if attributes.get("images_fingerprint") != images.attributes["fingerprint"]:
        raise DataError("the head was trained on other embeddings", where=str(path), fix="run `dvc repro`")
    return arrays, attributes


def linear_probe(path: Path, images: ImageEmbeddings) -> tuple[LinearProbe, float]:
    """The refitted linear probe, and its C."""
    arrays, attributes = _read(path, images)
    try:
        return LinearProbe(arrays["coefficients"], arrays["intercepts"]), float(attributes["c"])
    except KeyError as error:
        raise DataError(f"not a linear probe: {error} is missing", where=str(path)) from error


def mlp_probe(path: Path, images: ImageEmbeddings) -> Scorer:
    """What scores (N, D) embeddings with the stored MLP probe."""
    arrays, attributes = _read(path, images)
    shape = torch.zeros(2, images.test.embeddings.shape[1])  # its statistics are the state's
    num_classes = len(images.class_names)
    head = MLPProbe(shape, num_classes=num_classes, hidden=_hidden(attributes, path), dropout=0.0)
    return _scorer(head, arrays, path)


def projection(
    path: Path, images: ImageEmbeddings, class_weights: NDArray[np.float32], *, texts_fingerprint: Attribute
) -> Scorer:
    """What scores (N, D) embeddings with the stored projection heads.

    Args:
        class_weights: (C, D) float32 unit rows, the zero-shot classifier.
        texts_fingerprint: of the prompt set that it is made from; the heads must have begun with the same.
    """
    arrays, attributes = _read(path, images)
    if attributes.get("texts_fingerprint") != texts_fingerprint:
        raise DataError(
            "the heads were trained from another prompt set", where=str(path), fix="run `dvc repro`"
        )
    head = Projection(
        torch.from_numpy(class_weights),
        logit_scale=images.logit_scale,
        hidden=_hidden(attributes, path),
        dropout=0.0,
    )
    return _scorer(head, arrays, path)


def _hidden(attributes: Mapping[str, Attribute], path: Path) -> int:
    try:
        return int(attributes["hidden"])
    except KeyError as error:
        raise DataError("not a trained head: it has no width", where=str(path)) from error


def _scorer(head: torch.nn.Module, arrays: Mapping[str, NDArray[Any]], path: Path) -> Scorer:
    try:
        head.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
    except RuntimeError as error:
        raise DataError("the head's arrays are not those of its method", where=str(path)) from error
    return lambda embeddings: scores(head, torch.from_numpy(embeddings)).numpy()
