from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from clipcifar.core.errors import ConfigError, DataError
from clipcifar.evaluation import metrics, results
from clipcifar.evaluation.calibration import fit_temperature
from clipcifar.methods.linear import Linear
from clipcifar.methods.linear_probe import (
    GridPoint,
    LinearProbeParams,
    choose,
    curve_rows,
    fit,
    validation_curve,
)
from tests.support.synthetic import image_embeddings, prototypes, task, unit, with_test


def names(num_classes: int) -> list[str]:
    return [f"class {i}" for i in range(num_classes)]


def softmax(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    exponents = np.exp(scores.astype(np.float64))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def converged_reference(c: float) -> LogisticRegression:
    return LogisticRegression(C=c, max_iter=100_000, tol=1e-10)


@pytest.mark.parametrize("num_classes", [2, 3, 5])
@pytest.mark.parametrize("c", [0.1, 10.0])
def test_the_scores_are_scikit_learns_probabilities(num_classes: int, c: float) -> None:
    embeddings, labels = task(200, num_classes=num_classes, noise=1.5)
    unseen, _ = task(60, num_classes=num_classes, noise=1.5, seed=2)
    probe, converged = fit(embeddings, labels, c=c, max_iter=1000, class_names=names(num_classes))
    assert converged
    assert probe.coefficients.shape == (num_classes, embeddings.shape[1])
    assert probe.coefficients.dtype == probe.intercepts.dtype == probe.scores(unseen).dtype == np.float32
    reference = converged_reference(c).fit(embeddings.astype(np.float64), labels).predict_proba(unseen)
    np.testing.assert_allclose(
        softmax(probe.scores(unseen)), reference, atol=5e-4
    )  # at its default it misses by more


def test_the_probe_is_a_stationary_point_of_the_regularised_likelihood() -> None:
    """Without scikit-learn: the gradient of (mean cross-entropy) + |W|^2 / (2 C N) vanishes."""
    c, n = 3.0, 150
    embeddings, labels = task(n, noise=1.5)
    probe, _ = fit(embeddings, labels, c=c, max_iter=1000, class_names=names(3))

    def gradient(found: Linear) -> float:
        residual = softmax(found.scores(embeddings)) - np.eye(3)[labels]
        of_coefficients = residual.T @ embeddings.astype(np.float64) / n + found.coefficients / (c * n)
        return float(max(np.abs(of_coefficients).max(), np.abs(residual.mean(axis=0)).max()))

    tolerance = 1e-4  # scikit-learn stops at this largest component
    assert gradient(probe) < tolerance
    assert gradient(Linear(1.1 * probe.coefficients, probe.intercepts)) > 5 * tolerance


def test_scores_by_hand() -> None:
    probe = Linear(np.array([[1, 0], [2, -1]], np.float32), np.array([0.5, -1], np.float32))
    np.testing.assert_array_equal(probe.scores(np.array([[3, 4]], np.float32)), [[3.5, 1.0]])


@pytest.mark.parametrize(
    ("labels", "class_names", "message"),
    [
        ([0, 0, 2, 2], ["ant", "bee", "cow"], "no train images of bee"),
        ([0, 0, 0, 0], ["ant", "bee", "cow"], "no train images of bee, cow"),
        ([0, 0, 0, 0], ["ant"], "ant is the only class"),
    ],
)
def test_a_class_without_train_images_is_named(
    labels: list[int], class_names: list[str], message: str
) -> None:
    embeddings = unit(np.eye(4, 5))
    with pytest.raises(DataError, match=message) as caught:
        fit(embeddings, np.array(labels), c=1.0, max_iter=100, class_names=class_names)
    assert caught.value.exit_code == 3
    assert "train" in caught.value.where
    assert caught.value.fix


def point(c: float, val_accuracy: float, converged: bool = True) -> GridPoint:
    return GridPoint(
        c=c,
        train_accuracy=0.5,
        val_accuracy=val_accuracy,
        converged=converged,
        temperature=1,
        start_iterations=4,
        iterations=3,
    )


def test_the_best_c_on_val_is_chosen_and_the_smallest_of_equals() -> None:
    assert choose([point(0.1, 0.7), point(1, 0.9), point(10, 0.8)]).c == 1
    assert choose([point(10, 0.9), point(0.1, 0.7), point(1, 0.9)]).c == 1


def test_train_accuracy_has_no_say() -> None:
    assert choose([GridPoint(1, 0.6, 0.8, 1, True, 4, 3), GridPoint(10, 1.0, 0.7, 1, True, 4, 3)]).c == 1


def test_a_fit_that_did_not_converge_is_left_out() -> None:
    assert choose([point(0.1, 0.7), point(1, 0.9, converged=False)]).c == 0.1


def test_no_converged_fit_is_an_error_that_names_the_setting() -> None:
    with pytest.raises(ConfigError) as caught:
        choose([point(0.1, 0.7, converged=False), point(1, 0.9, converged=False)])
    assert caught.value.exit_code == 2
    assert "max_iter" in caught.value.fix


@given(
    st.lists(
        st.tuples(st.sampled_from([0.1, 1.0, 10.0, 100.0]), st.integers(0, 4), st.booleans()),
        min_size=1,
        unique_by=lambda item: item[0],
    ),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60)
def test_the_choice_is_a_naive_loops_whatever_the_order(
    items: list[tuple[float, int, bool]], random: object
) -> None:
    best: tuple[float, int] | None = None
    for c, hits, converged in sorted(items):
        if converged and (best is None or hits > best[1]):
            best = (c, hits)
    points = [point(c, hits / 4, converged) for c, hits, converged in items]
    random.shuffle(points)  # type: ignore[attr-defined]
    if best is None:
        with pytest.raises(ConfigError):
            choose(points)
    else:
        assert choose(points).c == best[0]


def test_the_validation_curve_is_a_loop_over_the_grid_in_ascending_order() -> None:
    embeddings, labels = task(120, noise=2.5)
    val, val_labels = task(80, noise=2.5, seed=2)
    grid = (10.0, 0.01, 1.0)
    fits = []
    points = validation_curve(
        embeddings,
        labels,
        val,
        val_labels,
        params=LinearProbeParams(c_grid=grid, max_iter=500),
        class_names=names(3),
        on_fit=lambda: fits.append(1),
    )
    assert len(fits) == 3
    expected = []
    for c in (0.01, 1.0, 10.0):
        model = converged_reference(c).fit(embeddings.astype(np.float64), labels)
        expected.append((c, model.score(embeddings, labels), model.score(val, val_labels), True))
        log_odds = model.decision_function(val)
        temperature = fit_temperature(log_odds, val_labels)
        assert points[len(expected) - 1].temperature == pytest.approx(temperature, rel=1e-3)
    assert [(p.c, p.train_accuracy, p.val_accuracy, p.converged) for p in points] == expected
    assert len({found.val_accuracy for found in points}) > 1


def test_too_few_iterations_are_recorded_point_by_point_without_a_warning() -> None:
    embeddings, labels = task(120, noise=4.0)
    params = LinearProbeParams(c_grid=(1e-6, 1e4), max_iter=5)
    points = validation_curve(
        embeddings, labels, embeddings, labels, params=params, class_names=names(3)
    )  # pytest makes warnings errors
    assert [found.converged for found in points] == [True, False]
    assert points[1].val_accuracy > points[0].val_accuracy  # it would be chosen if it were not left out
    assert choose(points).c == 1e-6
    _, converged = fit(embeddings, labels, c=1e4, max_iter=2000, class_names=names(3))
    assert converged


def test_curve_rows_are_drawn_over_the_logarithm_of_c() -> None:
    assert curve_rows([GridPoint(0.01, 0.5, 0.25, 1.5, True, 12, 3)]) == [
        {
            "log10_c": -2.0,
            "c": 0.01,
            "train_accuracy": 0.5,
            "val_accuracy": 0.25,
            "temperature": 1.5,
            "converged": True,
            "start_iterations": 12,
            "iterations": 3,
        }
    ]


def test_noise_does_not_look_like_signal() -> None:
    """Random features: train can be learned by heart, but val stays at chance."""
    rng = np.random.default_rng(3)
    n, n_val, num_classes = 60, 900, 3
    features = unit(rng.standard_normal((n + n_val, 32)))
    labels = np.arange(n + n_val) % num_classes
    noisy = np.where(rng.random(n + n_val) < 0.4, rng.integers(0, num_classes, n + n_val), labels)
    points = validation_curve(
        features[:n],
        noisy[:n],
        features[n:],
        noisy[n:],
        params=LinearProbeParams(c_grid=(0.1, 10, 1000), max_iter=2000),
        class_names=names(num_classes),
    )
    assert points[-1].train_accuracy > 0.9
    chance = np.bincount(noisy[n:]).max() / n_val
    assert all(found.val_accuracy < chance + 4 * np.sqrt(0.25 / n_val) for found in points)


def test_signal_is_found_under_forty_percent_label_noise() -> None:
    rng = np.random.default_rng(4)
    embeddings, labels = task(600, noise=0.7)
    noisy = np.where(rng.random(600) < 0.4, rng.integers(0, 3, 600), labels)
    probe, _ = fit(embeddings, noisy, c=1.0, max_iter=1000, class_names=names(3))
    unseen, truth = task(300, noise=0.7, seed=2)
    assert metrics.accuracy(probe.scores(unseen), truth) > 0.95
    assert metrics.accuracy(probe.scores(embeddings), noisy) < 0.8  # and what is noise was not learned


def test_imbalance_of_999_to_1_runs_and_shows_in_the_balanced_accuracy(tmp_path: Path) -> None:
    labels = np.zeros(1000, dtype=np.int64)
    labels[500] = 1
    centres = prototypes(2)
    rng = np.random.default_rng(5)
    embeddings = unit(centres[labels] + 0.3 * rng.standard_normal((1000, centres.shape[1])))
    probe, converged = fit(embeddings, labels, c=0.1, max_iter=500, class_names=names(2))
    assert converged
    found = metrics.summarise(probe.scores(embeddings), labels, class_names=["many", "one"])
    assert found["accuracy"] == 0.999
    assert found["per_class"] == {"many": 1.0, "one": 0.0}
    assert found["balanced_accuracy"] == 0.5
    images = with_test(image_embeddings(n_test=90), labels=np.array([0] * 88 + [1, 2]))
    scores = np.tile(np.array([[1, 0, 0]], np.float32), (90, 1))  # what such a probe says of everything
    written = results.write(
        "linear_probe",
        scores,
        images,
        temperature=1.0,
        predictions_path=tmp_path / "p.h5",
        metrics_path=tmp_path / "m.json",
        details_path=tmp_path / "details/m.json",
        plots_folder=tmp_path,
    )
    assert (written["accuracy"], written["balanced_accuracy"]) == (round(88 / 90, 5), round(1 / 3, 5))


@settings(max_examples=12, derandomize=True)
@given(st.permutations(range(4)), st.sampled_from([0.1, 1.0, 30.0]))
def test_permuting_the_classes_permutes_the_predictions(order: list[int], c: float) -> None:
    """Class k of one problem is class order[k] of the other."""
    embeddings, labels = task(160, num_classes=4, noise=2.0)
    unseen, _ = task(80, num_classes=4, noise=2.0, seed=9)
    renamed = np.array(order)
    plain, _ = fit(embeddings, labels, c=c, max_iter=2000, class_names=names(4))
    other, _ = fit(embeddings, renamed[labels], c=c, max_iter=2000, class_names=names(4))
    scores, permuted = plain.scores(unseen), other.scores(unseen)[:, renamed]
    np.testing.assert_allclose(permuted, scores, atol=5e-3 * np.abs(scores).max())
    ordered = np.sort(scores, axis=1)
    sure = ordered[:, -1] - ordered[:, -2] > 0.02 * np.abs(scores).max()
    assert sure.sum() > 60
    np.testing.assert_array_equal(
        renamed[scores.argmax(axis=1)][sure], other.scores(unseen).argmax(axis=1)[sure]
    )


def test_a_c_that_is_repeated_is_refused() -> None:
    with pytest.raises(ConfigError, match="twice in c_grid") as caught:
        LinearProbeParams((1.0, 3.0, 1.0), 10)
    assert caught.value.where == "params.yaml: linear_probe.c_grid"
