"""The prepared dataset and the predictions of all methods, checked to be of the images that were embedded."""

from __future__ import annotations

from pathlib import Path

from clipcifar.core.errors import DataError
from clipcifar.evaluation.names import METHODS
from clipcifar.store.dataset import Prepared, read_dataset
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.inputs import check_embedded
from clipcifar.store.predictions import Predictions, read_predictions


def read(
    images: ImageEmbeddings, dataset_path: Path, predictions: Path
) -> tuple[Prepared, dict[str, Predictions]]:
    """Read the dataset, and the predictions by method; all row by row as `images` has them.

    Args:
        images: the embeddings.
        dataset_path: the prepared dataset.
        predictions: folder with a file per method.

    Raises:
        DataError: a file is missing or damaged, or of other images.
    """
    dataset = read_dataset(dataset_path)
    check_embedded(dataset, images, where=dataset_path)
    by_method = {}
    for name in METHODS:
        path = predictions / f"{name}.h5"
        by_method[name] = read_predictions(path)
        if (
            by_method[name].ids != images.test.ids
            or by_method[name].attributes["images_fingerprint"] != images.attributes["fingerprint"]
        ):
            raise DataError(
                f"{path.name} is of other images than the embeddings",
                where=str(path),
                fix=f"run `dvc repro {name}`",
            )
    return dataset, by_method
