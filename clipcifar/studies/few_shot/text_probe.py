"""Linear probes on few images: from scratch, and beside the zero-shot classifier.

The second follows LP++ (Huang et al. 2024, "LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP",
CVPR, https://arxiv.org/abs/2404.02285), whose logits are x (w_c + alpha_c t_c) with the text embedding
t_c fixed and w_c and alpha_c learnt. There a few steps of a size derived from the loss stand in for a
penalty. Here alpha weighs the zero-shot classifier, logit scale included, and is chosen among a few
values, one for all classes; w_c is the exact minimum of the mean cross-entropy + |w|^2 / (2 C N), without
intercepts, which a handful of images cannot tell. Since t_c is one of the directions that w_c can take,
the blend of a class is still learnt, alpha + w_c t_c, under the same penalty: with alpha 1 and C towards 0
this is the zero-shot classifier, with alpha 0 a probe from scratch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import ConfigError
from clipcifar.methods.linear import Linear
from clipcifar.methods.logistic import Problem, Solution
from clipcifar.methods.optimum import Regression
from clipcifar.studies.few_shot import choice
from clipcifar.studies.few_shot.shots import Examples, Fold


class Fitted(NamedTuple):
    """A probe of the grid, or the one that was chosen.

    Attributes:
        probe: what is added to alpha times the zero-shot logits.
        alpha: 0 for a probe from scratch.
        c: inverse regularisation strength; 0 for zero-shot itself.
        n_not_converged: fits that were left out: 0 or 1, and those of the grid where it was chosen.
    """

    probe: Linear
    alpha: float
    c: float
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
    train: Examples, alpha: float | None, *, c_grid: tuple[float, ...], max_iter: int, num_classes: int
) -> list[Fitted]:
    """A fit for every C from the smallest, each from the one before; from scratch where alpha is None."""
    rows, basis = _coordinates(train.embeddings)
    if alpha is None:
        problem: Problem | Regression = Regression(rows, train.labels, num_classes=num_classes)
    else:
        offsets = np.float32(alpha) * train.zero_shot
        problem = Problem(rows, train.labels, num_classes=num_classes, offsets=offsets, intercepts="none")
    fits: list[Fitted] = []
    solution: Solution | None = None
    for c in sorted(c_grid):
        solution = problem.fit(c, max_iter=max_iter, start=solution)
        whole = solution if basis is None else replace(solution, coefficients=solution.coefficients @ basis)
        fits.append(
            Fitted(
                Linear.of(whole.coefficients, whole.intercepts), alpha or 0.0, c, int(not solution.converged)
            )
        )
    return fits


def _converged(by_fold: Sequence[list[Fitted]]) -> tuple[list[tuple[Fitted, ...]], int]:
    """For each point of the grid its fits in all folds, where all converged; how many fits did not."""
    kept = [fits for fits in zip(*by_fold, strict=True) if not any(fit.n_not_converged for fit in fits)]
    if not kept:
        raise ConfigError(
            "logistic regression converged for no C of the grid",
            where="params.yaml: few_shot",
            fix="raise few_shot.max_iter or lower the values of c_grid",
        )
    return kept, sum(fit.n_not_converged for fits in by_fold for fit in fits)


def _answers(kept: Sequence[Sequence[Fitted]], folds: Sequence[Fold]) -> list[choice.Scores]:
    by_fold = zip(*kept, strict=True)
    return choice.pooled(
        [
            [fit.scores(fold.val.embeddings, fold.val.zero_shot) for fit in fits]
            for fits, fold in zip(by_fold, folds, strict=True)
        ]
    )


def from_scratch(
    folds: Sequence[Fold], *, c_grid: tuple[float, ...], max_iter: int, num_classes: int
) -> Fitted:
    """A linear probe of the first fold, with intercepts, that knows nothing of the text; all choose C.

    Raises:
        ConfigError: no fit converged.
    """
    options: dict[str, Any] = {"c_grid": c_grid, "max_iter": max_iter, "num_classes": num_classes}
    kept, failed = _converged([_path(fold.train, None, **options) for fold in folds])
    chosen = choice.likeliest(_answers(kept, folds), np.concatenate([fold.val.labels for fold in folds]))
    return kept[chosen][0]._replace(n_not_converged=failed)


def beside_text(
    folds: Sequence[Fold],
    *,
    text_weights: tuple[float, ...],
    c_grid: tuple[float, ...],
    max_iter: int,
    num_classes: int,
) -> Fitted:
    """A linear probe of the first fold without intercepts beside alpha times the zero-shot logits.

    All folds choose alpha and C, or zero-shot itself.

    Args:
        text_weights: the alphas to try.

    Raises:
        ConfigError: no fit converged.
    """
    options: dict[str, Any] = {"c_grid": c_grid, "max_iter": max_iter, "num_classes": num_classes}
    grids = [[fit for alpha in text_weights for fit in _path(fold.train, alpha, **options)] for fold in folds]
    kept, failed = _converged(grids)
    nothing = Linear(
        np.zeros((num_classes, folds[0].train.embeddings.shape[1]), np.float32),
        np.zeros(num_classes, np.float32),
    )
    kept = [(Fitted(nothing, 1.0, 0.0, 0),) * len(folds), *kept]
    chosen = choice.nearest(_answers(kept, folds), np.concatenate([fold.val.labels for fold in folds]))
    return kept[chosen][0]._replace(n_not_converged=failed)
