"""The solver against scikit-learn run to its optimum, and against its own promises."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from clipcifar.methods import logistic
from clipcifar.methods.logistic import Problem, Solution


def clip_like(n: int, *, seed: int = 0, dim: int = 24) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit rows with a large common mean and variances over two orders of magnitude, four classes."""
    rng = np.random.default_rng(seed)
    shape = np.random.default_rng(9)
    spectrum = (1 + np.arange(dim)) ** -1.0
    rotation = np.linalg.qr(shape.normal(size=(dim, dim)))[0]
    common, means = shape.normal(size=dim), shape.normal(size=(4, dim)) * spectrum
    labels = rng.integers(0, 4, n)
    rows = 2 * common + (0.8 * means[labels] + rng.normal(size=(n, dim)) * spectrum) @ rotation
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def loss(found: Solution, rows: NDArray[np.float32], labels: NDArray[np.int64], c: float) -> float:
    """The objective, naively and in float64."""
    scores = rows.astype(np.float64) @ found.coefficients.T + found.intercepts
    likelihoods = scores[np.arange(len(rows)), labels] - np.log(np.exp(scores).sum(axis=1))
    return float(-likelihoods.mean() + (found.coefficients**2).sum() / (2 * c * len(rows)))


@pytest.mark.parametrize("c", [0.1, 10.0, 1000.0])
def test_a_fit_is_nearer_to_the_optimum_than_scikit_learns_default(c: float) -> None:
    rows, labels = clip_like(600)
    found = Problem(rows, labels, num_classes=4).fit(c, max_iter=1000)
    assert found.converged
    exact, usual = (
        LogisticRegression(C=c, max_iter=100_000, tol=tol).fit(rows.astype(np.float64), labels)
        for tol in (1e-10, 1e-4)
    )
    optimum, of_usual = (
        loss(Solution(model.coef_, model.intercept_, True), rows, labels, c) for model in (exact, usual)
    )
    excess = loss(found, rows, labels, c) - optimum
    assert -1e-9 < excess < 1e-6
    if c > 1:
        assert excess < 0.1 * (of_usual - optimum)


def test_where_a_fit_starts_does_not_change_where_it_ends() -> None:
    rows, labels = clip_like(500)
    problem = Problem(rows, labels, num_classes=4)
    cold = problem.fit(30.0, max_iter=1000)
    warm = problem.fit(30.0, max_iter=1000, start=problem.fit(10.0, max_iter=1000))
    near = problem.fit(10.0, max_iter=1000)
    difference = np.abs(cold.coefficients - warm.coefficients).max()
    assert difference < 0.02 * np.abs(cold.coefficients - near.coefficients).max()
    assert abs(loss(cold, rows, labels, 30) - loss(warm, rows, labels, 30)) < 1e-7


@pytest.mark.parametrize("c", [1e4, 1e6, 1e8])
def test_rows_that_can_be_separated_end_at_the_optimum_too(c: float) -> None:
    """There p (1 - p) collapses on the way, and a fit may not stop where only its old scale says so."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 3
    rows = rng.standard_normal((3, 16))[labels] + 0.6 * rng.standard_normal((200, 16))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    problem = Problem(rows, labels, num_classes=3)
    cold = problem.fit(c, max_iter=5000)
    warm: Solution | None = None
    for smaller in (1.0, 100.0, 1e4, 1e5, 1e6, 1e7, 1e8):
        if smaller <= c:
            warm = problem.fit(smaller, max_iter=5000, start=warm)
    assert warm is not None
    assert cold.converged
    assert warm.converged
    exact = LogisticRegression(C=c, max_iter=1_000_000, tol=1e-14).fit(rows.astype(np.float64), labels)
    optimum = loss(Solution(exact.coef_, exact.intercept_, True), rows, labels, c)
    for found in (cold, warm):
        assert loss(found, rows, labels, c) - optimum < 5e-7  # nats


def test_a_start_saves_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = clip_like(500)
    problem, calls = Problem(rows, labels, num_classes=4), [0]
    counted = problem.loss

    def count(*arguments: object, **named: object) -> tuple[float, NDArray[np.float64]]:
        calls[0] += 1
        return counted(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(problem, "loss", count)
    solution = problem.fit(30.0, max_iter=1000)
    cold, calls[0] = calls[0], 0
    problem.fit(30.0, max_iter=1000, start=solution)
    assert calls[0] <= 5 < cold


def test_shifting_all_rows_moves_only_the_intercepts() -> None:
    rows, labels = clip_like(400)
    shift = np.full(rows.shape[1], 0.25, np.float32)
    before = Problem(rows, labels, num_classes=4).fit(5.0, max_iter=1000)
    after = Problem(rows + shift, labels, num_classes=4).fit(5.0, max_iter=1000)
    np.testing.assert_allclose(after.coefficients, before.coefficients, atol=2e-2)
    moved = before.intercepts - before.coefficients @ shift
    np.testing.assert_allclose(after.intercepts - after.intercepts.mean(), moved - moved.mean(), atol=2e-2)


def test_the_gradient_is_that_of_finite_differences() -> None:
    rows, labels = clip_like(80, dim=5)
    problem = Problem(rows, labels, num_classes=4)
    point = np.random.default_rng(1).normal(size=(4, 6))
    _, gradient = problem.loss(point, penalty=0.3)
    for i, j in ((0, 0), (2, 3), (3, 5)):
        step = np.zeros_like(point)
        step[i, j] = 0.05
        after, before = (problem.loss(moved, penalty=0.3)[0] for moved in (point + step, point - step))
        assert (after - before) / 0.1 == pytest.approx(gradient[i, j], abs=2e-4)


def test_the_curvature_is_the_root_of_the_hessians_diagonal() -> None:
    rows, labels = clip_like(80, dim=5)
    problem = Problem(rows, labels, num_classes=4)
    point = np.random.default_rng(1).normal(size=(4, 6))
    curvature = problem._curvature(point, 0.3)
    for i, j in ((0, 0), (2, 3), (3, 5)):
        step = np.zeros_like(point)
        step[i, j] = 0.05
        change = problem.loss(point + step, penalty=0.3)[1] - problem.loss(point - step, penalty=0.3)[1]
        assert curvature[i, j] ** 2 == pytest.approx(change[i, j] / 0.1, rel=2e-2)


def test_too_few_steps_are_not_called_converged() -> None:
    rows, labels = clip_like(300)
    problem = Problem(rows, labels, num_classes=4)
    assert not problem.fit(1000.0, max_iter=2).converged
    assert problem.fit(1000.0, max_iter=1000).converged


def test_the_solvers_blas_is_limited_only_while_it_runs() -> None:
    controller = logistic.ThreadpoolController()
    before = [library.num_threads for library in controller.lib_controllers]
    with logistic.one_thread_for_the_solver():
        inside = {
            library.filepath: library.num_threads
            for library in logistic.ThreadpoolController().lib_controllers
        }
    own = [number for path, number in inside.items() if "scipy.libs" in path]
    if not own:
        pytest.skip("this SciPy brings no BLAS of its own")
    assert set(own) == {1}
    assert [library.num_threads for library in controller.lib_controllers] == before


def _naive(
    rows: NDArray[np.float32], labels: NDArray[np.int64], offsets: NDArray[np.float32], c: float
) -> NDArray[np.float64]:
    """Coefficients beside fixed logits, without intercepts, by plain gradient descent in float64."""
    x, n = rows.astype(np.float64), len(rows)
    coefficients = np.zeros((offsets.shape[1], rows.shape[1]))
    for _ in range(3_000):
        scores = x @ coefficients.T + offsets
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        p[np.arange(n), labels] -= 1
        coefficients -= p.T @ x / n + coefficients / (c * n)
    return coefficients


def test_fixed_logits_stay_and_the_fit_adds_to_them() -> None:
    rows, labels = clip_like(60, dim=5)
    offsets = (4 * rows @ np.random.default_rng(2).normal(size=(5, 4))).astype(np.float32)
    found = Problem(rows, labels, num_classes=4, offsets=offsets, intercepts="none").fit(2.0, max_iter=1000)
    assert found.converged
    assert not found.intercepts.any()
    np.testing.assert_allclose(found.coefficients, _naive(rows, labels, offsets, 2.0), atol=1e-4)
    plain = Problem(rows, labels, num_classes=4, intercepts="none").fit(2.0, max_iter=1000)
    assert np.abs(plain.coefficients - found.coefficients).max() > 0.1  # or they would not have counted
    np.testing.assert_allclose(plain.coefficients, _naive(rows, labels, 0 * offsets, 2.0), atol=1e-4)


def test_a_strong_penalty_leaves_the_fixed_logits_alone() -> None:
    rows, labels = clip_like(60, dim=5)
    offsets = np.tile(np.float32([0, 1, 2, 3]), (60, 1))
    free, none = (
        Problem(rows, labels, num_classes=4, offsets=offsets, intercepts=intercepts).fit(1e-6, max_iter=1000)
        for intercepts in ("free", "none")
    )
    assert np.abs(none.coefficients).max() < 1e-4
    assert free.intercepts[0] - free.intercepts[3] > 2  # free ones undo what the labels do not bear out


def test_fixed_logits_that_are_the_same_for_all_classes_change_nothing() -> None:
    rows, labels = clip_like(100, dim=5)
    same = np.broadcast_to(rows[:, :1] * 3, (100, 4))
    before, after = (
        Problem(rows, labels, num_classes=4, offsets=offsets).fit(5.0, max_iter=1000)
        for offsets in (None, same)
    )
    np.testing.assert_allclose(after.coefficients, before.coefficients, atol=1e-3)
