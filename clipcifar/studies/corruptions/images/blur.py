"""Blurs, and places moved: where a pixel's colour is fetched from its neighbourhood."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from clipcifar.studies.corruptions.images.levels import Pixels, Shares, levels, shares

_MOTION_TAPS = 1e-7  # weight of a tap from which on it can be seen in no level


def smooth(image: Shares, sigma: float) -> Shares:
    """Gaussian of `sigma` pixels over (H, W) or (H, W, C), cut off at 4 sigma; the border goes on beyond."""
    return np.asarray(ndimage.gaussian_filter(image, sigma, mode="nearest", axes=(0, 1)))


def gaussian_blur(pixels: Pixels, _: np.random.Generator, sigma: float) -> Pixels:
    """Gaussian of `sigma` pixels."""
    return levels(smooth(shares(pixels), sigma))


def defocus_blur(pixels: Pixels, _: np.random.Generator, radius: float, rim: float) -> Pixels:
    """A disk of `radius` pixels whose rim is a Gaussian of `rim`: a lens out of focus."""
    kernel = _disk(radius, rim)
    reach = len(kernel) // 2
    padded = np.pad(shares(pixels), ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    planes = torch.from_numpy(padded.astype(np.float32)).permute(2, 0, 1)[:, None]
    return levels(
        functional.conv2d(planes, torch.from_numpy(kernel)[None, None])[:, 0].numpy().transpose(1, 2, 0)
    )


@lru_cache(maxsize=16)
def _disk(radius: float, rim: float) -> NDArray[np.float32]:
    """(2 R + 1, 2 R + 1): a disk of sum 1, smoothed over 3 pixels, or 5 of a large one."""
    reach = max(8, int(radius))
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = (rows**2 + columns**2 <= radius**2).astype(np.float64)
    disk /= disk.sum()
    taps = np.exp(-((np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)) ** 2) / (2 * rim**2))
    for axis in (0, 1):
        disk = ndimage.correlate1d(disk, taps / taps.sum(), axis=axis, mode="mirror")
    used = int(np.abs(rows[disk > 0]).max())  # of a small disk the most is nothing
    inner = slice(reach - used, reach + used + 1)
    return np.asarray(disk[inner, inner], dtype=np.float32)


def glass_blur(pixels: Pixels, rng: np.random.Generator, sigma: float, reach: int, rounds: int) -> Pixels:
    """Blurred, pixels replaced by near ones, and blurred again."""
    image = levels(smooth(shares(pixels), sigma))
    for _ in range(rounds):
        image = _replaced(image, rng, reach)
    return levels(smooth(shares(image), sigma))


def _replaced(image: Pixels, rng: np.random.Generator, reach: int) -> Pixels:
    """From the last pixel to the first, each gets the colour that one up to `reach` pixels away has by then.

    The published code means to swap the two, and copies: what it writes back is a view of the pixel
    that was just overwritten. A pixel before this one still has its own colour; of one after it, the
    colour is followed to where that came from, all chains at once by doubling their steps.
    """
    height, width = image.shape[:2]
    rows = np.arange(reach + 1, height - reach + 1)
    columns = np.arange(reach + 1, width - reach + 1)
    down, right = rng.integers(-reach, reach, (2, len(rows), len(columns)))
    place = rows[:, None] * width + columns
    source = place + down * width + right
    after, origin = np.arange(height * width), np.arange(height * width)
    after[place], origin[place] = np.maximum(source, place), source
    while (after[after] != after).any():
        after = after[after]
    return image.reshape(-1, 3)[origin[after]].reshape(image.shape)


def motion_blur(pixels: Pixels, rng: np.random.Generator, radius: int, sigma: float) -> Pixels:
    """Half a Gaussian along a ray of a random direction, up to 45 degrees from the horizontal."""
    return levels(smear(shares(pixels).astype(np.float32), radius, sigma, rng.uniform(-45, 45)))


def smear(image: Shares, radius: int, sigma: float, degrees: float) -> Shares:
    """Every pixel of (H, W) or (H, W, C) mixed with the 2 `radius` that follow it in a direction.

    The motion blur of ImageMagick: weights exp(-i^2 / 2 sigma^2), whole pixels, and the border goes on.
    """
    height, width = image.shape[:2]
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    weights = weights[weights > _MOTION_TAPS] / weights.sum()
    steps, angle = np.arange(len(weights)), np.deg2rad(degrees)
    right = np.ceil(steps * np.cos(angle) - 0.5).astype(int) + len(steps)
    down = np.ceil(steps * np.sin(angle) - 0.5).astype(int) + len(steps)
    beyond = [(len(steps), len(steps))] * 2 + [(0, 0)] * (image.ndim - 2)
    padded, mixed = np.pad(image, beyond, mode="edge"), np.zeros_like(image)
    for weight, x, y in zip(weights.astype(image.dtype), right, down, strict=True):
        mixed += weight * padded[y : y + height, x : x + width]
    return mixed


def zoom_blur(pixels: Pixels, _: np.random.Generator, end: float, step: float) -> Pixels:
    """The mean of the image and of its middle enlarged 1, 1 + `step`, ... times, up to `end`."""
    image = shares(pixels).astype(np.float32)
    factors = np.arange(1, end, step)
    return levels((image + sum(enlarged(image, factor) for factor in factors)) / (len(factors) + 1))


def enlarged(image: Shares, factor: float) -> Shares:
    """The middle of (H, W, C) float32, enlarged linearly to the size of the whole."""
    sides = image.shape[:2]
    crop = [int(np.ceil(side / factor)) for side in sides]
    first = [(side - part) // 2 for side, part in zip(sides, crop, strict=True)]
    middle = image[first[0] : first[0] + crop[0], first[1] : first[1] + crop[1]]
    planes = torch.from_numpy(np.ascontiguousarray(middle)).permute(2, 0, 1)[None]
    size = [round(part * factor) for part in crop]
    large = functional.interpolate(planes, size=size, mode="bilinear", align_corners=True)[0].numpy()
    top, left = ((whole - side) // 2 for whole, side in zip(size, sides, strict=True))
    return large[:, top : top + sides[0], left : left + sides[1]].transpose(1, 2, 0)


def elastic_transform(
    pixels: Pixels, rng: np.random.Generator, amount: float, sigma: float, affine: float
) -> Pixels:
    """Three points moved by up to `affine` pixels, then every pixel by `amount` times a field of `sigma`."""
    height, width = pixels.shape[:2]
    centre, third = np.array([width, height]) // 2, min(height, width) // 3
    points = centre + third * np.array([[1, 1], [1, -1], [-1, -1]])  # x, y
    moved = points + rng.uniform(-affine, affine, (3, 2))
    # An affine map back from where points went; of points on one line, the least of those that fit best.
    back = np.linalg.lstsq(np.column_stack([moved, np.ones(3)]), points, rcond=None)[0]
    fields = rng.uniform(-1, 1, (2, height, width))
    shifts = amount * (_blender(height, sigma) @ fields @ _blender(width, sigma).T)
    places = np.stack(np.meshgrid(np.arange(width), np.arange(height))).astype(np.float64)
    sheared = np.tensordot(back[:2].T, places, axes=1) + back[2][:, None, None]
    return levels(_fetched(_fetched(shares(pixels), sheared, "mirror"), places + shifts, "reflect"))


def _fetched(image: Shares, places: NDArray[np.float64], beyond: str) -> Shares:
    """(H, W, C) at `places`, (2, H, W) of x and y, linearly between pixels."""
    rows_first = places[::-1]
    planes = [
        ndimage.map_coordinates(image[..., c], rows_first, order=1, mode=beyond)
        for c in range(image.shape[2])
    ]
    return np.stack(planes, axis=-1)


@lru_cache(maxsize=32)
def _blender(size: int, sigma: float) -> NDArray[np.float64]:
    """(size, size): a Gaussian cut off at 3 sigma, mirrored at the borders, as a matrix: it may be wide."""
    return np.asarray(
        ndimage.gaussian_filter1d(np.eye(size), sigma, axis=0, mode="reflect", truncate=3)
        if sigma
        else np.eye(size)
    )
