"""What every prompt set says of every test image, so that sets can be compared image by image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipcifar import container, results
from clipcifar.errors import DataError
from clipcifar.store import ImageEmbeddings


@dataclass(frozen=True)
class SetPredictions:
    """Zero-shot predictions by prompt set.

    Attributes:
        predicted: for each set (N,) int64, the predicted classes.
        labels: (N,) int64.
    """

    predicted: Mapping[str, NDArray[np.int64]]
    labels: NDArray[np.int64]


def write(path: Path, predicted: Mapping[str, NDArray[np.int64]], images: ImageEmbeddings) -> None:
    """Write the predictions of all sets on the N test images of `images`."""
    arrays = {f"predicted/{name}": classes for name, classes in predicted.items()}
    container.write(
        path,
        kind="prompt set predictions",
        arrays={**arrays, "labels": images.test.labels, "ids": container.encode_strings(images.test.ids)},
        attributes=results.inherited(images.attributes),
    )


def read(path: Path) -> SetPredictions:
    """Read and verify the file; DataError names what is wrong with it."""
    file = container.read(path, kind="prompt set predictions")
    predicted = {
        name.removeprefix("predicted/"): array
        for name, array in file.arrays.items()
        if name.startswith("predicted/")
    }
    try:
        labels = file.arrays["labels"]
    except KeyError as error:
        raise DataError("the labels are missing", where=str(path), fix="run `dvc repro`") from error
    if any(array.shape != labels.shape for array in predicted.values()):
        raise DataError("predictions and labels differ in length", where=str(path), fix="run `dvc repro`")
    return SetPredictions(predicted, labels)
