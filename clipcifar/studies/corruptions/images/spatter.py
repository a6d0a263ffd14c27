"""Spatter: drops of water, from severity 4 on of mud. The longest of them, since water has rims that shine.

The published code has OpenCV find the rims: Canny's edges (Canny, "A Computational Approach to Edge
Detection", PAMI 1986), the distance from them, equalised and embossed. Here SciPy does, by exact
distances where OpenCV's are within 2 % of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clipcifar.studies.corruptions.images.blur import smooth
from clipcifar.studies.corruptions.images.levels import Pixels, levels, shares

_WATER, _MUD = np.array([175, 238, 238]) / 255, np.array([63, 42, 20]) / 255
_WEAK, _STRONG = 50, 150  # gradients from which a pixel may be, and is, on an edge
_FARTHEST = 20.0  # pixels from an edge
_RELIEF = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], dtype=np.float64)
_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def spatter(
    pixels: Pixels,
    rng: np.random.Generator,
    mean: float,
    deviation: float,
    sigma: float,
    least: float,
    amount: float,
    mud: int,
) -> Pixels:
    """Drops on the lens.

    Args:
        pixels: (H, W, 3).
        rng: random numbers.
        mean, deviation: of the normal noise that drops are the peaks of.
        sigma: pixels by which that is smoothed.
        least: the level below which there is no drop.
        amount: of water, how opaque; of mud, pixels by which its rims are smoothed.
        mud: 1 for mud, 0 for water.
    """
    image = shares(pixels)
    liquid = smooth(rng.normal(mean, deviation, pixels.shape[:2]), sigma)
    if mud:
        cover = smooth((liquid > least).astype(np.float64), amount)
        cover = np.where(cover < 0.8, 0, cover)[..., None]
        return levels(image * (1 - cover) + cover * _MUD)
    drops = (255 * np.where(liquid < least, 0, np.clip(liquid, 0, 1))).astype(np.uint8)
    shine = drops * _relief(drops)
    return levels(image + amount * (shine / max(shine.max(), 1e-12))[..., None] * _WATER)


def _relief(drops: Pixels) -> NDArray[np.float64]:
    """(H, W): how much of the light each place of a drop throws back, by its distance from the rims."""
    rims = edges(drops)
    distance = ndimage.distance_transform_edt(~rims) if rims.any() else np.full(drops.shape, _FARTHEST)
    near = ndimage.uniform_filter(np.minimum(distance, _FARTHEST), 3, mode="mirror")
    whole = np.floor(near + 1e-4).astype(np.uint8)  # the mean of nine 20 is a little less
    embossed = ndimage.correlate(equalised(whole).astype(np.float64), _RELIEF, mode="mirror")
    return np.asarray(np.rint(ndimage.uniform_filter(np.clip(embossed, 0, 255), 3, mode="mirror")))


def equalised(values: Pixels) -> Pixels:
    """Levels spread so that all are as frequent as can be, the lowest at 0 and the highest at 255."""
    counts = np.bincount(values.ravel(), minlength=256)
    above = counts.cumsum() - counts[values.min()]
    if not above[-1]:
        return values
    spread = np.rint(255 / above[-1] * np.clip(above, 0, None)).astype(np.uint8)
    return np.asarray(spread[values])


def edges(values: Pixels) -> NDArray[np.bool_]:
    """(H, W): Canny's edges by Sobel gradients in their 1-norm, thin, and joined from strong to weak."""
    across, down = (ndimage.sobel(values.astype(np.int64), axis=axis, mode="nearest") for axis in (1, 0))
    strength = np.abs(across) + np.abs(down)
    padded = np.pad(strength, 1)

    def beside(rows: int, columns: int) -> NDArray[np.int64]:
        height, width = values.shape
        return padded[1 + rows : 1 + rows + height, 1 + columns : 1 + columns + width]

    flat = np.abs(down) < np.tan(np.pi / 8) * np.abs(across)
    steep = np.abs(down) > np.tan(3 * np.pi / 8) * np.abs(across)
    level = (strength > beside(0, -1)) & (strength >= beside(0, 1))
    upright = (strength > beside(-1, 0)) & (strength >= beside(1, 0))
    falling = (strength > beside(-1, -1)) & (strength > beside(1, 1))
    rising = (strength > beside(-1, 1)) & (strength > beside(1, -1))
    slanted = np.where((across < 0) != (down < 0), rising, falling)
    thin = (strength > _WEAK) & np.where(flat, level, np.where(steep, upright, slanted))
    joined, _ = ndimage.label(thin, _NEIGHBOURS)
    return np.isin(joined, np.unique(joined[thin & (strength > _STRONG)]))
