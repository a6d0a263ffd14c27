"""A linear classifier of image embeddings, such as zero-shot with something added to it. NumPy alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Linear(NamedTuple):
    """Coefficients (C, D) float32 and intercepts (C,) float32; a file keeps both by these names."""

    coefficients: NDArray[np.float32]
    intercepts: NDArray[np.float32]

    def scores(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of (N, D) embeddings, (N, C) float32."""
        return embeddings @ self.coefficients.T + self.intercepts


def of_zero_shot(weights: NDArray[np.float32], *, logit_scale: float) -> Linear:
    """The zero-shot classifier of (C, D) float32 unit rows."""
    return Linear(np.float32(logit_scale) * weights, np.zeros(len(weights), dtype=np.float32))
