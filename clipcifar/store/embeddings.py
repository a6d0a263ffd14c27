"""The embeddings files: image embeddings by official split, sentence embeddings by prompt set.

Every row is float32, finite and of unit length; both facts are checked on writing and on reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError
from clipcifar.core.files import Attribute
from clipcifar.store import container
from clipcifar.store.fields import check_embeddings, check_index, class_names_of
from clipcifar.store.rows import Embeddings, Rows, blocks_of, taken

IMAGES_KIND, TEXTS_KIND = "image embeddings", "text embeddings"
COPIES = "copies"  # in a file only where there are any
CONTENTS = "contents"  # (N, 32) uint8 sha256 of each image; only where a row depends on its image alone
# What the two files, and params.yaml, must agree on before their rows may be multiplied.
SHARED_FIELDS = (
    "model",
    "pretrained",
    "preprocess",  # before the digests, because it says more
    "class_names",
    "logit_scale",
    "weights_sha256",
    "config_sha256",
)


@dataclass(frozen=True)
class Split:
    """One official split.

    Attributes:
        embeddings: (N, D) float32 unit rows; of many images they lie in parts on disk.
        labels: (N,) int64 indices into the class names.
        ids: N unique sample ids.
        copies: (N,) int64, for each image the row of the first of its exact copies; None where none has one.
    """

    embeddings: Embeddings
    labels: NDArray[np.int64]
    ids: Sequence[str]
    copies: NDArray[np.int64] | None = None

    def part(self, rows: NDArray[np.int64]) -> tuple[Embeddings, NDArray[np.int64]]:
        """Embeddings and labels of some rows; of embeddings in parts, rows ascending and unread."""
        rows = np.sort(rows) if isinstance(self.embeddings, Rows) else rows
        return taken(self.embeddings, rows), self.labels[rows]


@dataclass(frozen=True)
class ImageEmbeddings:
    """The image file: official train (train and val together) and test."""

    train: Split
    test: Split
    attributes: Mapping[str, Attribute]

    @property
    def class_names(self) -> list[str]:
        return class_names_of(self.attributes)

    @property
    def logit_scale(self) -> float:
        return float(self.attributes["logit_scale"])

    @property
    def dataset_digest(self) -> str:
        return str(self.attributes["dataset_digest"])

    def verify(self) -> None:
        """Read what is not read yet; DataError where a part is not as the manifest says."""
        for split in (self.train, self.test):
            for _ in blocks_of(split.embeddings):
                pass


@dataclass(frozen=True)
class TextEmbeddings:
    """One prompt set.

    Attributes:
        embeddings: (S, D) float32 unit rows, one per sentence.
        class_index: (S,) int64, the class that each sentence speaks for.
        sentences: the S sentences.
        weights: (S,) float64 above 0, how much each sentence counts; None where all count alike.
    """

    embeddings: NDArray[np.float32]
    class_index: NDArray[np.int64]
    sentences: list[str] = field(repr=False)  # a notebook would show all of them
    attributes: Mapping[str, Attribute]
    weights: NDArray[np.float64] | None = field(default=None, repr=False)

    @property
    def class_names(self) -> list[str]:
        return class_names_of(self.attributes)


def write_texts(
    path: Path,
    *,
    embeddings: NDArray[np.float32],
    class_index: NDArray[np.int64],
    sentences: list[str],
    attributes: Mapping[str, Attribute],
    weights: NDArray[np.float64] | None = None,
) -> None:
    """Write one prompt set's sentence embeddings, shapes as in `TextEmbeddings`."""
    check_embeddings(embeddings, sentences, what="sentence")
    check_index(class_index, len(class_names_of(attributes)), len(sentences))
    arrays: dict[str, NDArray[Any]] = {
        "embeddings": embeddings,
        "class_index": class_index,
        "sentences": container.encode_strings(sentences),
    }
    if weights is not None:
        _check_weights(weights, len(sentences))
        arrays["weights"] = weights
    container.write(path, kind=TEXTS_KIND, arrays=arrays, attributes=attributes)


def read_texts(path: Path) -> TextEmbeddings:
    """Read and verify one prompt set; DataError names the file and what is wrong with it."""
    with container.reading(path, kind=TEXTS_KIND, what="text embeddings") as file:
        texts = TextEmbeddings(
            embeddings=file.arrays["embeddings"],
            class_index=file.arrays["class_index"],
            sentences=container.decode_strings(file.arrays["sentences"]),
            attributes=file.attributes,
            weights=file.arrays.get("weights"),
        )
        check_embeddings(texts.embeddings, texts.sentences, what="sentence")
        check_index(texts.class_index, len(texts.class_names), len(texts.sentences))
        if texts.weights is not None:
            _check_weights(texts.weights, len(texts.sentences))
    return texts


def _check_weights(weights: NDArray[np.float64], num_sentences: int) -> None:
    """Raise DataError unless there is a finite number above 0 for each sentence."""
    if weights.shape != (num_sentences,) or weights.dtype != np.float64:
        raise DataError(f"expected {num_sentences} float64 weights, found {weights.dtype} {weights.shape}")
    if not (np.isfinite(weights) & (weights > 0)).all():
        raise DataError("the weight of a sentence is no finite number above 0", fix="check the prompt set")


def check_same_space(images: ImageEmbeddings, texts: TextEmbeddings) -> None:
    """Raise DataError naming the first attribute on which the two files differ."""
    for name in SHARED_FIELDS:
        left, right = images.attributes.get(name), texts.attributes.get(name)
        if left != right:
            raise DataError(
                f"images and sentences do not belong together: {name} is {left!r} for the images and "
                f"{right!r} for the sentences",
                fix="run `dvc repro`, which embeds again what is stale",
            )
