from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import special, stats
from sklearn.metrics import balanced_accuracy_score, log_loss, top_k_accuracy_score

from clipcifar.core.errors import DataError
from clipcifar.evaluation import metrics

NAMES = ["cat", "dog", "eel"]


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipys(pair: tuple[int, int]) -> None:
    expected = stats.binomtest(*pair).proportion_ci(method="wilson")
    low, high = metrics.wilson_interval(*pair)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= low <= pair[0] / pair[1] + 1e-12 <= high + 2e-12 <= 1 + 2e-12


def test_wilson_refuses_what_is_no_proportion() -> None:
    for pair in ((1, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="expected"):
            metrics.wilson_interval(*pair)


def test_the_interval_at_the_references_noise_floor() -> None:
    low, high = metrics.wilson_interval(9360, 10_000)
    assert (high - low) / 2 == pytest.approx(0.0048, abs=5e-5)


def test_a_summary_by_hand() -> None:
    scores = np.log(
        np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]], np.float32)
    )
    found = metrics.summarise(scores, np.array([0, 1, 1, 2]), class_names=NAMES)
    assert (found["accuracy"], found["n"], found["n_correct"]) == (0.75, 4, 3)
    assert found["per_class"] == {"cat": 1.0, "dog": 0.5, "eel": 1.0}
    assert found["balanced_accuracy"] == pytest.approx(2.5 / 3)
    assert found["nll"] == pytest.approx(-np.mean(np.log([0.7, 0.3, 0.8, 0.6])), abs=1e-6)
    assert found["accuracy_ci95"]["low"] < 0.75 < found["accuracy_ci95"]["high"]


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_summaries_agree_with_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(3), rng.integers(0, 3, 30)])
    scores = rng.normal(size=(33, 3)).astype(np.float32)
    found = metrics.summarise(scores, labels, class_names=NAMES)
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, scores.argmax(axis=1)))
    assert found["nll"] == pytest.approx(
        log_loss(labels, special.softmax(scores.astype(float), axis=1)), abs=1e-6
    )
    assert found["accuracy"] == metrics.accuracy(scores, labels)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(6, 20), st.booleans())
def test_top_5_agrees_with_scikit_learn_and_among_ties_counts_the_first(
    seed: int, num_classes: int, with_ties: bool
) -> None:
    """scikit-learn prefers the last of equal scores: it is given the classes in the other order."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, 40)
    scores = rng.normal(size=(40, num_classes)).astype(np.float32)
    if with_ties:
        scores = np.round(scores)
    backwards = num_classes - 1 - labels
    expected = top_k_accuracy_score(backwards, scores[:, ::-1], k=5, labels=range(num_classes))
    found = metrics.top5_accuracy(scores, labels)
    assert found == pytest.approx(expected)
    assert found >= metrics.accuracy(scores, labels)
    by_sorting = (np.argsort(-scores, axis=1, kind="stable")[:, :5] == labels[:, None]).any(axis=1)
    assert found == by_sorting.mean()


def test_scores_that_tell_nothing_are_right_in_five_of_all_classes_and_no_more() -> None:
    assert metrics.top5_accuracy(np.zeros((20, 20), np.float32), np.arange(20)) == 5 / 20


@pytest.mark.parametrize("num_classes", [10, 11])
def test_top_5_is_among_the_numbers_of_more_than_ten_classes(num_classes: int) -> None:
    names = [f"class {i}" for i in range(num_classes)]
    scores = -np.abs(np.subtract.outer(np.arange(num_classes), np.arange(num_classes))).astype(np.float32)
    found = metrics.summarise(scores, np.roll(np.arange(num_classes), 3), class_names=names)
    assert ("top5_accuracy" in found) == (num_classes > 10)
    assert found["accuracy"] == 0.0
    if num_classes > 10:
        # Three classes away, of which five to seven are as near or nearer: the first side in, the other out.
        assert 0.0 < found["top5_accuracy"] < 1.0


def test_a_tie_goes_to_the_first_class() -> None:
    scores = np.zeros((2, 3), np.float32)
    assert metrics.summarise(scores, np.array([0, 2]), class_names=NAMES)["n_correct"] == 1


def test_imbalance_shows_in_the_balanced_accuracy() -> None:
    labels = np.array([0] * 999 + [1])
    scores = np.tile(np.array([[1, 0]], np.float32), (1000, 1))
    found = metrics.summarise(scores, labels, class_names=["cat", "dog"])
    assert (found["accuracy"], found["balanced_accuracy"]) == (0.999, 0.5)


def test_what_does_not_fit_or_is_not_finite_is_refused() -> None:
    for scores, labels in (
        (np.zeros((2, 3)), np.zeros(3, int)),
        (np.zeros((2, 2)), np.zeros(2, int)),
        (np.zeros((0, 3)), np.zeros(0, int)),
        (np.full((2, 3), np.nan), np.zeros(2, int)),
    ):
        with pytest.raises(DataError):
            metrics.summarise(scores.astype(np.float32), labels, class_names=NAMES)


def test_dots_in_class_names_do_not_look_like_nesting() -> None:
    assert metrics.metric_keys(["a.b", "c"]) == ["a_b", "c"]
    with pytest.raises(DataError, match="dots and underscores"):
        metrics.metric_keys(["a.b", "a_b"])


def test_rounded_metrics_are_plain_json_without_lists_or_float_noise() -> None:
    found = metrics.rounded({"a": 0.1 + 0.2, "n": 3, "nested": {"b": 1 / 3}})
    assert found == {"a": 0.3, "n": 3, "nested": {"b": 0.33333}}
    text = json.dumps(found, allow_nan=False)
    assert "[" not in text
    assert math.isclose(json.loads(text)["nested"]["b"], 1 / 3, abs_tol=1e-5)


@pytest.mark.parametrize("labels", [[0, 3], [0, -1]])
def test_a_label_of_no_class_is_refused(labels: list[int]) -> None:
    with pytest.raises(DataError, match="not of 3 classes") as caught:
        metrics.summarise(np.eye(2, 3, dtype=np.float32), np.array(labels), class_names=NAMES)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_score_that_is_not_finite_is_enough(value: float) -> None:
    scores = np.zeros((4, 3), np.float32)
    scores[2, 1] = value
    with pytest.raises(DataError, match="not finite"):
        metrics.summarise(scores, np.zeros(4, int), class_names=NAMES)


def _leaves(found: dict[str, Any]) -> list[Any]:
    return [
        leaf for value in found.values() for leaf in (_leaves(value) if isinstance(value, dict) else [value])
    ]


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 40), st.sampled_from([1e-3, 1.0, 100.0, 1e6]))
def test_a_written_summary_is_bounded_plain_and_finite(seed: int, n: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    scores = (scale * rng.normal(size=(n, 3))).astype(np.float32)
    found = metrics.rounded(metrics.summarise(scores, rng.integers(0, 3, n), class_names=NAMES))
    leaves = _leaves(found)
    assert {type(leaf) for leaf in leaves} <= {int, float}
    assert all(math.isfinite(leaf) and math.copysign(1, leaf) == 1 for leaf in leaves)  # nor -0.0
    bounded = {**found, "n": 0, "n_correct": 0, "nll": 0.0}
    assert all(0 <= leaf <= 1 for leaf in _leaves(bounded))
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_keys_are_those_that_every_method_has() -> None:
    found = metrics.summarise(np.eye(3, dtype=np.float32), np.arange(3), class_names=NAMES)
    assert set(found) == {
        "accuracy",
        "accuracy_ci95",
        "balanced_accuracy",
        "n",
        "n_correct",
        "ece",
        "nll",
        "per_class",
    }
    assert set(found["accuracy_ci95"]) == {"low", "high"}
    assert list(found["per_class"]) == NAMES


def test_a_perfect_and_certain_classifier_has_a_loss_of_plain_zero() -> None:
    scores = 1000 * np.eye(3, dtype=np.float32)
    found = metrics.rounded(metrics.summarise(scores, np.arange(3), class_names=NAMES))
    assert json.dumps([found["nll"], found["ece"], found["accuracy"]]) == "[0.0, 0.0, 1.0]"


def test_a_class_without_images_is_left_out_and_not_counted_as_wrong() -> None:
    scores = np.eye(3, dtype=np.float32)[[0, 1, 1]]
    found = metrics.summarise(scores, np.array([0, 1, 0]), class_names=NAMES)
    assert found["per_class"] == {"cat": 0.5, "dog": 1.0}
    assert found["balanced_accuracy"] == 0.75


def test_dots_in_class_names_become_underscores_in_a_summary_too() -> None:
    scores = np.eye(2, dtype=np.float32)
    found = metrics.summarise(scores, np.arange(2), class_names=["st.bernard", "no. 5"])
    assert found["per_class"] == {"st_bernard": 1.0, "no_ 5": 1.0}
    with pytest.raises(DataError, match="dots and underscores"):
        metrics.summarise(scores, np.arange(2), class_names=["a.b", "a_b"])


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_a_summary_does_not_depend_on_the_order_of_images_or_classes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, labels = rng.normal(size=(40, 3)).astype(np.float32), rng.integers(0, 3, 40)
    rows, classes = rng.permutation(40), rng.permutation(3)
    expected = metrics.rounded(metrics.summarise(scores, labels, class_names=NAMES))
    moved = metrics.summarise(
        scores[rows][:, classes], np.argsort(classes)[labels[rows]], class_names=[NAMES[c] for c in classes]
    )
    for key, value in metrics.rounded(moved).items():
        assert value == (
            pytest.approx(expected[key], abs=1.1e-5) if key != "accuracy_ci95" else expected[key]
        )


def test_the_intervals_worked_example() -> None:
    """Newcombe 1998, table I: 81 of 263 has the Wilson interval 0.2553 to 0.3662."""
    assert metrics.wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_rounding_keeps_counts_and_what_is_already_short() -> None:
    assert metrics.rounded({"n": 10**12, "x": 0.25, "y": {"z": -1e-9}}) == {
        "n": 10**12,
        "x": 0.25,
        "y": {"z": 0},
    }
    assert metrics.rounded({"a": 0.123456})["a"] != 0.123456


def test_a_temperature_changes_confidences_and_nothing_else() -> None:
    """A coin of logits 0 and log 9 is 90 % sure; divided by 2 it is 75 % sure."""
    scores, labels = np.log(np.array([[1, 9], [1, 9]], dtype=np.float32)), np.array([1, 0])
    plain = metrics.likelihood(scores, labels)
    assert plain == pytest.approx({"ece": 0.4, "nll": -(math.log(0.9) + math.log(0.1)) / 2}, abs=1e-6)
    cooled = metrics.calibrated(scores, labels, temperature=2.0)
    expected = {"ece": 0.25, "nll": -(math.log(0.75) + math.log(0.25)) / 2, "temperature": 2.0}
    assert cooled == pytest.approx(expected, abs=1e-6)
    assert metrics.calibrated(scores, labels, temperature=1.0) == {**plain, "temperature": 1.0}


def test_class_rows_by_hand() -> None:
    scores = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0]], dtype=np.float32)
    rows = metrics.class_rows(scores, np.array([0, 0, 1, 1]), class_names=NAMES)
    low, high = metrics.wilson_interval(1, 2)
    counts = {"accuracy": 0.5, "low": low, "high": high, "n": 2, "n_correct": 1, "n_predicted": 2}
    assert rows == [{"class": "cat", **counts}, {"class": "dog", **counts}]  # eel has no image


def test_images_taken_for_a_class_are_counted_whatever_they_are_of() -> None:
    scores = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 1]], dtype=np.float32)
    rows = metrics.class_rows(scores, np.array([0, 1, 1, 1]), class_names=NAMES)
    assert [(row["class"], row["n"], row["n_predicted"]) for row in rows] == [("cat", 1, 3), ("dog", 3, 0)]
