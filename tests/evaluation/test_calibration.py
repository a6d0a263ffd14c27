from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import optimize, special

from clipcifar.core.errors import DataError
from clipcifar.evaluation import calibration


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 200))
def test_calibration_error_equals_a_loop_over_bins(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    confidence, correct = rng.uniform(0.01, 1, n), rng.random(n) < 0.5
    total = 0.0
    for b in range(calibration.BINS):
        inside = (confidence >= b / calibration.BINS) & (confidence < (b + 1) / calibration.BINS)
        if inside.any():
            total += inside.sum() / n * abs(confidence[inside].mean() - correct[inside].mean())
    assert calibration.expected_calibration_error(confidence, correct) == pytest.approx(total)


def test_calibration_error_at_its_ends() -> None:
    ones, right = np.ones(4), np.array([True] * 4)
    assert calibration.expected_calibration_error(ones, right) == 0
    assert calibration.expected_calibration_error(ones, ~right) == 1


def test_log_softmax_survives_large_scores() -> None:
    scores = np.array([[1e4, 0, -1e4], [1, 2, 3]], dtype=np.float32)
    np.testing.assert_allclose(
        calibration.log_softmax(scores), special.log_softmax(scores.astype(float), axis=1)
    )


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(-50, 50))
def test_probabilities_sum_to_one_and_ignore_a_common_shift(seed: int, shift: float) -> None:
    scores = np.random.default_rng(seed).normal(size=(5, 4)).astype(np.float32)
    found = calibration.log_softmax(scores)
    assert found.dtype == np.float64
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(calibration.log_softmax(scores + np.float32(shift)), found, atol=1e-4)


def test_a_confidence_on_the_edge_belongs_to_the_upper_bin_and_one_to_the_last() -> None:
    """Were 1/3 counted with 0.30, its gap of 1/3 and the other's of -0.7 would partly cancel."""
    confidence, correct = np.array([1 / 3, 0.30]), np.array([False, True])
    assert calibration.expected_calibration_error(confidence, correct) == pytest.approx((1 / 3 + 0.7) / 2)
    confidence = np.array([1.0, 0.95])  # both in the last of 15 bins
    assert calibration.expected_calibration_error(confidence, np.array([True, False])) == pytest.approx(
        0.95 / 2
    )


def noisy_scores(seed: int, *, n: int = 500, num_classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose labels are drawn from their own softmax: calibrated as they are."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, num_classes)) * 2
    labels = np.array([rng.choice(num_classes, p=row) for row in special.softmax(scores, axis=1)])
    return scores.astype(np.float32), labels


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(0.05, 50))
def test_the_temperature_is_scipys_minimum(seed: int, scale: float) -> None:
    scores, labels = noisy_scores(seed)
    scores = scores * np.float32(scale)

    def nll(log_temperature: float) -> float:
        """Of labels smoothed by 1 / (N + 1)."""
        logs = special.log_softmax(scores.astype(float) / np.exp(log_temperature), axis=1)
        smoothing = 1 / (len(labels) + 1)
        plain, uniform = logs[np.arange(len(labels)), labels].mean(), logs.mean()
        return float(-(1 - smoothing) * plain - smoothing * uniform)

    found = calibration.fit_temperature(scores, labels)
    best = optimize.minimize_scalar(nll, bounds=(np.log(1e-3), np.log(1e3)), method="bounded")
    assert nll(np.log(found)) <= best.fun + 1e-9


def test_the_temperature_undoes_a_factor() -> None:
    scores, labels = noisy_scores(1, n=4000)
    found = calibration.fit_temperature(scores, labels)
    assert found == pytest.approx(1, abs=0.1)  # drawn to be calibrated
    assert calibration.fit_temperature(scores * 8, labels) == pytest.approx(8 * found, rel=1e-5)


def test_a_method_that_is_right_on_all_of_val_does_not_become_infinitely_sure() -> None:
    """By hand: with logits 1 and 0 of N equal images the optimum has p = 1 - 1 / (2 (N + 1))."""
    for n in (1, 9, 999):
        scores = np.tile(np.array([[1.0, 0.0]]), (n, 1))
        sure = 1 - 1 / (2 * (n + 1))
        expected = 1 / np.log(sure / (1 - sure))
        found = calibration.fit_temperature(scores, np.zeros(n, np.int64))
        assert found == pytest.approx(expected, rel=1e-6)


def test_a_temperature_stays_in_its_range() -> None:
    wrong = np.eye(3, dtype=np.float32)[[1, 2, 0]]
    assert calibration.fit_temperature(wrong, np.arange(3)) == pytest.approx(1e3)
    assert 1e-3 <= calibration.fit_temperature(np.zeros((2, 3), np.float32), np.array([0, 1])) <= 1e3
    with pytest.raises(DataError, match="temperature"):
        calibration.fit_temperature(np.zeros((0, 3), np.float32), np.zeros(0, np.int64))


def test_on_separable_val_the_calibrated_likelihood_of_test_stays_sane() -> None:
    """Thirty val images without an error, as small folders have them, and a test split with some."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 500)
    scores = 4 * np.eye(3)[labels] + rng.normal(size=(500, 3))
    right = np.flatnonzero(scores.argmax(axis=1) == labels)[:30]
    temperature = calibration.fit_temperature(scores[right], labels[right])
    logs = special.log_softmax(scores / temperature, axis=1)
    assert -logs[np.arange(500), labels].mean() < 0.3


def test_reliability_bins_by_hand_and_against_the_error() -> None:
    """Confidences 0.5, 0.52, 0.99 and 1 - 1e-9, of which the second is wrong."""
    shares = np.array([[0.5, 0.5], [0.48, 0.52], [0.99, 0.01], [1 - 1e-9, 1e-9]])
    scores, labels = np.log(shares), np.array([0, 0, 0, 0])
    low, high = calibration.reliability(scores, labels)
    assert (low.confidence, low.accuracy, low.n) == (pytest.approx(0.51), 0.5, 2)
    assert (high.confidence, high.accuracy, high.n) == (pytest.approx(0.995), 1.0, 2)
    gap = sum(b.n / 4 * abs(b.confidence - b.accuracy) for b in (low, high))
    found = calibration.expected_calibration_error(shares.max(axis=1), scores.argmax(axis=1) == labels)
    assert found == pytest.approx(gap)
