"""Embeddings or images to classes: the zero-shot classifier of any sentences, and every trained head."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import ConfigError, DataError
from clipcifar.evaluation.calibration import fit_temperature, log_softmax
from clipcifar.methods import zero_shot as methods_zero_shot
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.fields import check_embeddings

if TYPE_CHECKING:
    from PIL import Image as PILImage

Picture: TypeAlias = "str | os.PathLike[str] | bytes | PILImage.Image | NDArray[np.uint8]"
Inputs: TypeAlias = "Picture | Iterable[Picture] | NDArray[np.floating[Any]]"
Embed = Callable[["Inputs"], NDArray[np.float32]]
Logits = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # (N, D) unit rows to (N, C)


@dataclass(frozen=True)
class Classifier:
    """What says which class an image is of.

    Wherever images are asked for, give (N, D) embeddings with unit rows, as `Project.images` and
    `Project.embed_images` have them, or images: a path, the bytes of an image file, a PIL image, an (H, W, 3)
    uint8 array, or several of those. Images go through the frozen image tower first, which is loaded once,
    when it is first needed. Several threads may ask at once.

    Attributes:
        name: a method or a prompt set.
        class_names: C names in label order.
        temperature: what logits are divided by for probabilities, fitted on val; None where there is no val
            image, or the classes are not the dataset's: then they are at the model's own logit scale.
        dim: D of the embeddings.

    >>> classifier = project.classifier("linear_probe")
    >>> rows = project.images("test").embeddings
    >>> classifier.predict(rows[1:3]), classifier.predict_proba(rows).shape
    (['eight', 'three'], (397, 10))
    """

    name: str
    class_names: list[str]
    temperature: float | None
    dim: int
    _logits: Logits = field(repr=False)
    _embed: Embed = field(repr=False)

    def scores(self, images: Inputs) -> NDArray[np.float32]:
        """The logits of N images, (N, C) float32.

        Raises:
            DataError: an image cannot be read, or embeddings are not unit rows of this model.
        """
        rows = embeddings_of(images, dim=self.dim)
        return self._logits(self._embed(images) if rows is None else rows)

    def predict_proba(self, images: Inputs) -> NDArray[np.float64]:
        """Calibrated probabilities, (N, C) float64 with rows that sum to 1."""
        return probabilities(self.scores(images), self.temperature)

    def predict(self, images: Inputs) -> list[str]:
        """The most likely class of each of N images; of equals, the first."""
        return [self.class_names[label] for label in self.scores(images).argmax(axis=1).tolist()]


def probabilities(scores: NDArray[np.float32], temperature: float | None) -> NDArray[np.float64]:
    """Softmax of (N, C) logits divided by a temperature, (N, C) float64; None leaves them as they are."""
    return np.exp(log_softmax(scores / np.float32(1 if temperature is None else temperature)))


def zero_shot(
    name: str,
    embeddings: NDArray[np.float32],
    class_index: NDArray[np.int64],
    *,
    images: ImageEmbeddings,
    val: NDArray[np.int64],
    embed: Embed,
    sentence_weights: methods_zero_shot.SentenceWeights = None,
) -> Classifier:
    """The zero-shot classifier of sentences about the dataset's classes, its temperature fitted on val.

    Args:
        name: of the sentences, for messages too.
        embeddings: (S, D) float32 unit rows.
        class_index: (S,) int64.
        images: the dataset's.
        val: rows of its official train images.
        embed: what embeds other images.
        sentence_weights: (S,) above 0; None where all count alike.

    Raises:
        ConfigError, DataError: see `methods.zero_shot.text_classifier`.
    """
    names, scale = images.class_names, images.logit_scale
    weights = methods_zero_shot.text_classifier(
        embeddings, class_index, class_names=names, where=name, sentence_weights=sentence_weights
    )
    logits = partial(methods_zero_shot.logits, weights=weights, logit_scale=scale)
    of_val = images.train.labels[val]
    temperature = fit_temperature(logits(images.train.embeddings[val]), of_val) if len(val) else None
    return Classifier(name, names, temperature, weights.shape[1], logits, embed)


def of_labels(
    labels: Sequence[str], embeddings: NDArray[np.float32], *, logit_scale: float, embed: Embed
) -> Classifier:
    """The same of C labels of one's own, each one sentence, (C, D) float32 unit rows; without a temperature.

    Raises:
        ConfigError: there are fewer than two, or two are the same to the model.
    """
    if len(labels) < 2:
        raise ConfigError("one label alone is always the answer", fix="give two or more")
    if any(not label.strip() for label in labels):
        raise ConfigError("a label is empty", where="the labels", fix="remove it or write one")
    try:
        weights = methods_zero_shot.text_classifier(
            embeddings, np.arange(len(labels)), class_names=list(labels), where="the labels"
        )
    except ConfigError as error:
        error.fix = "say something else of one of the two, or leave it out"
        raise
    logits = partial(methods_zero_shot.logits, weights=weights, logit_scale=logit_scale)
    return Classifier("labels", list(labels), None, weights.shape[1], logits, embed)


def embeddings_of(images: Inputs, *, dim: int) -> NDArray[np.float32] | None:
    """(N, D) float32 unit rows where these are embeddings already; None where they are images.

    Raises:
        DataError: D is another, or a row is not of unit length.
    """
    images = _as_array(images)
    if not isinstance(images, np.ndarray) or images.dtype.kind != "f":
        return None
    rows = np.ascontiguousarray(images, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise DataError(
            f"an array of {images.dtype} and shape {images.shape} is neither embeddings nor images",
            fix=f"embeddings are (N, {dim}) floats with unit rows, an image is (H, W, 3) uint8",
        )
    try:
        check_embeddings(rows, [f"row {i}" for i in range(len(rows))], what="image")
    except DataError as error:  # they come from whoever asks, and not from a model here
        error.fix = "divide each row by its length, or give rows of `embed_images`"
        raise
    return rows


def pictures_of(images: Inputs) -> Sequence[Picture]:
    """One picture or several as a sequence."""
    images = _as_array(images)
    if isinstance(images, np.ndarray):
        is_single = (
            images.ndim != 4 and images.dtype.kind not in "OU"
        )  # paths, as a column of a table has them
    else:  # a PIL image is no iterable, an open file is one: of lines
        is_single = not isinstance(images, Iterable) or hasattr(images, "read")
    if is_single or isinstance(images, (str, bytes, os.PathLike)):
        return [images]  # type: ignore[list-item]
    return list(images)  # type: ignore[arg-type]


def _as_array(images: Inputs) -> Inputs:
    """What NumPy has a view on, such as an array of h5py or torch or a table, as NumPy's array."""
    if isinstance(images, np.ndarray) or not hasattr(images, "__array__"):
        return images
    return np.asarray(images)
