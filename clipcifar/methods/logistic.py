"""Multinomial logistic regression with an L2 penalty, solved to its optimum along a path of C.

The objective is scikit-learn's: mean cross-entropy + |W|^2 / (2 C N), intercepts free. CLIP's
embeddings make it ill-conditioned: they share a large mean and their variances span orders of
magnitude, so L-BFGS on them takes hundreds of steps, and stops early for large C. Three changes of
variables leave the optimum where it is and make the Hessian nearly the identity: centred rows (the
intercepts absorb the mean), rows rotated onto their principal axes (|W| does not change), and
coefficients scaled by the root of the Hessian's diagonal at the point where a fit starts.

A linear probe starts here and is finished by scikit-learn (`optimum.py`). Beside fixed logits, which
scikit-learn does not know, the fit is ours to the end.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from threadpoolctl import ThreadpoolController

# Largest gradient component in the scaled variables, where the Hessian is about 1: what the solver
# aims at for a start and for a solution, and how many times that counts as converged where rounding
# ends the search before.
LOOSE, TIGHT, _SLACK = 1e-4, 1e-5, 10
_SHARPEST = 0.2  # times the aim, where rows are told apart for certain: float32 can do little better
FEW_NUMBERS = 2**22  # few rows do not average the noise of float32 away, and cost little
_MEMORY = 20  # of L-BFGS, steps
Loss = Callable[..., tuple[float, NDArray[np.float64]]]  # as `Problem.loss`
_SQUARED_AXES = 64  # bounds the memory of squared rows


@dataclass(frozen=True)
class Solution:
    """A fit.

    Attributes:
        coefficients, intercepts: (K, D) and (K,) float64.
        converged: as the solver that ended it has it.
        doubt: mean over the rows of the sum of p (1 - p) over the classes, where `Problem` ended.
        own_iterations, iterations: of L-BFGS, by `Problem` and by scikit-learn.
    """

    coefficients: NDArray[np.float64]
    intercepts: NDArray[np.float64]
    converged: bool
    doubt: float = 1.0
    own_iterations: int = 0
    iterations: int = 0


def one_thread_for_the_solver() -> AbstractContextManager[object]:
    """Limit the BLAS that SciPy's wheels bring beside NumPy's.

    It works on vectors of some thousand numbers here, and its threads, waiting for more, would take
    half the cores from NumPy's products.
    """
    limited: AbstractContextManager[object] = _the_solvers_libraries().limit(limits=1)
    return limited


@cache
def _the_solvers_libraries() -> ThreadpoolController:
    """Looked for once: of a few dozen images a fit takes no longer than to look through all libraries."""
    libraries = ThreadpoolController()
    own = [library.filepath for library in libraries.lib_controllers if "scipy.libs" in library.filepath]
    return libraries.select(filepath=own)


class Problem:
    """The rows and labels to fit, prepared once for any number of fits.

    Args:
        rows: (N, D) float32.
        labels: (N,) int64 in 0 ... K - 1, every class at least once.
        num_classes: K, at least 2.
        offsets: (N, K) logits that are added to the fitted ones and stay as they are.
        intercepts: "none" holds them at zero.

    Attributes:
        mean, axes: (D,) and (D, D), what rows are centred by and the principal axes they are turned onto.
    """

    def __init__(
        self,
        rows: NDArray[np.float32],
        labels: NDArray[np.int64],
        *,
        num_classes: int,
        offsets: NDArray[np.float32] | None = None,
        intercepts: Literal["free", "none"] = "free",
    ) -> None:
        # Beside offsets nothing follows that would mend what float32 leaves.
        precise = offsets is not None or rows.size <= FEW_NUMBERS
        dtype = np.float64 if precise else np.float32
        self._free = intercepts == "free"
        self._offsets: NDArray[Any] | None = None if offsets is None else offsets.T.astype(dtype)  # (K, N)
        mean: NDArray[Any] = rows.mean(axis=0, dtype=np.float64) if self._free else np.zeros(rows.shape[1])
        self.mean: NDArray[Any] = mean.astype(dtype)
        centred = rows - self.mean
        self.axes: NDArray[Any] = np.linalg.eigh((centred.T @ centred).astype(np.float64))[1].astype(dtype)
        self._rows = self.axes.T @ centred.T  # (D, N)
        self._labels, self._positions = labels, np.arange(len(labels))
        self._prior = np.bincount(labels, minlength=num_classes) / len(labels)

    def fit(
        self,
        c: float,
        *,
        max_iter: int,
        start: Solution | None = None,
        aim: float = TIGHT,
        loss: Loss | None = None,
    ) -> Solution:
        """Fit one C.

        Args:
            c: inverse regularisation strength, as scikit-learn defines it (not divided by N); of two
                classes it fits one row, which softmax over -z/2 and z/2 equals at twice the penalty.
            max_iter: of L-BFGS.
            start: where to start from, such as the solution at the next smaller C.
            aim: largest gradient component in the scaled variables.
            loss: what to minimise instead of `loss`, such as the same over more rows (`streamed.py`).
        """
        loss = loss or self.loss
        num_classes = len(self._prior)
        penalty = (2 if num_classes == 2 else 1) / (c * len(self._labels))
        if start is None:
            weights = np.zeros((num_classes, len(self._rows)))
            intercepts = np.log(self._prior) if self._free else np.zeros(num_classes)
        else:
            weights = start.coefficients @ self.axes
            intercepts = start.intercepts + start.coefficients @ self.mean
        point = np.column_stack([weights, intercepts])
        scale, left, steps, converged = self._curvature(point, penalty), max_iter, 1, False
        # Where p (1 - p) has shrunk on the way, a gradient that is small in the old scale is not so in
        # the one at the point reached: go on from there, in that scale.
        with one_thread_for_the_solver():
            while left > 0 and steps > 0 and not converged:
                # An error in the scaled variables is one of the logits over the root of p (1 - p).
                sharp = aim * min(max(_doubt(scale), _SHARPEST), 1)
                point, gradient, steps = self._minimised(
                    point, scale, partial(loss, penalty=penalty), left, sharp
                )
                scale, left = self._curvature(point, penalty), left - steps
                converged = bool(np.abs(gradient / scale).max() <= _SLACK * aim)
        coefficients = point[:, :-1] @ self.axes.T
        intercepts = point[:, -1] - coefficients @ self.mean
        return Solution(coefficients, intercepts, converged, _doubt(scale), max_iter - left)

    def _minimised(
        self,
        point: NDArray[np.float64],
        scale: NDArray[np.float64],
        loss: Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]],
        max_iter: int,
        aim: float,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
        """L-BFGS in one scale: the point reached, its gradient (both (K, D + 1), unscaled), and the steps."""

        def objective(scaled: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            value, gradient = loss(scaled.reshape(scale.shape) / scale)
            return value, (gradient / scale).ravel()

        result = minimize(
            objective,
            (point * scale).ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": max_iter, "gtol": aim, "ftol": 0, "maxcor": _MEMORY},
        )
        return result.x.reshape(scale.shape) / scale, result.jac.reshape(scale.shape) * scale, int(result.nit)

    def _probabilities(self, point: NDArray[np.float64]) -> tuple[NDArray[Any], float]:
        """(K, N) class probabilities and the mean cross-entropy in nats."""
        scores = point[:, :-1].astype(self._rows.dtype) @ self._rows
        scores += point[:, -1:].astype(self._rows.dtype)
        if self._offsets is not None:
            scores += self._offsets
        scores -= scores.max(axis=0)
        of_labels = scores[self._labels, self._positions].sum(dtype=np.float64)
        np.exp(scores, out=scores)
        totals = scores.sum(axis=0)
        scores /= totals
        loss = (np.log(totals).sum(dtype=np.float64) - of_labels) / len(self._labels)
        return scores, float(loss)

    def loss(self, point: NDArray[np.float64], *, penalty: float) -> tuple[float, NDArray[np.float64]]:
        """The objective and its gradient, (K, D + 1), intercepts last.

        Args:
            point: (K, D + 1), coefficients of the centred rows along `axes`, and intercepts.
            penalty: half of it is what the sum of squared coefficients costs.
        """
        residual, loss = self._probabilities(point)
        residual[self._labels, self._positions] -= 1
        weights = point[:, :-1]
        gradient = np.column_stack(
            [
                (residual @ self._rows.T) / len(self._labels) + penalty * weights,
                residual.mean(axis=1, dtype=np.float64) * self._free,
            ]
        )
        return loss + 0.5 * penalty * float((weights**2).sum()), gradient

    def _curvature(self, point: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
        """The root of the Hessian's diagonal, (K, D + 1), intercepts last."""
        spread, _ = self._probabilities(point)
        spread *= 1 - spread
        diagonal = np.empty(point.shape)
        for first in range(0, len(self._rows), _SQUARED_AXES):
            axes = slice(first, min(first + _SQUARED_AXES, len(self._rows)))
            diagonal[:, axes] = (spread @ np.square(self._rows[axes]).T) / len(self._labels) + penalty
        diagonal[:, -1] = spread.mean(axis=1, dtype=np.float64)
        return np.sqrt(np.maximum(diagonal, 1e-12))


def _doubt(scale: NDArray[np.float64]) -> float:
    """Mean over the rows of the sum of p (1 - p) over the classes, from the Hessian's diagonal."""
    return float(np.square(scale[:, -1]).sum())
