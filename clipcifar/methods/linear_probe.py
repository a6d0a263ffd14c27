"""Linear probe: scikit-learn's multinomial logistic regression on frozen image embeddings.

Protocol: C is chosen on val, the smallest one where several are equally good; then the classifier
is refitted with that C on train and val together. Its temperature is that of the fit on train alone,
since the refit has seen val. Test is not an argument of anything here.

CLIP's paper (Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
Supervision", ICML, https://arxiv.org/abs/2103.00020, appendix A.3) fits the features before the
projection into the joint space, not normalised, by L-BFGS of at most 1,000 iterations, with its penalty
swept over 1e-6 to 1e6. Here they are the embeddings after it, of length 1, so neither the numbers nor C
are the paper's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.counts import count_of
from clipcifar.core.errors import ConfigError
from clipcifar.core.params import Range, check_distinct
from clipcifar.evaluation.calibration import fit_temperature
from clipcifar.evaluation.metrics import accuracy
from clipcifar.methods.linear import Linear
from clipcifar.methods.logistic import Solution
from clipcifar.methods.optimum import Regression
from clipcifar.methods.streamed import StreamedRegression
from clipcifar.store.rows import Embeddings, Rows, blocks_of
from clipcifar.store.splits import check_classes

IN_MEMORY = 2**26  # numbers, of rows in parts that are fitted in memory: a gigabyte in all


@dataclass(frozen=True)
class LinearProbeParams:
    """The `linear_probe` section: inverse regularisation strengths to try, and the iteration limit of a fit.

    The limit holds for the start and for scikit-learn's part alike. Of more rows than `max_rows`, as many are
    drawn (`splits.drawn`); None for all.
    """

    c_grid: Annotated[tuple[float, ...], Range(1e-4, 1e8)]
    max_iter: Annotated[int, Range(1)]
    max_rows: Annotated[int | None, Range(1)] = 1_000_000

    def __post_init__(self) -> None:
        check_distinct(self.c_grid, "linear_probe.c_grid")


@dataclass(frozen=True)
class GridPoint:
    """One C of the grid.

    Attributes:
        c: inverse regularisation strength.
        train_accuracy, val_accuracy: in [0, 1].
        temperature: that val says the logits should be divided by.
        converged: whether scikit-learn's solver did.
        start_iterations: of our own solver, that brought it near.
        iterations: scikit-learn's.
    """

    c: float
    train_accuracy: float
    val_accuracy: float
    temperature: float
    converged: bool
    start_iterations: int
    iterations: int


def solve(
    embeddings: Embeddings,
    labels: NDArray[np.int64],
    *,
    c: float,
    max_iter: int,
    class_names: list[str],
) -> Solution:
    """Fit one probe, and say how it went.

    Args:
        embeddings: (N, D) float32.
        labels: (N,) int64; every class must occur.
        c: inverse regularisation strength, as scikit-learn defines it (not divided by N).

    Raises:
        DataError: there is one class only, or a class does not occur.
    """
    check_classes(labels, class_names=class_names, split="train")
    return _regression(embeddings, labels, num_classes=len(class_names)).fit(c, max_iter=max_iter)


def fit(
    embeddings: Embeddings,
    labels: NDArray[np.int64],
    *,
    c: float,
    max_iter: int,
    class_names: list[str],
) -> tuple[Linear, bool]:
    """`solve` for the probe alone, and whether the solver converged."""
    solution = solve(embeddings, labels, c=c, max_iter=max_iter, class_names=class_names)
    return Linear.of(solution.coefficients, solution.intercepts), solution.converged


def _regression(
    embeddings: Embeddings, labels: NDArray[np.int64], *, num_classes: int
) -> Regression | StreamedRegression:
    """scikit-learn's fit, which holds the rows about four times; of more rows, one by passes over them."""
    if isinstance(embeddings, Rows) and embeddings.size > IN_MEMORY:
        return StreamedRegression(embeddings, labels, num_classes=num_classes)
    return Regression(np.asarray(embeddings), labels, num_classes=num_classes)


def not_converged(count: int, max_iter: int) -> list[str]:
    """A line that says so, where fits that are used ended before they converged; no line where none did."""
    if not count:
        return []
    fits = count_of(count, "fit, used as it is", "fits, used as they are")
    return [f"Not converged in {max_iter} iterations: {fits}. Raise linear_probe.max_iter."]


def choose(points: list[GridPoint]) -> GridPoint:
    """The point with the best val accuracy among the converged, the smallest C of equals.

    Raises:
        ConfigError: no fit converged.
    """
    converged = [point for point in points if point.converged]
    if not converged:
        raise ConfigError(
            "logistic regression converged for no C of the grid",
            where="params.yaml: linear_probe",
            fix="raise linear_probe.max_iter or lower the values of c_grid",
        )
    return min(converged, key=lambda point: (-point.val_accuracy, point.c))


def validation_curve(
    embeddings: Embeddings,
    labels: NDArray[np.int64],
    val_embeddings: Embeddings,
    val_labels: NDArray[np.int64],
    *,
    params: LinearProbeParams,
    class_names: list[str],
    on_fit: Callable[[], object] = lambda: None,
) -> list[GridPoint]:
    """Fit every C of the grid on train, each from the solution of the one before, and score it on val.

    Args:
        embeddings, labels: train, (N, D) float32 and (N,) int64.
        val_embeddings, val_labels: val, shaped likewise.
        on_fit: called after each fit.
    """
    check_classes(labels, class_names=class_names, split="train")
    regression = _regression(embeddings, labels, num_classes=len(class_names))
    points: list[GridPoint] = []
    solution: Solution | None = None
    for c in sorted(params.c_grid):
        solution = regression.fit(c, max_iter=params.max_iter, start=solution)
        probe = Linear.of(solution.coefficients, solution.intercepts)
        val_scores = probe.scores(val_embeddings)
        points.append(
            GridPoint(
                c,
                _accuracy(probe, embeddings, labels),
                accuracy(val_scores, val_labels),
                fit_temperature(val_scores, val_labels),
                solution.converged,
                solution.own_iterations,
                solution.iterations,
            )
        )
        on_fit()
    return points


def _accuracy(probe: Linear, embeddings: Embeddings, labels: NDArray[np.int64]) -> float:
    """In [0, 1]; holds the scores of a block."""
    hits = [
        int((probe.scores(rows).argmax(axis=1) == labels[block]).sum())
        for block, rows in blocks_of(embeddings)
    ]
    return sum(hits) / len(labels)


def curve_rows(points: list[GridPoint]) -> list[dict[str, Any]]:
    """The validation curve as plot rows, with log10(C) to draw it over."""
    return [{"log10_c": math.log10(point.c), **asdict(point)} for point in points]


def as_metrics(points: list[GridPoint], chosen: GridPoint, refit: Solution) -> dict[str, Any]:
    """What was chosen, and how the fits of the grid and the refit with its choice went."""
    n = sum(point.converged for point in points)
    return {
        "selected": {"c": chosen.c},
        "iterations": {"start": refit.own_iterations, "scikit_learn": refit.iterations},
        "converged": {"n": n, "n_not": len(points) - n, "refit": int(refit.converged)},
    }
