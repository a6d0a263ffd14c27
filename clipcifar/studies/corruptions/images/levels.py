"""Levels 0..255 as shares of 1 and back: every operation computes on shares, as the published ones do.

The published code cuts a result off to whole levels, here it is rounded: half a level on average.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Shares = NDArray[np.floating]


def shares(pixels: Pixels) -> NDArray[np.float64]:
    """Of any shape, in 0..1."""
    return pixels / 255


def levels(values: Shares) -> Pixels:
    """Clipped to 0..1 and rounded to whole levels."""
    return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)
