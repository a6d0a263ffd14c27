"""Light, colour and compression.

Brightness and saturation move one number of HSV and keep the other two. With V the largest channel
and S = (V - smallest) / V, both are closed forms of the channels, so that nothing is converted.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageEnhance

from clipcifar.studies.corruptions.images.levels import Pixels, levels, shares


def brightness(pixels: Pixels, _: np.random.Generator, added: float) -> Pixels:
    """V of HSV raised by `added`, at most to 1: all channels by one factor, and black to grey."""
    image = shares(pixels)
    value = image.max(axis=2, keepdims=True)
    raised = np.minimum(value + added, 1)
    return levels(np.where(value > 0, image * raised / np.where(value > 0, value, 1), raised))


def saturate(pixels: Pixels, _: np.random.Generator, factor: float, added: float) -> Pixels:
    """S of HSV times `factor` plus `added`: below 1 towards grey. Grey has hue 0, so it turns red."""
    image = shares(pixels)
    value = image.max(axis=2, keepdims=True)
    below = value - image
    depth = below.max(axis=2, keepdims=True)  # S V
    saturation = depth / np.where(value > 0, value, 1)
    wanted = np.clip(saturation * factor + added, 0, 1)
    shape = np.where(depth > 0, below / np.where(depth > 0, depth, 1), [0.0, 1.0, 1.0])
    return levels(value * (1 - wanted * shape))


def contrast(pixels: Pixels, _: np.random.Generator, factor: float) -> Pixels:
    """Distances from the mean of their own channel times `factor`."""
    image = shares(pixels)
    means = image.mean(axis=(0, 1))
    return levels((image - means) * factor + means)


def pixelate(pixels: Pixels, _: np.random.Generator, share: float) -> Pixels:
    """Made smaller to a share of each side, and as large again: every pixel the mean of a box."""
    height, width = pixels.shape[:2]
    coarse = (max(1, int(width * share)), max(1, int(height * share)))
    small = Image.fromarray(pixels).resize(coarse, Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BOX))


def jpeg_compression(pixels: Pixels, _: np.random.Generator, quality: int) -> Pixels:
    """JPEG of Pillow's `quality`, 95 for the best."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="JPEG", quality=quality)
    return np.asarray(Image.open(stream).convert("RGB"))


def darkness(pixels: Pixels, _: np.random.Generator, factor: float) -> Pixels:
    """Our own: levels times `factor`."""
    return np.asarray(ImageEnhance.Brightness(Image.fromarray(pixels)).enhance(factor))


def desaturate(pixels: Pixels, _: np.random.Generator, factor: float) -> Pixels:
    """Our own: distances of colours from their own grey times `factor`; 0 is black and white."""
    return np.asarray(ImageEnhance.Color(Image.fromarray(pixels)).enhance(factor))
