"""GDA-CLIP: Gaussians that share a covariance, in closed form, added to the zero-shot logits.

Wang, Liang, Sheng, He, Wang and Tan 2024, "A Hard-to-Beat Baseline for Training-free CLIP-based
Adaptation" (ICLR), https://arxiv.org/abs/2402.04087. With class means mu_k, all classes equally likely, the
log posterior of an image x is linear: W_k = Sigma^-1 mu_k, b_k = -mu_k^T Sigma^-1 mu_k / 2 (equation 3).
Logits are zero-shot's plus alpha (W x + b) (equation 5).

The paper estimates Sigma^-1 by d ((N - 1) S + tr(S) I)^-1 (equation 4, after Kubokawa and Srivastava 2008,
"Estimation of the precision matrix of a singular Wishart distribution and its application in
high-dimensional data"), where S is the covariance of the deviations from class means, over N - 1. Its scale
falls as d / N. Here that factor is left out, Sigma = S + tr(S) / (N - 1) I, so that a discriminant is a
log posterior whatever N is, and one grid of alpha serves every N: our alpha is the paper's times d / (N - 1).

Protocol on the main page: as the linear probe's. Alpha is chosen on val, by accuracy, of equals the more
likely and then the smaller; Gaussians are fitted again to train and val together, and added with that alpha.
The temperature is that of the fit on train alone. Test is not an argument of anything here. NumPy alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.params import Range, check_distinct
from clipcifar.evaluation.selection import Standing, standing
from clipcifar.methods.linear import Linear, of_zero_shot
from clipcifar.store.rows import Embeddings, blocks_of
from clipcifar.store.splits import check_classes

_BLOCK_ROWS = 8192  # held in float64 at once
_ROUNDING = 1e-12  # mean square deviation of unit rows that float32 cannot tell from none


@dataclass(frozen=True)
class GDAParams:
    """The `gda` section: the weights of the discriminant beside zero-shot to try, 0 for zero-shot itself."""

    alphas: Annotated[tuple[float, ...], Range(0, 1e6)]

    def __post_init__(self) -> None:
        check_distinct(self.alphas, "gda.alphas")


def fit(embeddings: Embeddings, labels: NDArray[np.int64], *, class_names: list[str]) -> Linear:
    """The discriminant W x + b.

    What all classes share is left out of W and b, since it is of no consequence and, next to a small
    covariance, would drown the differences in float32: means are taken from their own mean.

    Where every class has one image there is no deviation from class means (the paper has augmented
    views); those of all images from their mean stand in.

    Args:
        embeddings: (N, D) float32 unit rows; N may be less than D.
        labels: (N,) int64; every class must occur.
        class_names: C names, for messages.

    Raises:
        DataError: there is one class only, or a class does not occur.
    """
    check_classes(labels, class_names=class_names, split="train")
    means = class_means(embeddings, labels, num_classes=len(class_names))
    centre = means.mean(axis=0)
    sigma = covariance(embeddings, labels, means)
    if np.trace(sigma) < _ROUNDING:
        sigma = covariance(embeddings, np.zeros_like(labels), centre[None])
    if np.trace(sigma) < _ROUNDING:  # all images are one and the same, and the means as well
        sigma = np.eye(len(centre))
    coefficients = np.linalg.solve(sigma, (means - centre).T).T
    intercepts = -((means + centre) * coefficients).sum(axis=1) / 2
    return Linear(coefficients.astype(np.float32), intercepts.astype(np.float32))


def class_means(
    embeddings: Embeddings, labels: NDArray[np.int64], *, num_classes: int
) -> NDArray[np.float64]:
    """(C, D) float64 means of (N, D) rows by their (N,) labels."""
    sums = np.zeros((num_classes, embeddings.shape[1]))
    for block, rows in blocks_of(embeddings):
        for label in np.unique(labels[block]).tolist():
            sums[label] += rows[labels[block] == label].sum(axis=0, dtype=np.float64)
    return sums / np.bincount(labels, minlength=num_classes)[:, None]


def covariance(
    embeddings: Embeddings, labels: NDArray[np.int64], means: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The shrunk covariance S + tr(S) / (N - 1) I, (D, D) float64, of N > 1 rows' deviations from means.

    Args:
        embeddings: (N, D) float32.
        labels: (N,) int64, which of the means each row deviates from.
        means: (C, D) float64.
    """
    n, dim = embeddings.shape
    s = np.zeros((dim, dim))
    for first in range(0, n, _BLOCK_ROWS):
        block = slice(first, first + _BLOCK_ROWS)
        deviations = embeddings[block] - means[labels[block]]
        s += deviations.T @ deviations / (n - 1)
    s[np.diag_indices(dim)] += np.trace(s) / (n - 1)
    return s


def added(
    zero_shot: NDArray[np.float32], discriminant: NDArray[np.float32], alpha: float
) -> NDArray[np.float32]:
    """(N, C) float32 logits: zero-shot's plus alpha times the discriminant's, both shaped likewise."""
    return zero_shot + np.float32(alpha) * discriminant


def standings(
    zero_shot: NDArray[np.float32],
    discriminant: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    alphas: Sequence[float],
) -> list[Standing]:
    """How each alpha does on N labelled images, for a rule of `evaluation/selection.py` to choose by.

    Args:
        zero_shot, discriminant: (N, C) float32 logits.
        labels: (N,) int64.
    """
    return [standing(added(zero_shot, discriminant, alpha), labels) for alpha in alphas]


def folded(discriminant: Linear, weights: NDArray[np.float32], *, logit_scale: float, alpha: float) -> Linear:
    """The linear classifier whose scores are `added` of both.

    Args:
        weights: the zero-shot classifier, (C, D) float32 unit rows.
        logit_scale: of the zero-shot logits.
    """
    base, weight = of_zero_shot(weights, logit_scale=logit_scale), np.float32(alpha)
    return Linear(base.coefficients + weight * discriminant.coefficients, weight * discriminant.intercepts)


def curve_rows(alphas: Sequence[float], on_val: Sequence[Standing]) -> list[dict[str, Any]]:
    """The choice of alpha as plot rows; its share alpha / (1 + alpha) is what they are drawn over."""
    return [
        {"share": alpha / (1 + alpha), "alpha": alpha, "val_accuracy": s.accuracy, "val_nll": s.nll}
        for alpha, s in zip(alphas, on_val, strict=True)
    ]
