"""A linear probe's optimum is scikit-learn's: its LogisticRegression does the last iterations of every fit.

Alone it takes hundreds of them on CLIP's embeddings, and at its default tolerance it stops on the way.
So `logistic.Problem` brings each fit near the optimum, where scikit-learn goes on in float64, on centred
rows (the intercepts absorb the mean), to a tolerance a hundred times tighter than its default.
Coefficients, iterations and whether they converged are its own.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clipcifar.methods.logistic import FEW_NUMBERS, LOOSE, Problem, Solution, one_thread_for_the_solver

if TYPE_CHECKING:  # its import takes a second
    from sklearn.linear_model import LogisticRegression

# Largest component of scikit-learn's gradient, whose default is 1e-4; below the second, rounding decides.
TOLERANCE, _TIGHTEST = 1e-6, 1e-9


class Regression:
    """scikit-learn's LogisticRegression on rows prepared once, for any number of C.

    Args:
        rows: (N, D) float32.
        labels: (N,) int64 in 0 ... K - 1, every class at least once.
        num_classes: K, at least 2.
    """

    def __init__(self, rows: NDArray[np.float32], labels: NDArray[np.int64], *, num_classes: int) -> None:
        self._problem = Problem(rows, labels, num_classes=num_classes)
        self._labels = labels
        self._mean: NDArray[np.float64] = rows.mean(axis=0, dtype=np.float64)
        self._centred: NDArray[np.float64] = rows - self._mean
        # Few rows cost little, and determine less well on which side of a boundary a val image lies.
        share = 0.1 if rows.size <= FEW_NUMBERS else 1
        self._aim, self._tolerance = share * LOOSE, share * TOLERANCE

    def fit(self, c: float, *, max_iter: int, start: Solution | None = None) -> Solution:
        """Fit one C: the coefficients, and whether they converged, are scikit-learn's.

        Args:
            c: inverse regularisation strength.
            max_iter: of our own L-BFGS, and of scikit-learn's.
            start: where to start from, such as the solution at the next smaller C.

        Returns:
            Of two classes scikit-learn fits one row w, the second minus the first; here these are
            -w / 2 and w / 2.
        """
        from sklearn.linear_model import LogisticRegression

        near = self._problem.fit(c, max_iter=max_iter, start=start, aim=self._aim)
        # The Hessian is about p (1 - p). Where nearly every row is told apart for certain it has shrunk,
        # and a gradient of the same size is farther from the optimum.
        tolerance = max(self._tolerance * min(10 * near.doubt, 1), _TIGHTEST)
        model = LogisticRegression(C=c, solver="lbfgs", tol=tolerance, max_iter=max_iter, warm_start=True)
        coefficients, intercepts = near.coefficients, near.intercepts + near.coefficients @ self._mean
        if len(intercepts) == 2:
            coefficients, intercepts = coefficients[1:] - coefficients[:1], intercepts[1:] - intercepts[:1]
        model.coef_, model.intercept_ = coefficients, intercepts
        converged = _fitted(model, self._centred, self._labels)
        while converged and not model.n_iter_[0] and model.tol > _TIGHTEST:  # the start was within it
            model.tol /= 2
            _fitted(model, self._centred, self._labels)  # it has converged, however this ends
        coefficients, intercepts = model.coef_, model.intercept_ - model.coef_ @ self._mean
        if len(intercepts) == 1:
            coefficients, intercepts = (
                np.concatenate([-half, half]) for half in (coefficients / 2, intercepts / 2)
            )
        return Solution(
            coefficients, intercepts, converged, near.doubt, near.own_iterations, int(model.n_iter_[0])
        )


def _fitted(model: LogisticRegression, rows: NDArray[np.float64], labels: NDArray[np.int64]) -> bool:
    """Fit scikit-learn's model; whether it did not warn that it has not converged."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught, one_thread_for_the_solver():
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(rows, labels)
    others = [warning for warning in caught if not issubclass(warning.category, ConvergenceWarning)]
    for warning in others:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return len(others) == len(caught)
