"""CLAP: a linear probe that starts at zero-shot and is held there class by class. It needs no val.

Silva-Rodriguez, Hajimiri, Ben Ayed and Dolz 2024, "A Closer Look at the Few-Shot Adaptation of Large
Vision-Language Models" (CVPR), https://arxiv.org/abs/2312.12730. Logits are s x w_c / |w_c| with the model's
scale s; the classifier's rows w_c start at the text embeddings t_c and minimise

    mean over images of the cross-entropy  +  mean over classes of lambda_c |w_c - t_c|^2

A class is held as firmly as zero-shot is right about it: lambda_c is the mean probability that zero-shot
gives to c over the labelled images of c. They are the multipliers of an augmented Lagrangian at its first
step, and the paper goes no further, so as not to fit the few images too well.

The authors' code leaves t_c at the length r that the text tower gives it; that is the same as unit rows
with r^2 before the penalty, since only directions enter the logits. Embeddings are unit rows here, so r is a
setting. Their descent of 300 epochs goes nearly to the minimum; here it is L-BFGS that does, without a rate
or an order of images to choose.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax

from clipcifar.methods.logistic import FEW_NUMBERS
from clipcifar.studies.few_shot.shots import Examples

# Largest gradient component, where a loss is about 1 nat: what is aimed at, and what counts as converged
# where float32's noise ends the search before.
_AIM, _TOLERANCE = 1e-6, 1e-4


def multipliers(train: Examples, *, num_classes: int) -> NDArray[np.float64]:
    """(C,) lambda: zero-shot's mean probability of each class over its own images; every class has some."""
    probabilities = softmax(train.zero_shot.astype(np.float64), axis=1)
    return np.array([probabilities[train.labels == c, c].mean() for c in range(num_classes)])


def loss_and_gradient(
    rows: NDArray[np.float64],
    images: NDArray[Any],
    labels: NDArray[np.int64],
    text: NDArray[np.float64],
    held: NDArray[np.float64],
    *,
    logit_scale: float,
) -> tuple[float, NDArray[np.float64]]:
    """The objective at (C, D) rows, and its gradient by them.

    The logits' part of the gradient is at right angles to the row, since its length is of no consequence.

    Args:
        images: (N, D) unit rows, float32 where they are many.
        labels: (N,) int64.
        text: (C, D) unit rows.
        held: (C,) what each class's squared distance costs.
    """
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units = rows / lengths
    scores = images @ (logit_scale * units).T.astype(images.dtype)
    scores -= scores.max(axis=1, keepdims=True)
    places = np.arange(len(labels))
    of_labels = scores[places, labels].sum(dtype=np.float64)
    np.exp(scores, out=scores)
    totals = scores.sum(axis=1)
    scores /= totals[:, None]
    scores[places, labels] -= 1
    loss = (np.log(totals).sum(dtype=np.float64) - of_labels) / len(places)
    by_units = logit_scale * (scores.T @ images).astype(np.float64) / len(places)
    along = (by_units * units).sum(axis=1, keepdims=True) * units
    moved = rows - text
    penalty = float(held @ (moved**2).sum(axis=1))
    return float(loss) + penalty, (by_units - along) / lengths + 2 * held[:, None] * moved


def fit(
    train: Examples,
    weights: NDArray[np.float32],
    *,
    logit_scale: float,
    text_length: float,
    max_iter: int,
) -> tuple[NDArray[np.float32], bool]:
    """The classifier's (C, D) float32 unit rows, and whether the solver converged.

    Args:
        train: every class at least once.
        weights: (C, D) float32 unit rows, the zero-shot classifier.
        text_length: r above.
        max_iter: of L-BFGS.
    """
    text = weights.astype(np.float64)
    held = multipliers(train, num_classes=len(text)) * text_length**2 / len(text)
    dtype = np.float64 if train.embeddings.size <= FEW_NUMBERS else np.float32
    images = train.embeddings.astype(dtype)

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        loss, gradient = loss_and_gradient(
            flat.reshape(text.shape), images, train.labels, text, held, logit_scale=logit_scale
        )
        return loss, gradient.ravel()

    options = {"maxiter": max_iter, "gtol": _AIM, "ftol": 0}
    result = minimize(objective, text.ravel(), jac=True, method="L-BFGS-B", options=options)
    rows = result.x.reshape(text.shape)
    units = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return units, bool(np.abs(result.jac).max() <= _TOLERANCE)
