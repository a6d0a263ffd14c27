"""Twelve corruptions of a photograph at five severities, made with Pillow, NumPy and SciPy.

They are named as in CIFAR-10-C (Hendrycks and Dietterich 2019, https://arxiv.org/abs/1903.12261)
where the kind is the same, but the strengths are our own, and results on them are results on
generated images, never on CIFAR-10-C. Random numbers are seeded by corruption, severity and sample
id, so that an image is corrupted alike whatever stands before it or beside it.

Lengths are in units of one pixel, or of 1/128 of the short side where that is more: a blur of one
unit is as strong on a photograph as on a thumbnail of 128 pixels.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter
from scipy import ndimage

SEVERITIES = 5
LARGEST = 512  # short side that a larger photograph is first reduced to; models read 224 to 448
_UNITS = 128  # units of the short side, from which on a unit is more than a pixel
_FIELD = 4.0  # units over which the displacement of an elastic transform is smooth

Pixels = NDArray[np.uint8]


class Corruption(NamedTuple):
    """How to corrupt: pixels, a strength, the unit in pixels, random numbers; and the five strengths."""

    apply: Callable[[Pixels, float, float, np.random.Generator], Pixels]
    strengths: tuple[float, float, float, float, float]


def _levels(values: NDArray[np.floating]) -> Pixels:
    """Levels 0..255 of any precision to whole ones."""
    return np.asarray(np.clip(np.rint(values), 0, 255), dtype=np.uint8)


def _grains(
    shape: tuple[int, ...], unit: float, draw: Callable[[tuple[int, ...]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Random numbers that are the same over squares of one unit, rounded to whole pixels."""
    side = max(1, round(unit))
    coarse = draw((-(-shape[0] // side), -(-shape[1] // side), *shape[2:]))
    return coarse.repeat(side, axis=0).repeat(side, axis=1)[: shape[0], : shape[1]]


def gaussian_noise(pixels: Pixels, sigma: float, unit: float, rng: np.random.Generator) -> Pixels:
    """Independent normal noise of `sigma` (of the range of levels) in every channel."""
    noise = _grains(pixels.shape, unit, rng.standard_normal)
    return _levels(pixels + 255 * sigma * noise)


def impulse_noise(pixels: Pixels, share: float, unit: float, rng: np.random.Generator) -> Pixels:
    """A share of the pixels turned black or white, as likely the one as the other."""
    drawn = _grains(pixels.shape[:2], unit, rng.random)[..., None]
    return np.where(drawn < share / 2, 0, np.where(drawn < share, 255, pixels)).astype(np.uint8)


def gaussian_blur(pixels: Pixels, sigma: float, unit: float, _: np.random.Generator) -> Pixels:
    """Gaussian of `sigma` units."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma * unit)))


def _convolved(pixels: Pixels, weights: NDArray[np.float64]) -> Pixels:
    kernel = (weights / weights.sum())[..., None]
    return _levels(ndimage.convolve(pixels.astype(np.float64), kernel, mode="nearest"))


def _offsets(reach: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows and columns around a centre, whole pixels as far as `reach` reaches."""
    size = int(np.ceil(reach))
    rows, columns = np.mgrid[-size : size + 1, -size : size + 1].astype(np.float64)
    return rows, columns


def defocus_blur(pixels: Pixels, radius: float, unit: float, _: np.random.Generator) -> Pixels:
    """A disk of `radius` units, its rim smooth over one pixel: a lens out of focus."""
    rows, columns = _offsets(radius * unit)
    return _convolved(pixels, np.clip(radius * unit + 0.5 - np.hypot(rows, columns), 0, 1))


def motion_blur(pixels: Pixels, length: float, unit: float, rng: np.random.Generator) -> Pixels:
    """A line of `length` units in a random direction, one pixel thick."""
    half, angle = length * unit / 2, rng.uniform(0, np.pi)
    rows, columns = _offsets(half)
    along = columns * np.cos(angle) + rows * np.sin(angle)
    across = columns * np.sin(angle) - rows * np.cos(angle)
    thickness, extent = (np.clip(1 - np.abs(across), 0, 1), np.clip(half + 0.5 - np.abs(along), 0, 1))
    return _convolved(pixels, thickness * extent)


def pixelate(pixels: Pixels, side: float, unit: float, _: np.random.Generator) -> Pixels:
    """Squares of `side` units, each of one colour: its mean."""
    height, width = pixels.shape[:2]
    coarse = (max(1, round(width / (side * unit))), max(1, round(height / (side * unit))))
    small = Image.fromarray(pixels).resize(coarse, Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.NEAREST))


def jpeg_compression(pixels: Pixels, quality: float, unit: float, _: np.random.Generator) -> Pixels:
    """JPEG of Pillow's `quality`, 95 for the best."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="JPEG", quality=round(quality))
    return np.asarray(Image.open(stream).convert("RGB"))


def brightness(pixels: Pixels, factor: float, unit: float, _: np.random.Generator) -> Pixels:
    """Levels times `factor`: above 1 brighter and clipped, below 1 darker."""
    return np.asarray(ImageEnhance.Brightness(Image.fromarray(pixels)).enhance(factor))


def contrast(pixels: Pixels, factor: float, unit: float, _: np.random.Generator) -> Pixels:
    """Distances from the mean gray times `factor`."""
    return np.asarray(ImageEnhance.Contrast(Image.fromarray(pixels)).enhance(factor))


def desaturate(pixels: Pixels, factor: float, unit: float, _: np.random.Generator) -> Pixels:
    """Distances of colours from their own gray times `factor`; 0 is black and white."""
    return np.asarray(ImageEnhance.Color(Image.fromarray(pixels)).enhance(factor))


def elastic_transform(pixels: Pixels, amount: float, unit: float, rng: np.random.Generator) -> Pixels:
    """Every pixel fetched from `amount` units away (root mean square), neighbours from alike places."""
    height, width = pixels.shape[:2]
    field = ndimage.gaussian_filter(
        rng.standard_normal((2, height, width)), (0, _FIELD * unit, _FIELD * unit)
    )
    length = np.sqrt((field**2).sum(axis=0).mean())
    places = np.mgrid[:height, :width] + field * (amount * unit / max(length, 1e-12))
    channels = [
        ndimage.map_coordinates(pixels[..., c].astype(np.float64), places, order=1, mode="nearest")
        for c in range(3)
    ]
    return _levels(np.stack(channels, axis=-1))


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption(gaussian_noise, (0.04, 0.08, 0.12, 0.18, 0.26)),
    "impulse_noise": Corruption(impulse_noise, (0.01, 0.03, 0.06, 0.1, 0.17)),
    "gaussian_blur": Corruption(gaussian_blur, (0.4, 0.6, 0.8, 1.1, 1.5)),
    "defocus_blur": Corruption(defocus_blur, (0.6, 0.9, 1.2, 1.6, 2.1)),
    "motion_blur": Corruption(motion_blur, (2, 3, 4, 5.5, 7)),
    "pixelate": Corruption(pixelate, (1.33, 1.6, 2, 2.6, 3.4)),
    "jpeg_compression": Corruption(jpeg_compression, (60, 40, 25, 15, 8)),
    "brightness": Corruption(brightness, (1.2, 1.4, 1.7, 2, 2.5)),
    "darkness": Corruption(brightness, (0.7, 0.5, 0.35, 0.22, 0.12)),
    "contrast": Corruption(contrast, (0.7, 0.5, 0.35, 0.22, 0.12)),
    "desaturate": Corruption(desaturate, (0.7, 0.5, 0.3, 0.15, 0)),
    "elastic_transform": Corruption(elastic_transform, (0.5, 0.8, 1.2, 1.7, 2.3)),
}


def corrupt(pixels: Pixels, name: str, severity: int, *, seed: int, sample_id: str) -> Pixels:
    """Corrupt one image.

    Args:
        pixels: (H, W, 3) uint8.
        name: a key of `CORRUPTIONS`.
        severity: 1 to 5.
        seed: another seed draws other noise.
        sample_id: of the image.

    Returns:
        (H, W, 3) uint8; of a photograph whose short side is over `LARGEST`, the reduced size.
    """
    apply, strengths = CORRUPTIONS[name]
    pixels = _reduced(pixels)
    key = hashlib.sha256(f"corruption\0{seed}\0{name}\0{severity}\0{sample_id}".encode()).digest()
    unit = max(1.0, min(pixels.shape[:2]) / _UNITS)
    return apply(pixels, strengths[severity - 1], unit, np.random.default_rng(int.from_bytes(key)))


def _reduced(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    ratio = min(height, width) / LARGEST
    if ratio <= 1:
        return pixels
    size = (round(width / ratio), round(height / ratio))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
