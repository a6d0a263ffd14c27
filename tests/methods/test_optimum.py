"""A linear probe's optimum against scikit-learn from a cold start, and against our own start."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from clipcifar.methods import logistic, optimum
from clipcifar.methods.linear_probe import LinearProbeParams, choose, solve, validation_curve
from clipcifar.methods.logistic import LOOSE, Problem, Solution
from clipcifar.methods.optimum import TOLERANCE, Regression
from tests.support.nightly import repeated
from tests.support.probe_sets import KINDS, Sets

SIZES = {"small": (500, 24, (0.1, 1.0, 10.0, 100.0, 1000.0)), "large": (4000, 96, (0.1, 1.0, 31.6, 1000.0))}


def names(sets: Sets) -> list[str]:
    return [f"class {label}" for label in range(sets.labels.max() + 1)]


def cold(sets: Sets, c: float) -> NDArray[np.int64]:
    """What scikit-learn says of val, started at zero and run until float64 ends it."""
    model = LogisticRegression(C=c, tol=1e-9, max_iter=100_000)
    model.fit(sets.rows.astype(np.float64), sets.labels)
    return np.asarray(model.predict(sets.val_rows.astype(np.float64)))


def predicted(solution: Solution, rows: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.asarray((rows @ solution.coefficients.T + solution.intercepts).argmax(axis=1))


def gradient(solution: Solution, sets: Sets, c: float) -> float:
    """The largest component of the objective's, naively, on centred rows as scikit-learn is given them."""
    rows = sets.rows.astype(np.float64)
    scores = rows @ solution.coefficients.T + solution.intercepts
    residual = np.exp(scores - scores.max(axis=1, keepdims=True))
    residual /= residual.sum(axis=1, keepdims=True)
    residual[np.arange(len(rows)), sets.labels] -= 1
    of_rows = residual.T @ (rows - rows.mean(axis=0)) / len(rows) + solution.coefficients / (c * len(rows))
    return float(max(np.abs(of_rows).max(), np.abs(residual.mean(axis=0)).max()))


@repeated("size", by_day="small", nightly="large")
@pytest.mark.parametrize("kind", KINDS)
def test_val_is_told_what_a_cold_scikit_learn_says_and_the_same_c_is_chosen(kind: str, size: str) -> None:
    n, dim, grid = SIZES[size]
    sets = KINDS[kind](n, dim)
    points = validation_curve(*sets, params=LinearProbeParams(grid, 2000), class_names=names(sets))
    assert all(point.converged for point in points)
    assert all(point.iterations > 0 for point in points)
    regression = Regression(sets.rows, sets.labels, num_classes=len(names(sets)))
    solution: Solution | None = None
    right = []
    for c, point in zip(grid, points, strict=True):
        solution = regression.fit(c, max_iter=2000, start=solution)
        expected = cold(sets, c)
        assert (predicted(solution, sets.val_rows) != expected).sum() <= 1, c
        right.append((expected == sets.val_labels).mean())
        assert abs(point.val_accuracy - right[-1]) <= 1e-4 + 1e-9
    chosen = choose(points).c
    assert chosen == grid[int(np.argmax(right))]
    refit = solve(sets.rows, sets.labels, c=chosen, max_iter=2000, class_names=names(sets))
    assert (predicted(refit, sets.val_rows) != cold(sets, chosen)).sum() <= 1


@repeated("shape", by_day=(6000, 24), nightly=(9000, 512))
def test_many_rows_begin_in_float32_and_are_told_the_same(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The smaller ones as if they were many."""
    sets = KINDS["like CLIP's"](*shape)
    for module in (logistic, optimum):
        monkeypatch.setattr(module, "FEW_NUMBERS", min(2**22, sets.rows.size - 1))
    regression = Regression(sets.rows, sets.labels, num_classes=10)
    assert regression._problem._rows.dtype == np.float32
    solution: Solution | None = None
    for c in (1.0, 10.0, 100.0):
        solution = regression.fit(c, max_iter=2000, start=solution)
        assert solution.iterations > 0
        assert gradient(solution, sets, c) <= 1.01 * TOLERANCE
        assert (predicted(solution, sets.val_rows) != cold(sets, c)).sum() <= 1


@pytest.mark.parametrize("c", [1.0, 100.0])
def test_the_last_iterations_are_scikit_learns_and_bring_the_optimum_nearer(c: float) -> None:
    sets = KINDS["like CLIP's"](500, 24)
    start = Problem(sets.rows, sets.labels, num_classes=10).fit(c, max_iter=2000, aim=LOOSE / 10)
    end = Regression(sets.rows, sets.labels, num_classes=10).fit(c, max_iter=2000)
    assert end.own_iterations == start.own_iterations > 0
    assert end.iterations > 0
    assert gradient(end, sets, c) <= 0.101 * TOLERANCE < 0.5 * TOLERANCE < gradient(start, sets, c)


def test_what_scikit_learn_leaves_is_what_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coefficients, iterations and warning; a step of scikit-learn's that is not taken would show here."""
    sets = KINDS["like CLIP's"](500, 24)
    given = []

    def fit(model: LogisticRegression, rows: NDArray[np.float64], labels: NDArray[np.int64]) -> None:
        given.append((model.get_params(), model.coef_.copy(), rows, labels))
        model.coef_, model.intercept_ = np.full((10, 24), 2.0), np.arange(10.0)
        model.n_iter_ = np.array([17])

    monkeypatch.setattr(LogisticRegression, "fit", fit)
    found = Regression(sets.rows, sets.labels, num_classes=10).fit(1.0, max_iter=50)
    assert (found.coefficients == 2).all()
    np.testing.assert_allclose(found.intercepts, np.arange(10) - 2 * sets.rows.mean(axis=0).sum(), atol=1e-5)
    assert (found.iterations, found.converged) == (17, True)
    params, start, rows, labels = given[0]
    asked = {name: params[name] for name in ("C", "solver", "max_iter", "warm_start")}
    assert asked == {"C": 1.0, "solver": "lbfgs", "max_iter": 50, "warm_start": True}
    assert params["tol"] == TOLERANCE / 10  # of few rows
    near = Problem(sets.rows, sets.labels, num_classes=10).fit(1.0, max_iter=50, aim=LOOSE / 10)
    np.testing.assert_array_equal(start, near.coefficients)
    assert rows.dtype == np.float64
    assert np.abs(rows.mean(axis=0)).max() < 1e-12
    assert labels is sets.labels


def test_its_warning_is_heard_and_not_passed_on() -> None:
    sets = KINDS["like CLIP's"](500, 24)
    regression = Regression(sets.rows, sets.labels, num_classes=10)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        short, long = (regression.fit(100.0, max_iter=limit) for limit in (2, 2000))
    assert not caught
    assert (short.converged, short.own_iterations, short.iterations) == (False, 2, 2)
    assert long.converged


def test_other_warnings_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    sets = KINDS["like CLIP's"](500, 24)
    whole = LogisticRegression.fit

    def fit(model: LogisticRegression, *arguments: object) -> None:
        warnings.warn("this will go", FutureWarning, stacklevel=1)
        whole(model, *arguments)

    monkeypatch.setattr(LogisticRegression, "fit", fit)
    regression = Regression(sets.rows, sets.labels, num_classes=10)
    with pytest.warns(FutureWarning, match="this will go"):
        assert regression.fit(1.0, max_iter=2000).converged


def test_two_classes_are_one_row_halved() -> None:
    sets = KINDS["90 to 10"](500, 24)
    regression = Regression(sets.rows, sets.labels, num_classes=2)
    near = regression.fit(3.0, max_iter=2000)
    found = regression.fit(10.0, max_iter=2000, start=near)
    model = LogisticRegression(C=10.0, tol=1e-10, max_iter=100_000).fit(
        sets.rows.astype(np.float64), sets.labels
    )
    np.testing.assert_array_equal(found.coefficients[0], -found.coefficients[1])
    assert found.intercepts[0] == -found.intercepts[1]
    difference = found.coefficients[1] - found.coefficients[0]
    np.testing.assert_allclose(difference, model.coef_[0], atol=1e-4 * np.abs(model.coef_).max())
    assert found.intercepts[1] - found.intercepts[0] == pytest.approx(model.intercept_[0], rel=1e-4)
    assert found.own_iterations < regression.fit(10.0, max_iter=2000).own_iterations


def test_a_start_that_is_the_optimum_already_gets_a_tighter_tolerance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Or scikit-learn would hand back bit by bit what it was given."""
    sets = KINDS["like CLIP's"](500, 24)
    monkeypatch.setattr(optimum, "LOOSE", 1e-6)
    exact = Regression(sets.rows, sets.labels, num_classes=10).fit(10.0, max_iter=2000)
    assert exact.converged
    assert exact.iterations > 0
    assert gradient(exact, sets, 10.0) < 0.5 * TOLERANCE / 10


def test_where_all_rows_are_told_apart_the_tolerance_shrinks_with_the_hessian() -> None:
    """At 1e-6 scikit-learn has nothing to do here, and is off the optimum by a tenth of its row."""
    sets = KINDS["duplicated"](500, 24)
    found = Regression(sets.rows, sets.labels, num_classes=10).fit(1000.0, max_iter=2000)
    assert found.doubt < 0.01
    assert gradient(found, sets, 1000.0) < 0.1 * TOLERANCE
