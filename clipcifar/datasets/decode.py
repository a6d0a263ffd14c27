"""One image file to RGB pixels, with a rule for every odd kind.

Rules: EXIF rotation is applied; of an animation the first frame counts; transparency is laid on
white; 16-bit levels are scaled to 8 bits, not clipped; float levels are taken as 0..1 when none is
above 1, else as 0..255; palette, CMYK and the other colour spaces are converted by Pillow. Of an image
beyond `WHOLE_PIXELS` every square of 2 x 2 pixels, or more, becomes their mean: a model sees far fewer.
"""

from __future__ import annotations

import io
import math
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from clipcifar.core.errors import ClipcifarError, DataError, EnvironmentFault

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".pjpeg", ".pjp"),
        *(".png", ".apng", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
    }
)
MAX_ASPECT = 100  # a sliver fitted to the model by its short side would fill the memory
WHOLE_PIXELS = 100_000_000  # 300 MB decoded
_STRIP = 256  # rows, of what is left of a very large image, that are converted at once
_AT_ONCE = 25_000_000  # pixels; of larger images a process decodes one at a time
_opening, _large = threading.Lock(), threading.Lock()
_Made = TypeVar("_Made")


def decode(content: bytes, name: str, *, max_megapixels: int | None = None) -> NDArray[np.uint8]:
    """Decode an image file.

    Args:
        content: the bytes of the file.
        name: its path, for messages.
        max_megapixels: a file that claims more is refused unread; None for one that was let in before.

    Returns:
        (H, W, 3) uint8, RGB, of `WHOLE_PIXELS` pixels at most.

    Raises:
        DataError: not an image of the known formats, truncated, or beyond `max_megapixels` or `MAX_ASPECT`.
        EnvironmentFault: memory ran out, which says nothing about the image.
    """
    return _read(content, name, max_megapixels, _pixels)


def check(content: bytes, name: str, *, max_megapixels: int) -> None:
    """Refuse what `decode` refuses; of a large photograph in less than half the time, since none is made."""
    _read(content, name, max_megapixels, _refuse)


def _read(
    content: bytes, name: str, max_megapixels: int | None, make: Callable[[Image.Image], _Made]
) -> _Made:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns on odd metadata, which is not used
            with _opened(content) as image:
                width, height = image.size
                if max_megapixels is not None and width * height > max_megapixels * 1_000_000:
                    raise DataError(
                        f"{width} x {height} pixels, more than dataset.max_megapixels: {max_megapixels}",
                        fix=f"raise dataset.max_megapixels to {math.ceil(width * height / 1e6)}",
                    )
                if max(width, height) > MAX_ASPECT * min(width, height):
                    raise DataError(f"{width} x {height} pixels, one side over {MAX_ASPECT} times the other")
                with _large if width * height > _AT_ONCE else nullcontext():
                    return make(image)
    except UnidentifiedImageError as error:
        raise DataError("empty, or not an image of a known format", where=name) from error
    except ClipcifarError as error:
        error.where = name
        raise
    except MemoryError as error:
        fix = "free some memory, or lower embed.workers"
        raise EnvironmentFault("out of memory while decoding", where=name, fix=fix) from error
    except Exception as error:  # Pillow's decoders raise many types on damaged input
        raise DataError(f"cannot be decoded: {error}", where=name) from error


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """The image, nothing of it decoded; its size is for the caller to judge, not for Pillow."""
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(io.BytesIO(content), formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        yield image


def _refuse(image: Image.Image) -> None:
    """Raise what `_pixels` would, which of float and 16-bit levels alone their conversion says."""
    if image.mode[0] in "IF":
        _pixels(image)
    else:
        _load(image)


def _load(image: Image.Image) -> None:
    """Decode an image and turn it upright; a JPEG of very many pixels never whole."""
    width, height = image.size
    factor = math.ceil(math.sqrt(width * height / WHOLE_PIXELS))
    if factor > 1:
        image.draft(None, (width // factor, height // factor))
    ImageOps.exif_transpose(image, in_place=True)


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, RGB; of very many pixels the means of squares."""
    _load(image)
    brightest = image.getextrema()[1] if image.mode == "F" else None
    factor = math.ceil(math.sqrt(image.width * image.height / WHOLE_PIXELS))
    if factor == 1:
        return np.asarray(_to_rgb(image, brightest))
    strips = range(0, image.height, _STRIP * factor)  # levels of some modes take 8 bytes, and several times
    parts = (image.crop((0, top, image.width, min(top + _STRIP * factor, image.height))) for top in strips)
    return np.concatenate([np.asarray(_to_rgb(part, brightest).reduce(factor)) for part in parts])


def _to_rgb(image: Image.Image, brightest: Any = None) -> Image.Image:
    """The image or a strip of it as RGB; of float levels, the brightest of the whole image says the scale."""
    if image.mode.startswith("I"):  # 16-bit, sometimes opened as 32-bit integers
        levels = np.asarray(image).astype(np.float64)
        return _from_levels(levels / 257)
    if image.mode == "F":
        levels = np.asarray(image, dtype=np.float64)
        if not np.isfinite(levels).all():
            raise DataError("holds NaN or infinite levels")
        return _from_levels(levels * 255 if brightest <= 1 else levels)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it


def _from_levels(levels: NDArray[np.float64]) -> Image.Image:
    """Gray levels in 0..255 to RGB."""
    return Image.fromarray(np.clip(np.round(levels), 0, 255).astype(np.uint8)).convert("RGB")
