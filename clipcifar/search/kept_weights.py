"""The weights of templates in the head of `prompt_weighting`, where the search finds them.

Both stages ask for the same weights, and most of what either does is the product of all train images with
all templates that these take.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError
from clipcifar.core.files import Attribute
from clipcifar.store import heads
from clipcifar.store.embeddings import ImageEmbeddings

_METHOD, _WEIGHTS, _OF = "prompt_weighting", "template_weights", "templates_sha256"


def write(
    path: Path,
    classifier: Mapping[str, NDArray[Any]],
    weights: NDArray[np.float64],
    sums: NDArray[np.float32],
    attributes: Mapping[str, Attribute],
) -> None:
    """Write the head.

    Args:
        classifier: the arrays of the head.
        weights: (T,), as `ranking.weighted_by` gives them.
        sums: (T, C, D) float32, what was weighted.
        attributes: of the embeddings of the images.
    """
    arrays = {**classifier, _WEIGHTS: weights}
    heads.write(path, _METHOD, arrays, {**attributes, _OF: _digest(sums)})


def read(path: Path, images: ImageEmbeddings, sums: NDArray[np.float32]) -> NDArray[np.float64]:
    """The (T,) weights of these (T, C, D) float32 sums.

    Raises:
        DataError: the head is damaged, or of other images or templates.
    """
    arrays, attributes = heads.read_for(path, images, method=_METHOD)
    weights = arrays.get(_WEIGHTS, np.empty(0))
    if attributes.get(_OF) != _digest(sums) or weights.shape != (len(sums),):
        raise DataError("the head is of other templates", where=str(path), fix=f"run `dvc repro {_METHOD}`")
    return weights


def _digest(sums: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(sums).data).hexdigest()
