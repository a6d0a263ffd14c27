"""Heads read back: from embeddings to scores, as the stage that made them had it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError
from clipcifar.core.files import Attribute
from clipcifar.evaluation.names import HEADS
from clipcifar.methods.linear import Linear
from clipcifar.store import heads
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.rows import Embeddings

Classifier = Callable[[Embeddings], NDArray[np.float32]]  # (N, D) unit rows to (N, C) logits
_Arrays = Mapping[str, NDArray[Any]]


def heads_in(
    folder: Path, images: ImageEmbeddings, *, methods: Iterable[str] = HEADS
) -> dict[str, Classifier]:
    """The heads that methods left in `folder`, by method; errors as of `head`."""
    return {method: head(folder / f"{method}.h5", images, method=method) for method in methods}


def head(path: Path, images: ImageEmbeddings, *, method: str) -> Classifier:
    """The head that a method left in a file.

    Raises:
        DataError: it is missing, damaged, or was trained on other embeddings than `images`.
    """
    arrays, attributes = heads.read_for(path, images, method=method)
    try:
        return _BUILDERS[method](arrays, attributes, images)
    except (KeyError, RuntimeError, ValueError, IndexError) as error:  # torch raises RuntimeError
        raise DataError(f"not a head of {method}: {error}", where=str(path), fix="run `dvc repro`") from error


def linear_probe(arrays: _Arrays, images: ImageEmbeddings) -> Linear:
    """The linear classifier of a file's arrays; KeyError or ValueError where it is not of these images."""
    probe = Linear.rebuilt(arrays)
    expected = (len(images.class_names), images.test.embeddings.shape[1])
    if probe.coefficients.shape != expected or probe.intercepts.shape != expected[:1]:
        raise ValueError(f"coefficients {probe.coefficients.shape}, expected {expected}")
    return probe


def _linear(arrays: _Arrays, _: Mapping[str, Attribute], images: ImageEmbeddings) -> Classifier:
    return linear_probe(arrays, images).scores


def _mlp_probe(arrays: _Arrays, attributes: Mapping[str, Attribute], images: ImageEmbeddings) -> Classifier:
    from clipcifar.methods.trained.mlp_probe import MLPProbe
    from clipcifar.methods.trained.training import scores_of

    classes, dim = len(images.class_names), images.test.embeddings.shape[1]
    hidden = int(attributes["hidden"])
    return partial(
        scores_of, MLPProbe.rebuilt(arrays, dim=dim, num_classes=classes, hidden=hidden, dropout=0.0)
    )


def _projection(arrays: _Arrays, attributes: Mapping[str, Attribute], images: ImageEmbeddings) -> Classifier:
    import torch

    from clipcifar.methods.trained.projection import Projection
    from clipcifar.methods.trained.training import load_arrays, scores_of

    weights = torch.zeros((len(images.class_names), images.test.embeddings.shape[1]))
    hidden = int(attributes["hidden"])
    module = Projection(weights, logit_scale=1.0, hidden=hidden, dropout=0.0)
    return partial(scores_of, load_arrays(module, arrays))


_BUILDERS = {
    "prompt_weighting": _linear,
    "gda": _linear,
    "linear_probe": _linear,
    "mlp_probe": _mlp_probe,
    "projection": _projection,
}
