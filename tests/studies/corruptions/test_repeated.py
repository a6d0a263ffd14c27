from __future__ import annotations

import numpy as np
import pytest

from clipcifar.core.errors import DataError
from clipcifar.evaluation import compare, signs
from clipcifar.studies.corruptions.judge.repeated import bootstrap_means, interval, paired


def test_of_one_answer_an_image_it_is_the_usual_comparison() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 500)) < np.array([[0.6], [0.66]])
    ours, theirs = paired(a[None], b[None]), compare.paired(a, b)
    assert (ours.n, ours.only_a, ours.only_b) == (theirs.n, theirs.only_a, theirs.only_b)
    assert ours.p_value == pytest.approx(theirs.p_value, abs=1e-12)
    assert (ours.accuracy_a, ours.accuracy_b) == (theirs.accuracy_a, pytest.approx(theirs.accuracy_b))
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_the_interval_is_that_of_resampled_images() -> None:
    rng = np.random.default_rng(2)
    ability = rng.random(200)
    a, b = (rng.random((6, 200)) < ability + shift for shift in (0.0, 0.1))
    found = paired(a, b)
    per_image = (b.sum(axis=0) - a.sum(axis=0)) / 6
    means = [per_image[rng.integers(0, 200, 200)].mean() for _ in range(10_000)]
    low, high = np.quantile(means, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.004)
    assert found.difference == pytest.approx(per_image.mean())
    assert found.only_b == (per_image > 0).sum()
    # and wider than if the answers had nothing to do with one another
    b_copies = np.repeat(b[:1], 6, axis=0)
    a_copies = np.repeat(a[:1], 6, axis=0)
    copies, once = paired(a_copies, b_copies), compare.paired(a[0], b[0])
    assert copies.high - copies.low == pytest.approx(once.high - once.low, rel=1e-12)


def test_means_of_several_columns_come_from_the_same_resamples() -> None:
    values = np.random.default_rng(0).integers(0, 2, (100, 1)).repeat(2, axis=1)
    draws = bootstrap_means(values)
    assert draws.shape == (signs.RESAMPLES, 2)
    np.testing.assert_array_equal(draws[:, 0], draws[:, 1])
    assert draws[:, 0].std() == pytest.approx(np.sqrt(values[:, 0].var() / 100), rel=0.05)
    assert interval(np.arange(1001.0)) == (25.0, 975.0)


def test_answers_about_copies_are_one_group() -> None:
    """Every image twice, five answers each: the interval and the p value of the images once."""
    rng = np.random.default_rng(4)
    a, b = (rng.random((5, 80)) < share for share in (0.6, 0.7))
    once = paired(a, b)
    twice = paired(np.tile(a, 2), np.tile(b, 2), np.tile(np.arange(80), 2))
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))
    assert twice.p_value == pytest.approx(once.p_value, abs=1e-9)
    assert twice.n_copies == 80
    assert paired(np.tile(a, 2), np.tile(b, 2)).p_value < once.p_value  # without being told


def test_what_cannot_be_paired_is_refused() -> None:
    with pytest.raises(DataError, match="cannot pair"):
        paired(np.zeros((2, 3), bool), np.zeros((2, 4), bool))
    with pytest.raises(DataError, match="cannot pair"):
        paired(np.zeros((2, 0), bool), np.zeros((2, 0), bool))
