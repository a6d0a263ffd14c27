"""Trained heads on disk: named arrays with their provenance, in the same checked file as everything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from clipcifar import container
from clipcifar.files import Attribute


def write(
    path: Path, method: str, arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Attribute]
) -> None:
    """Write a head: its arrays, and attributes that say what it was trained on."""
    container.write(path, kind="head", arrays=arrays, attributes={**attributes, "method": method})


def read(path: Path) -> tuple[Mapping[str, NDArray[Any]], Mapping[str, Attribute]]:
    """The arrays and attributes of a head; DataError names what is wrong with the file."""
    file = container.read(path, kind="head")
    return file.arrays, file.attributes
