"""A linear probe by passes over blocks of rows: the optimum is that of all rows in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from clipcifar.methods import linear_probe, streamed
from clipcifar.methods.logistic import Solution
from clipcifar.methods.streamed import StreamedRegression
from clipcifar.store import parts
from clipcifar.store.rows import Rows
from tests.support import made, synthetic


def crowded(n: int, *, num_classes: int, dim: int = 24) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit rows that share a large mean, as CLIP's do, and overlap; the last class is rare."""
    rng = np.random.default_rng(num_classes)
    labels = np.minimum(rng.integers(0, 4 * num_classes, n) // 4, num_classes - 1)
    labels[rng.permutation(np.flatnonzero(labels == num_classes - 1))[3:]] = 0
    centres = rng.normal(size=(num_classes, dim))
    return synthetic.unit(centres[labels] + 1.5 * rng.normal(size=(n, dim)) + 4), labels


def cold(rows: NDArray[np.float32], labels: NDArray[np.int64], c: float) -> NDArray[np.float64]:
    """Class probabilities by scikit-learn, started at zero and run until float64 ends it."""
    model = LogisticRegression(C=c, tol=1e-10, max_iter=100_000)
    precise = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    return np.asarray(model.fit(precise, labels).predict_proba(precise))


def probabilities(solution: Solution, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    scores = rows @ solution.coefficients.T + solution.intercepts
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(scores / scores.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("sample", [150, 10_000])
def test_the_optimum_is_scikit_learns(num_classes: int, sample: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "SAMPLE_ROWS", sample)
    rows, labels = crowded(1200, num_classes=num_classes)
    regression, solution = StreamedRegression(rows, labels, num_classes=num_classes), None
    for c in (0.1, 10.0, 1000.0):
        solution = regression.fit(c, max_iter=2000, start=solution)
        assert solution.converged
        expected = cold(rows, labels, c)
        assert np.abs(probabilities(solution, rows) - expected).max() < 2e-4
    of_sample = regression._start.fit(
        1000.0 / regression._share, max_iter=2000
    )  # the control: where it starts
    assert (np.abs(probabilities(of_sample, rows) - expected).max() > 1e-2) == (sample < 1200)


def test_a_rare_class_is_in_every_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "SAMPLE_ROWS", 5)
    rows, labels = crowded(600, num_classes=5)
    solution = StreamedRegression(rows, labels, num_classes=5).fit(10.0, max_iter=2000)
    assert np.abs(probabilities(solution, rows) - cold(rows, labels, 10.0)).max() < 2e-4


def test_too_few_iterations_are_told() -> None:
    rows, labels = crowded(600, num_classes=5)
    assert not StreamedRegression(rows, labels, num_classes=5).fit(1000.0, max_iter=2).converged


def test_rows_in_parts_are_fitted_by_passes_above_a_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", 100)
    rows, labels = crowded(450, num_classes=3)
    on_disk = made.write_rows(tmp_path, rows, rows[:30], labels=labels).train.embeddings
    assert isinstance(on_disk, Rows)
    asked = {"c": 10.0, "max_iter": 2000, "class_names": made.NAMES}
    in_memory = linear_probe.solve(on_disk, labels, **asked)
    assert in_memory.iterations  # scikit-learn's
    monkeypatch.setattr(linear_probe, "IN_MEMORY", on_disk.size - 1)
    by_passes = linear_probe.solve(on_disk, labels, **asked)
    assert not by_passes.iterations
    assert by_passes.converged
    assert np.abs(probabilities(by_passes, rows) - probabilities(in_memory, rows)).max() < 2e-4
