"""Trained heads on disk: named arrays with their provenance, in the same checked file as everything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from clipcifar.core.errors import DataError
from clipcifar.core.files import Attribute
from clipcifar.store import container
from clipcifar.store.embeddings import ImageEmbeddings


def write(
    path: Path, method: str, arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Attribute]
) -> None:
    """Write a head: its arrays, and attributes that say what it was trained on."""
    container.write(path, kind="head", arrays=arrays, attributes={**attributes, "method": method})


def read(path: Path) -> tuple[Mapping[str, NDArray[Any]], Mapping[str, Attribute]]:
    """The arrays and attributes of a head; DataError names what is wrong with the file."""
    file = container.read(path, kind="head")
    return file.arrays, file.attributes


def read_for(
    path: Path, images: ImageEmbeddings, *, method: str
) -> tuple[Mapping[str, NDArray[Any]], Mapping[str, Attribute]]:
    """The same of a head that `method` trained on these embeddings.

    Raises:
        DataError: the file is damaged, of another method, or was trained on other embeddings.
    """
    arrays, attributes = read(path)
    if attributes.get("method") != method:
        raise DataError(
            f"not a head of {method}, but of {attributes.get('method')!r}",
            where=str(path),
            fix=f"run `dvc repro {method}`",
        )
    if attributes.get("images_fingerprint") != images.attributes["fingerprint"]:
        raise DataError(
            "the head was trained on other embeddings", where=str(path), fix=f"run `dvc repro {method}`"
        )
    return arrays, attributes
