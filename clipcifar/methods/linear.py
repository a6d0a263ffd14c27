"""A linear classifier of image embeddings, such as zero-shot with something added to it. NumPy alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcifar.store.rows import Embeddings


class Linear(NamedTuple):
    """Coefficients (C, D) float32 and intercepts (C,) float32, such as a fitted probe's."""

    coefficients: NDArray[np.float32]
    intercepts: NDArray[np.float32]

    @classmethod
    def of(cls, coefficients: NDArray[np.float64], intercepts: NDArray[np.float64]) -> Linear:
        """The same in single precision, as a file keeps it."""
        return cls(coefficients.astype(np.float32), intercepts.astype(np.float32))

    @classmethod
    def rebuilt(cls, arrays: Mapping[str, NDArray[np.float32]]) -> Linear:
        """The classifier of a file's arrays, the inverse of `arrays`; KeyError where one is missing."""
        return cls(arrays["coefficients"], arrays["intercepts"])

    @property
    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """What a file keeps of it."""
        return self._asdict()

    def scores(self, embeddings: Embeddings) -> NDArray[np.float32]:
        """Logits of (N, D) embeddings, (N, C) float32."""
        scores: NDArray[np.float32] = embeddings @ self.coefficients.T
        scores += self.intercepts
        return scores


def of_zero_shot(weights: NDArray[np.float32], *, logit_scale: float) -> Linear:
    """The zero-shot classifier of (C, D) float32 unit rows."""
    return Linear(np.float32(logit_scale) * weights, np.zeros(len(weights), dtype=np.float32))
