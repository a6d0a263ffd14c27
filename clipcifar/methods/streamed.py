"""A linear probe on more rows than memory holds: the optimum of `logistic.py`, by passes over blocks of them.

A sample of the rows gives the start and the variables in which the Hessian is nearly the identity; both
leave the optimum where it is. Then every step of L-BFGS is a pass or two over all rows, a block at a time.
scikit-learn, which ends a fit of rows in memory, holds all of them in float64 and is not asked here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.processes import keep_freed_memory
from clipcifar.methods.logistic import FEW_NUMBERS, LOOSE, TIGHT, Problem, Solution
from clipcifar.store.rows import Embeddings, blocks_of

SAMPLE_ROWS = 16_384  # held by the start, twice
_SEED = 0
_CACHED = 2**19  # numbers of float64 that go through both products while the processor's cache holds them


class StreamedRegression:
    """Logistic regression on rows in parts, for any number of C.

    Args:
        rows: (N, D) float32.
        labels: (N,) int64 in 0 ... K - 1, every class at least once.
        num_classes: K, at least 2.
    """

    def __init__(self, rows: Embeddings, labels: NDArray[np.int64], *, num_classes: int) -> None:
        keep_freed_memory()  # every pass reads all parts
        self._rows, self._labels = rows, labels
        drawn = np.random.default_rng(_SEED).permutation(len(labels))[:SAMPLE_ROWS]
        sample = np.union1d(drawn, np.unique(labels, return_index=True)[1])  # of every class one at least
        self._start = Problem(rows[sample], labels[sample], num_classes=num_classes)
        self._share = len(sample) / len(labels)
        # Of many rows a gradient of a tenth of what scikit-learn ends a fit in memory with.
        self._aim = TIGHT if rows.size <= FEW_NUMBERS else LOOSE
        self._ends: tuple[Solution, Solution] | None = None  # of the last fit: of the sample, and of all rows

    def fit(self, c: float, *, max_iter: int, start: Solution | None = None) -> Solution:
        """Fit one C; arguments and result as `Regression.fit` has them, all iterations our own."""
        last = self._ends if self._ends and start is self._ends[1] else None
        # The sample with its own penalty: with that of all rows, which is less, it would be learned by heart.
        near = self._start.fit(c, max_iter=max_iter, start=last[0] if last else start, aim=LOOSE)
        # From the last C on, as far as the sample went: what is the sample's alone is in both of its ends.
        begin = _moved(last[1], last[0], near) if last else near
        of_all = c / self._share  # C times the number of rows is what the penalty goes by
        solution = self._start.fit(of_all, max_iter=max_iter, start=begin, aim=self._aim, loss=self._loss)
        self._ends = near, solution
        return solution

    def _loss(self, point: NDArray[np.float64], *, penalty: float) -> tuple[float, NDArray[np.float64]]:
        """As `Problem.loss`, over all rows."""
        weights = point[:, :-1] @ self._start.axes.T
        intercepts = point[:, -1] - weights @ self._start.mean
        loss, pulled, total = 0.0, np.zeros(weights.shape), np.zeros(len(weights))
        at_once = max(1, _CACHED // self._rows.shape[1])
        for block, rows in blocks_of(self._rows):
            labels = self._labels[block]
            for first in range(0, len(rows), at_once):
                some = slice(first, first + at_once)
                # The loss decides how line searches go, and in float32 they fail before the optimum.
                precise = rows[some].astype(np.float64)
                residual, of_some = _residual(precise, labels[some], weights, intercepts)
                loss += of_some
                pulled += residual.T.astype(np.float32) @ rows[some]
                total += residual.sum(axis=0)
        n = len(self._labels)
        pulled = (pulled - np.outer(total, self._start.mean)) @ self._start.axes
        gradient = np.column_stack([pulled / n + penalty * point[:, :-1], total / n])
        return loss / n + 0.5 * penalty * float((point[:, :-1] ** 2).sum()), gradient


def _moved(point: Solution, origin: Solution, goal: Solution) -> Solution:
    """A point, moved as one leads from an origin to a goal."""
    return Solution(
        point.coefficients + goal.coefficients - origin.coefficients,
        point.intercepts + goal.intercepts - origin.intercepts,
        converged=False,
    )


def _residual(
    rows: NDArray[np.float64],
    labels: NDArray[np.int64],
    weights: NDArray[np.float64],
    intercepts: NDArray[np.float64],
) -> tuple[NDArray[np.float64], float]:
    """(n, K) class probabilities minus one for the label, and the sum of the cross-entropies in nats."""
    scores = rows @ weights.T + intercepts
    scores -= scores.max(axis=1, keepdims=True)
    places = np.arange(len(labels))
    of_labels = scores[places, labels].sum()
    np.exp(scores, out=scores)
    totals = scores.sum(axis=1, keepdims=True)
    scores /= totals
    scores[places, labels] -= 1
    return scores, float(np.log(totals).sum() - of_labels)
