"""Are two pictures the same, perhaps mirrored? Correlation of small grey copies, which knows no model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipcifar.render.pictures import Pictures

SAME_PICTURE = 0.9  # correlation of small grey copies
MOST_CORRELATED = 2_000  # pairs whose pictures are compared, the closest first
SIDE = 16  # pixels: small shifts and noise of compression do not count


def _thumbnail(pictures: Pictures, row: int) -> NDArray[np.float64] | None:
    """One picture as (256,) grey levels of mean 0 and length 1; None where its file is gone or it is flat."""
    pixels = pictures.pixels(row)
    if pixels is None:
        return None
    grey = Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    levels = np.asarray(grey, dtype=np.float64).ravel()
    centred = levels - levels.mean()
    length = float(np.linalg.norm(centred))
    return centred / length if length > 0 else None


def correlations(left: Pictures, right: Pictures, pairs: Sequence[tuple[int, int]]) -> list[float]:
    """The correlation of each pair of pictures, the one mirrored if that is higher; in [-1, 1].

    It is 0 where there is nothing to correlate: a file that is gone, a picture of one level.

    Args:
        left, right: what the pairs' rows are of.
    """
    coefficients = []
    for a, b in pairs:
        thumb_a, thumb_b = _thumbnail(left, a), _thumbnail(right, b)
        if thumb_a is None or thumb_b is None:
            coefficients.append(0.0)
        else:
            mirrored = thumb_b.reshape(SIDE, SIDE)[:, ::-1].ravel()
            coefficients.append(float(max(thumb_a @ thumb_b, thumb_a @ mirrored)))
    return coefficients
