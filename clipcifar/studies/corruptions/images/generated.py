"""Corruptions of an image at five severities: the published operations, and two of our own.

Hendrycks and Dietterich (ICLR 2019, https://arxiv.org/abs/1903.12261) published severities for the 32
pixels of CIFAR-10-C and others for the 224 of ImageNet-C. An image whose short side is nearer to 224 (by
ratio: from 85 on) is made 224 there, left uncropped, and gets those of ImageNet-C; a smaller one stays as
it is and gets those of CIFAR-10-C. Frost needs pictures of frost: it is of the published arrays alone.

A published operation on other images makes no published data: results are on generated images, never
on CIFAR-10-C. Random numbers are seeded by corruption, severity and sample id, so that an image is
corrupted alike whatever stands before it or beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from clipcifar.studies.corruptions.images import blur, light, noise, spatter, weather
from clipcifar.studies.corruptions.images.kinds import KNOWN, WHOSE, kind
from clipcifar.studies.corruptions.images.levels import Pixels

SEVERITIES = 5
SMALL, LARGE = 32, 224  # short sides that the severities were published for
BORDER = 85  # the short side that is as far from the one as from the other, by ratio

Strengths = tuple[tuple[float, ...], ...]


class Corruption(NamedTuple):
    """How to corrupt: the operation, what its strengths are in words, and five of them for both sizes."""

    apply: Callable[..., Pixels]
    strength: str
    small: Strengths
    large: Strengths


def _each(*values: float) -> Strengths:
    """Strengths of one number."""
    return tuple((value,) for value in values)


_DARKNESS, _DESATURATE = _each(0.7, 0.5, 0.35, 0.22, 0.12), _each(0.7, 0.5, 0.3, 0.15, 0)
_MADE = {
    "gaussian_noise": Corruption(
        noise.gaussian_noise,
        "standard deviation, levels in 0..1",
        _each(0.04, 0.06, 0.08, 0.09, 0.1),
        _each(0.08, 0.12, 0.18, 0.26, 0.38),
    ),
    "shot_noise": Corruption(
        noise.shot_noise, "photons of white", _each(500, 250, 100, 75, 50), _each(60, 25, 12, 5, 3)
    ),
    "impulse_noise": Corruption(
        noise.impulse_noise,
        "share of numbers struck",
        _each(0.01, 0.02, 0.03, 0.05, 0.07),
        _each(0.03, 0.06, 0.09, 0.17, 0.27),
    ),
    "defocus_blur": Corruption(
        blur.defocus_blur,
        "radius of the disk, its rim",
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "glass_blur": Corruption(
        blur.glass_blur,
        "sigma, reach, rounds",
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    "motion_blur": Corruption(
        blur.motion_blur,
        "radius, sigma",
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    "zoom_blur": Corruption(
        blur.zoom_blur,
        "largest zoom, its steps",
        ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    ),
    "snow": Corruption(
        weather.snow,
        "mean, deviation, size, least, radius, sigma, kept",
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "fog": Corruption(
        weather.fog,
        "amount, decay of the noise",
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    "brightness": Corruption(
        light.brightness,
        "added to V of HSV",
        _each(0.05, 0.1, 0.15, 0.2, 0.3),
        _each(0.1, 0.2, 0.3, 0.4, 0.5),
    ),
    "contrast": Corruption(
        light.contrast,
        "factor on distances from the mean",
        _each(0.75, 0.5, 0.4, 0.3, 0.15),
        _each(0.4, 0.3, 0.2, 0.1, 0.05),
    ),
    # The sizes in pixels are shares of 32 and, in the published code too, of 244.
    "elastic_transform": Corruption(
        blur.elastic_transform,
        "amount, sigma, affine: pixels",
        ((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)),
        (
            (488, 170.8, 24.4),
            (488, 19.52, 48.8),
            (12.2, 2.44, 4.88),
            (17.08, 2.44, 4.88),
            (29.28, 2.44, 4.88),
        ),
    ),
    "pixelate": Corruption(
        light.pixelate,
        "share of each side",
        _each(0.95, 0.9, 0.85, 0.75, 0.65),
        _each(0.6, 0.5, 0.4, 0.3, 0.25),
    ),
    "jpeg_compression": Corruption(
        light.jpeg_compression, "quality", _each(80, 65, 58, 50, 40), _each(25, 18, 15, 10, 7)
    ),
    "speckle_noise": Corruption(
        noise.speckle_noise,
        "standard deviation, of the level",
        _each(0.06, 0.1, 0.12, 0.16, 0.2),
        _each(0.15, 0.2, 0.35, 0.45, 0.6),
    ),
    "gaussian_blur": Corruption(
        blur.gaussian_blur, "sigma", _each(0.4, 0.6, 0.7, 0.8, 1), _each(1, 2, 3, 4, 6)
    ),
    "spatter": Corruption(
        spatter.spatter,
        "mean, deviation, sigma, least, amount, mud",
        (
            (0.62, 0.1, 0.7, 0.7, 0.5, 0),
            (0.65, 0.1, 0.8, 0.7, 0.5, 0),
            (0.65, 0.3, 1, 0.69, 0.5, 0),
            (0.65, 0.1, 0.7, 0.69, 0.6, 1),
            (0.65, 0.1, 0.5, 0.68, 0.6, 1),
        ),
        (
            (0.65, 0.3, 4, 0.69, 0.6, 0),
            (0.65, 0.3, 3, 0.68, 0.6, 0),
            (0.65, 0.3, 2, 0.68, 0.5, 0),
            (0.65, 0.3, 1, 0.65, 1.5, 1),
            (0.67, 0.4, 1, 0.65, 1.5, 1),
        ),
    ),
    "saturate": Corruption(
        light.saturate,
        "factor on S of HSV, added",
        ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
        ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    ),
    "darkness": Corruption(light.darkness, "factor on levels", _DARKNESS, _DARKNESS),
    "desaturate": Corruption(light.desaturate, "factor on distances from grey", _DESATURATE, _DESATURATE),
}
CORRUPTIONS = {name: _MADE[name] for name in KNOWN if name in _MADE}


def described(name: str) -> list[str]:
    """A row of the table of all: whose it is, what sets its severity, and that at 1 and 5 for both sizes."""
    made = CORRUPTIONS[name]
    spans = [
        " … ".join(", ".join(f"{number:g}" for number in strengths[step]) for step in (0, -1))
        for strengths in (made.small, made.large)
    ]
    return [WHOSE[kind(name)], made.strength, *spans]


def corrupt(pixels: Pixels, name: str, severity: int, *, seed: int, sample_id: str) -> Pixels:
    """Corrupt one image.

    Args:
        pixels: (H, W, 3) uint8.
        name: a key of `CORRUPTIONS`.
        severity: 1 to 5.
        seed: another seed draws other noise.
        sample_id: of the image.

    Returns:
        (H, W, 3) uint8; of an image whose short side is `BORDER` or more, `LARGE` on that side.
    """
    made, pixels = CORRUPTIONS[name], _sized(pixels)
    strengths = made.small if min(pixels.shape[:2]) < BORDER else made.large
    key = hashlib.sha256(f"corruption\0{seed}\0{name}\0{severity}\0{sample_id}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(key))
    return made.apply(pixels, rng, *strengths[severity - 1])


def _sized(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    side = min(height, width)
    if side < BORDER or side == LARGE:
        return pixels
    size = (round(width * LARGE / side), round(height * LARGE / side))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
