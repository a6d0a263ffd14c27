"""The images of a split as small pictures inside a page, so that it needs no file beside it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipcifar.core.errors import DataError
from clipcifar.core.files import fault_behind
from clipcifar.datasets.decode import decode
from clipcifar.datasets.tar_shards import read_member
from clipcifar.store.dataset import PreparedSplit

SIDE = 96  # pixels that a picture is shown at; a larger photograph is made smaller


@dataclass(frozen=True)
class Card:
    """One picture of a gallery with what is said of it.

    Attributes:
        source: a data URI, or an address; empty where the picture is gone.
        file: the name by which it is found again, where it has one.
        link: what a click on it opens, if anything.
    """

    source: str
    alt: str
    title: str
    lines: list[str]
    file: str = ""
    link: str = ""


class Pictures:
    """The images of one split, each read when it is asked for.

    Args:
        split: pixels, or the ids of image files.
        folder: where those files are.
        side: pixels that a picture is shown at.
    """

    def __init__(self, split: PreparedSplit, folder: Path, *, side: int = SIDE) -> None:
        self._split, self._folder, self._side = split, folder, side

    @property
    def small(self) -> bool:
        """Whether they are arrays, which a page enlarges without smoothing, and no photographs."""
        return self._split.in_memory

    def pixels(self, row: int) -> NDArray[np.uint8] | None:
        """One image, (H, W, 3) uint8; None where its file is gone."""
        if self._split.in_memory:
            return np.asarray(self._split.content[row])
        name = self._split.ids[row]
        try:
            if self._split.members is not None:
                return decode(read_member(self._folder, self._split.members, row), name)
            return decode((self._folder / name).read_bytes(), name)
        except (OSError, DataError) as error:
            if fault := fault_behind(error, self._folder / name):
                raise fault from error
            return None

    def data_uri(self, row: int) -> str:
        """One image as a data URI; the empty text where its file is gone."""
        pixels = self.pixels(row)
        return "" if pixels is None else data_uri(pixels, self._side)

    def png(self, row: int) -> bytes | None:
        """One image as a PNG file, made quickly; None where its file is gone."""
        pixels = self.pixels(row)
        return None if pixels is None else png(pixels, self._side)


def data_uri(pixels: NDArray[np.uint8], side: int) -> str:
    """An image, (H, W, 3) uint8, as a data URI of pixels and nothing else; a larger one is made smaller."""
    return "data:image/png;base64," + base64.b64encode(png(pixels, side, optimize=True)).decode()


def png(pixels: NDArray[np.uint8], side: int, *, optimize: bool = False) -> bytes:
    """An image, (H, W, 3) uint8, as a PNG file of pixels and nothing else; a larger one is made smaller."""
    image, stream = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((side, side))
    image.save(stream, format="PNG", optimize=optimize)
    return stream.getvalue()
