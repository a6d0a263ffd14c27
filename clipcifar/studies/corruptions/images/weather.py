"""Fog and snow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clipcifar.studies.corruptions.images.blur import enlarged, smear
from clipcifar.studies.corruptions.images.levels import Pixels, levels, shares

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def fog(pixels: Pixels, rng: np.random.Generator, amount: float, decay: float) -> Pixels:
    """`amount` times clouds added, and the brightest level put back to what it was."""
    image = shares(pixels)
    height, width = pixels.shape[:2]
    clouds = _clouds(1 << (min(height, width) - 1).bit_length(), decay, rng)
    rows, columns = np.arange(height) % len(clouds), np.arange(width) % len(clouds)  # it has no seams
    brightest = image.max()
    return levels(
        (image + amount * clouds[np.ix_(rows, columns)][..., None]) * brightest / (brightest + amount)
    )


def _clouds(size: int, decay: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(size, size) in 0..1, a plasma by midpoint displacement that goes on over its borders.

    Fournier, Fussell and Carpenter, "Computer rendering of stochastic models", CACM 1982. From a grid
    of twice the step the middles of squares, then of edges, are the mean of their four neighbours and
    noise, whose bound at each halving is smaller by the square of `decay`.
    """
    heights = np.zeros((size, size))
    step, noise = size, 100.0

    def between(*neighbours: NDArray[np.float64]) -> NDArray[np.float64]:
        mean = sum(neighbours, np.zeros(neighbours[0].shape)) / 4
        return np.asarray(mean + noise**2 * rng.uniform(-1, 1, mean.shape))

    while step > 1:
        half = step // 2
        corners = heights[::step, ::step]
        right, below = np.roll(corners, -1, axis=1), np.roll(corners, -1, axis=0)
        middles = between(corners, right, below, np.roll(right, -1, axis=0))
        heights[half::step, half::step] = middles
        heights[::step, half::step] = between(corners, right, middles, np.roll(middles, 1, axis=0))
        heights[half::step, ::step] = between(corners, below, middles, np.roll(middles, 1, axis=1))
        step, noise = half, noise / decay
    heights -= heights.min()
    return np.asarray(heights / max(heights.max(), 1e-12))


def snow(
    pixels: Pixels,
    rng: np.random.Generator,
    mean: float,
    deviation: float,
    size: float,
    least: float,
    radius: int,
    sigma: float,
    kept: float,
) -> Pixels:
    """Flakes that fall, over an image that has grown pale.

    Args:
        pixels: (H, W, 3).
        rng: random numbers.
        mean, deviation: of the normal noise that flakes are the peaks of.
        size: how much that noise is enlarged.
        least: the level below which there is no flake.
        radius, sigma: of the motion, up to 45 degrees from the vertical.
        kept: the share of the image that does not grow pale.
    """
    image = shares(pixels).astype(np.float32)
    flakes = rng.normal(mean, deviation, pixels.shape[:2]).astype(np.float32)[..., None]
    flakes = enlarged(flakes, size)
    flakes = smear(np.clip(np.where(flakes < least, 0, flakes), 0, 1), radius, sigma, rng.uniform(-135, -45))
    pale = np.maximum(image, 1.5 * (image @ _LUMA)[..., None] + 0.5)
    return levels(kept * image + (1 - kept) * pale + flakes + np.rot90(flakes, 2))
