"""Zero-shot classification from cached embeddings.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision",
section 3.1; prompt ensembling in embedding space, section 3.1.4. NumPy alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError
from clipcifar.store.embeddings import TextEmbeddings


def class_weights(
    embeddings: NDArray[np.float32], class_index: NDArray[np.int64], *, class_names: list[str]
) -> NDArray[np.float32]:
    """The zero-shot classifier: the mean of each class's sentence embeddings, normalised again.

    Args:
        embeddings: (S, D) float32 unit rows.
        class_index: (S,) int64, the class that each sentence speaks for.
        class_names: C names, for messages.

    Returns:
        (C, D) float32 unit rows.

    Raises:
        DataError: a class has no sentence, or its sentences cancel out.
    """
    sums = np.zeros((len(class_names), embeddings.shape[1]), dtype=np.float64)
    np.add.at(sums, class_index, embeddings)
    norms = np.linalg.norm(sums, axis=1)
    for name, norm in zip(class_names, norms, strict=True):
        if not norm > 0:
            raise DataError(
                f"the class {name!r} has no sentence with a direction", fix="check the prompt set"
            )
    return np.asarray(sums / norms[:, None], dtype=np.float32)


def classifier(texts: TextEmbeddings) -> NDArray[np.float32]:
    """The zero-shot classifier of a prompt set, (C, D) float32 unit rows; see `class_weights`."""
    return class_weights(texts.embeddings, texts.class_index, class_names=texts.class_names)


def logits(
    images: NDArray[np.float32], weights: NDArray[np.float32], *, logit_scale: float
) -> NDArray[np.float32]:
    """Cosine similarity times the learned logit scale.

    Args:
        images: (N, D) float32 unit rows.
        weights: (C, D) float32 unit rows.
        logit_scale: the factor, about 100 for a trained CLIP.

    Returns:
        (N, C) float32.
    """
    return np.asarray(np.float32(logit_scale) * (images @ weights.T))
