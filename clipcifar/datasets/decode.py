"""One image file to RGB pixels, with a rule for every odd kind.

Rules: EXIF rotation is applied; of an animation the first frame counts; transparency is laid on
white; 16-bit levels are scaled to 8 bits, not clipped; float levels are taken as 0..1 when none is
above 1, else as 0..255; palette, CMYK and the other colour spaces are converted by Pillow.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from clipcifar.core.errors import ClipcifarError, DataError, EnvironmentFault

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
MAX_ASPECT = 100  # a sliver fitted to the model by its short side would fill the memory
MAX_PIXELS = 100_000_000  # 300 MB decoded; the largest cameras stay below it


def decode(content: bytes, name: str) -> NDArray[np.uint8]:
    """Decode an image file.

    Args:
        content: the bytes of the file.
        name: its path, for messages.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        DataError: not an image of the known formats, truncated, or beyond `MAX_PIXELS` or `MAX_ASPECT`.
        EnvironmentFault: memory ran out, which says nothing about the image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns on odd metadata, which is not used
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise DataError(f"{width} x {height} pixels, more than {MAX_PIXELS:,}")
                if max(width, height) > MAX_ASPECT * min(width, height):
                    raise DataError(f"{width} x {height} pixels, one side over {MAX_ASPECT} times the other")
                return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))
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


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit, sometimes opened as 32-bit integers
        levels = np.asarray(image).astype(np.float64)
        return _from_levels(levels / 257)
    if image.mode == "F":
        levels = np.asarray(image, dtype=np.float64)
        if not np.isfinite(levels).all():
            raise DataError("holds NaN or infinite levels")
        return _from_levels(levels * 255 if levels.max() <= 1 else levels)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _from_levels(levels: NDArray[np.float64]) -> Image.Image:
    """Gray levels in 0..255 to RGB."""
    return Image.fromarray(np.clip(np.round(levels), 0, 255).astype(np.uint8)).convert("RGB")
