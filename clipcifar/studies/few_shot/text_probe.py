"""Linear probes on few images: from scratch, and beside the zero-shot classifier.

The second follows LP++ (Huang et al. 2024, "LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP",
CVPR, https://arxiv.org/abs/2404.02285), whose logits are x (w_c + alpha_c t_c) with the text embedding
t_c fixed and w_c and alpha_c learnt. There a few steps of a size derived from the loss stand in for a
penalty. Here alpha weighs the zero-shot classifier, logit scale included, and is chosen on val among a few
values, one for all classes; w_c is the exact minimum of the mean cross-entropy + |w|^2 / (2 C N), without
intercepts, which a handful of images cannot tell. Since t_c is one of the directions that w_c can take,
the blend of a class is still learnt, alpha + w_c t_c, under the same penalty: with alpha 1 and C towards 0
this is the zero-shot classifier, with alpha 0 a probe from scratch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import ConfigError
from clipcifar.evaluation.selection import Standing, most_likely, standing
from clipcifar.methods.linear_probe import LinearProbe
from clipcifar.methods.logistic import Problem, Solution
from clipcifar.methods.optimum import Regression
from clipcifar.studies.few_shot.shots import Examples


class Fitted(NamedTuple):
    """A probe that val chose.

    Attributes:
        probe: what is added to alpha times the zero-shot logits.
        alpha: 0 for a probe from scratch.
        c: inverse regularisation strength.
        standing: on val.
        n_not_converged: fits of the grid that were left out.
    """

    probe: LinearProbe
    alpha: float
    c: float
    standing: Standing
    n_not_converged: int

    def scores(self, embeddings: NDArray[np.float32], zero_shot: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, C) logits of (N, D) embeddings whose zero-shot logits are (N, C)."""
        return self.probe.scores(embeddings) + np.float32(self.alpha) * zero_shot


def _coordinates(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
    """Rows in the space that they span, and its (N, D) orthonormal basis; None where that is all there is.

    A penalised fit has no part outside the span of its rows, so N coordinates do for N < D rows.
    """
    if len(rows) >= rows.shape[1]:
        return rows, None
    basis: NDArray[np.float64] = np.linalg.svd(rows.astype(np.float64), full_matrices=False)[2]
    return (rows @ basis.T).astype(np.float32), basis


def _path(
    problem: Problem | Regression,
    basis: NDArray[np.float64] | None,
    *,
    c_grid: tuple[float, ...],
    max_iter: int,
) -> Iterator[tuple[float, LinearProbe, bool]]:
    """Every C from the smallest, each fitted from the one before: C, probe, and whether it converged."""
    solution: Solution | None = None
    for c in sorted(c_grid):
        solution = problem.fit(c, max_iter=max_iter, start=solution)
        whole = solution if basis is None else replace(solution, coefficients=solution.coefficients @ basis)
        yield c, LinearProbe.of(whole), solution.converged


def _chosen(fits: list[Fitted], n_not_converged: int) -> Fitted:
    if not fits:
        raise ConfigError(
            "logistic regression converged for no C of the grid",
            where="params.yaml: few_shot",
            fix="raise few_shot.max_iter or lower the values of c_grid",
        )
    return fits[most_likely([fit.standing for fit in fits])]._replace(n_not_converged=n_not_converged)


def from_scratch(
    train: Examples, val: Examples, *, c_grid: tuple[float, ...], max_iter: int, num_classes: int
) -> Fitted:
    """A linear probe with intercepts that knows nothing of the text, its C chosen on val.

    Raises:
        ConfigError: no fit converged.
    """
    rows, basis = _coordinates(train.embeddings)
    regression = Regression(rows, train.labels, num_classes=num_classes)
    fits, failed = [], 0
    for c, probe, converged in _path(regression, basis, c_grid=c_grid, max_iter=max_iter):
        failed += not converged
        if converged:
            fits.append(Fitted(probe, 0.0, c, standing(probe.scores(val.embeddings), val.labels), 0))
    return _chosen(fits, failed)


def beside_text(
    train: Examples,
    val: Examples,
    *,
    text_weights: tuple[float, ...],
    c_grid: tuple[float, ...],
    max_iter: int,
    num_classes: int,
) -> Fitted:
    """A linear probe without intercepts beside alpha times the zero-shot logits; val chooses alpha and C.

    Args:
        text_weights: the alphas to try, the earlier of equals preferred.

    Raises:
        ConfigError: no fit converged.
    """
    rows, basis = _coordinates(train.embeddings)
    fits, failed = [], 0
    for alpha in text_weights:
        offsets = np.float32(alpha) * train.zero_shot
        problem = Problem(rows, train.labels, num_classes=num_classes, offsets=offsets, intercepts="none")
        for c, probe, converged in _path(problem, basis, c_grid=c_grid, max_iter=max_iter):
            failed += not converged
            fitted = Fitted(probe, alpha, c, Standing(0, 0), 0)
            if converged:
                scores = fitted.scores(val.embeddings, val.zero_shot)
                fits.append(fitted._replace(standing=standing(scores, val.labels)))
    return _chosen(fits, failed)
