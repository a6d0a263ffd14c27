from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clipcifar.evaluation import metrics, signs
from clipcifar.studies.corruptions.judge import robustness
from clipcifar.studies.corruptions.judge.robustness import Answers

NAMES, SEVERITIES = ["fog", "noise"], [1, 3, 5]
ALL = {"all": [0, 1]}


def answers(*, seed: int = 0, n: int = 80, ability: float = 0.9, loss: float = 0.25) -> Answers:
    rng = np.random.default_rng(seed)
    per_image = np.clip(rng.normal(ability, 0.2, n), 0, 1)
    steps = per_image - loss * np.arange(1, 4)[None, :, None] * np.array([0.5, 1.0])[:, None, None]
    return Answers(rng.random(n) < per_image, rng.random((2, 3, n)) < steps)


def test_by_hand() -> None:
    clean = np.array([True, True, True, False])
    corrupted = np.zeros((2, 2, 4), bool)
    corrupted[0] = [[1, 1, 1, 0], [1, 0, 0, 0]]  # 0.75, 0.25
    corrupted[1] = [[1, 1, 0, 0], [0, 0, 0, 0]]  # 0.5, 0
    found = robustness.robustness(Answers(clean, corrupted), ALL)
    assert found.accuracy.tolist() == [[0.75, 0.25], [0.5, 0.0]]
    assert found.clean.value == 0.75
    assert found.over["all"].mean.value == 0.375
    assert found.over["all"].drop.value == 0.5
    assert [share.value for share in found.over["all"].by_severity] == [0.625, 0.125]
    assert (found.clean.low, found.clean.high) == metrics.wilson_interval(3, 4)


def test_against_loops() -> None:
    given = answers()
    found = robustness.robustness(given, ALL)
    means = []
    for k in range(2):
        by_severity = []
        for s in range(3):
            right = sum(bool(given.corrupted[k, s, i]) for i in range(80)) / 80
            assert found.accuracy[k, s] == pytest.approx(right)
            by_severity.append(right)
        means.append(sum(by_severity) / 3)
    mean = sum(means) / 2
    clean = sum(given.clean.tolist()) / 80
    assert found.over["all"].mean.value == pytest.approx(mean)
    assert found.over["all"].drop.value == pytest.approx((clean - mean) / clean)


def test_intervals_are_those_of_resampled_images() -> None:
    given, rng = answers(n=150), np.random.default_rng(5)
    found = robustness.robustness(given, ALL)
    means, drops = [], []
    for _ in range(4000):
        rows = rng.integers(0, 150, 150)
        means.append(given.corrupted[:, :, rows].mean())
        drops.append(1 - means[-1] / given.clean[rows].mean())
    assert (found.over["all"].mean.low, found.over["all"].mean.high) == pytest.approx(
        np.quantile(means, [0.025, 0.975]), abs=0.006
    )
    assert (found.over["all"].drop.low, found.over["all"].drop.high) == pytest.approx(
        np.quantile(drops, [0.025, 0.975]), abs=0.01
    )


def test_copies_of_a_corruption_add_no_certainty() -> None:
    given = answers(n=200)
    copied = Answers(given.clean, np.tile(given.corrupted, (5, 1, 1)))
    once, many = robustness.robustness(given, ALL), robustness.robustness(copied, ALL)
    assert (many.over["all"].mean.low, many.over["all"].mean.high) == pytest.approx(
        (once.over["all"].mean.low, once.over["all"].mean.high), abs=0.005
    )


def test_what_loses_nothing_drops_by_nothing_and_no_accuracy_is_no_division() -> None:
    clean = np.random.default_rng(0).random(50) < 0.7
    same = robustness.robustness(Answers(clean, np.tile(clean, (2, 3, 1))), ALL)
    assert (
        same.over["all"].drop.value,
        same.over["all"].drop.low,
        same.over["all"].drop.high,
    ) == pytest.approx((0, 0, 0), abs=1e-12)
    nothing = robustness.robustness(Answers(np.zeros(5, bool), np.zeros((1, 1, 5), bool)), {"all": [0]})
    assert (nothing.over["all"].drop.value, nothing.over["all"].drop.low, nothing.over["all"].drop.high) == (
        0,
        0,
        0,
    )


def test_methods_are_compared_by_image_and_corrected_for_one_another() -> None:
    reference = answers()
    others = {"better": answers(seed=1, loss=0.1), "same": reference, "worse": answers(seed=2, ability=0.6)}
    found = robustness.against(reference, others, np.zeros(80, int), class_names=["cat"])
    assert [item.name for item in found] == list(others)
    assert found[0].p_holm < 0.05 < found[1].p_holm == 1.0
    assert found[0].paired.difference > 0 > found[2].paired.difference
    assert [item.p_holm for item in found] == signs.holm([item.paired.p_value for item in found])
    assert found[0].paired.accuracy_a == pytest.approx(
        robustness.robustness(reference, ALL).over["all"].mean.value
    )


def test_metrics_are_nested_numbers() -> None:
    found = robustness.robustness(answers(), ALL)
    nested: dict[str, Any] = robustness.as_nested(found, names=NAMES, severities=SEVERITIES)
    assert nested["corruption"] == dict(zip(NAMES, found.accuracy.mean(axis=1).tolist(), strict=True))
    kept = nested["all"]
    assert list(kept["severity"]) == ["1", "3", "5"]
    assert kept["mean"] == pytest.approx(np.mean(list(kept["severity"].values())))
    assert kept["relative_drop"] == found.over["all"].drop.value


def test_a_mean_over_some_knows_nothing_of_the_others() -> None:
    given = answers()
    found = robustness.robustness(given, {"fog": [0], **ALL})
    alone = robustness.robustness(Answers(given.clean, given.corrupted[:1]), {"fog": [0]})
    assert found.over["fog"] == alone.over["fog"]
    assert found.over["fog"].mean.value == pytest.approx(found.accuracy[0].mean())
    assert found.over["fog"].mean.value > found.over["all"].mean.value  # noise costs twice as much


def test_rows_hold_every_cell_once_with_its_interval() -> None:
    given = {"a": answers(), "b": answers(seed=1)}
    rows = robustness.accuracy_rows(given, names=NAMES, severities=SEVERITIES)
    assert len(rows) == 2 * (1 + 2 * 3)
    cells = {(row["method"], row["corruption"], row["severity"]): row for row in rows}
    assert len(cells) == len(rows)
    row = cells["b", "noise", 3]
    right = int(given["b"].corrupted[1, 1].sum())
    assert (row["n_correct"], row["n"], row["accuracy"]) == (right, 80, right / 80)
    assert (row["low"], row["high"]) == metrics.wilson_interval(right, 80)
    assert cells["a", "clean", 0]["n_correct"] == given["a"].clean.sum()
