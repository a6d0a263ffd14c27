from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import stdtrit

from clipcifar.core.errors import DataError
from clipcifar.evaluation.crossed import Part, crossed, of_images, spread, told


def test_a_spread_worked_out_by_hand() -> None:
    found = spread(np.array([0.2, 0.4, 0.6]))
    assert (found.mean, found.deviation, found.n) == (pytest.approx(0.4), pytest.approx(0.2), 3)
    half = 4.302652729911275 * 0.2 / math.sqrt(3)  # the 97.5 % quantile of t with 2 degrees of freedom
    assert (found.low, found.high) == (pytest.approx(0.4 - half), pytest.approx(0.4 + half))


def test_the_interval_is_scipys_paired_t_interval() -> None:
    values = np.random.default_rng(0).normal(size=7)
    low, high = stats.t.interval(0.95, 6, loc=values.mean(), scale=stats.sem(values))
    assert (spread(values).low, spread(values).high) == (pytest.approx(low), pytest.approx(high))


def test_one_value_has_no_spread() -> None:
    assert spread(np.array([0.3])) == type(spread(np.array([0.3])))(0.3, 0.0, 0.3, 0.3, 1)


def test_of_one_draw_it_is_the_t_test_over_images() -> None:
    row = np.random.default_rng(1).choice([-1.0, 0.0, 1.0], p=[0.1, 0.7, 0.2], size=(1, 80))
    found, known = crossed(row), stats.ttest_1samp(row[0], 0)
    assert found.p_value == pytest.approx(known.pvalue)
    interval = known.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_where_only_draws_differ_it_is_the_t_test_over_draws() -> None:
    of_draws = np.array([0.1, 0.3, 0.2, 0.15])
    found, known = crossed(np.tile(of_draws[:, None], (1, 50))), stats.ttest_1samp(of_draws, 0)
    assert found.p_value == pytest.approx(known.pvalue)
    assert found.low == pytest.approx(known.confidence_interval(0.95).low)


def test_a_table_worked_out_by_hand() -> None:
    found = crossed(np.array([[1.0, 0.0], [0.0, 0.0], [0.5, 0.0]]))
    # means of draws 1/2, 0, 1/4: variance 1/16, over three of them 1/48, with two degrees of freedom;
    # of images 1/2 and 0: variance 1/8, over two of them 1/16, with one
    error = math.sqrt(1 / 48 + 1 / 16)
    quantile = (stats.t.ppf(0.975, 2) / 48 + stats.t.ppf(0.975, 1) / 16) / (1 / 48 + 1 / 16)
    assert found.difference == 0.25
    assert (found.low, found.high) == (
        pytest.approx(0.25 - quantile * error),
        pytest.approx(0.25 + quantile * error),
    )
    at = [stats.t.isf(found.p_value / 2, freedom) for freedom in (2, 1)]
    assert 0.25 / error == pytest.approx((at[0] / 48 + at[1] / 16) / (1 / 48 + 1 / 16))


def test_the_interval_leaves_out_zero_exactly_where_the_p_value_is_below_five_per_cent() -> None:
    rng, sure = np.random.default_rng(6), []
    for mean in np.linspace(0, 6, 60):
        _, low, high, p_value = told(mean, Part(1.0, 500), Part(rng.uniform(0, 2), 2))
        assert (low > 0 or high < 0) == (p_value < 0.05)
        sure.append(p_value < 0.05)
    assert 5 < sum(sure) < 55


def test_with_few_draws_it_is_not_bolder_than_it_says_where_welch_and_satterthwaite_are() -> None:
    """The quantile for the sum of both variances takes draws that agree by chance for knowledge."""
    rng, rounds, wrong, bold = np.random.default_rng(7), 4000, 0, 0
    for mean, spread_of_three in zip(
        rng.normal(size=rounds) * math.sqrt(1 + 5), 5 * rng.chisquare(2, rounds) / 2, strict=True
    ):
        wrong += told(mean, Part(1.0, 1e6), Part(spread_of_three, 2))[3] < 0.05
        variance = 1 + spread_of_three
        bold += abs(mean) > stdtrit(variance**2 / (1e-6 + spread_of_three**2 / 2), 0.975) * math.sqrt(
            variance
        )
    noise = math.sqrt(0.05 * 0.95 / rounds)
    assert wrong / rounds <= 0.05 + 3 * noise
    assert bold / rounds > 0.05 + 3 * noise


def test_copies_of_an_image_count_as_that_image() -> None:
    values = np.random.default_rng(8).normal(size=30)
    known = of_images(values)
    assert known.variance == pytest.approx(values.var(ddof=1) / 30)
    five = of_images(np.repeat(values, 5), copies=np.repeat(np.arange(30) * 5, 5))
    assert (five.variance, five.freedom) == (pytest.approx(known.variance), known.freedom)
    assert of_images(np.repeat(values, 5)).variance < known.variance / 4  # where nobody says that they are
    table = np.random.default_rng(9).normal(size=(4, 30))
    fives = crossed(np.repeat(table, 5, axis=1), copies=np.repeat(np.arange(30), 5))
    assert (fives.low, fives.high) == (pytest.approx(crossed(table).low), pytest.approx(crossed(table).high))
    with pytest.raises(DataError, match="1 image "):
        of_images(np.array([0.0, 1.0]), copies=np.array([0, 0]))


def test_no_difference_anywhere_is_none_and_turning_the_sides_turns_the_sign() -> None:
    assert crossed(np.zeros((3, 5))).p_value == 1.0
    table = np.random.default_rng(2).normal(size=(4, 30)) + 0.2
    there, back = crossed(table), crossed(-table)
    assert (back.difference, back.low, back.high) == (-there.difference, -there.high, -there.low)
    assert back.p_value == there.p_value


def test_one_image_is_refused() -> None:
    with pytest.raises(DataError, match="1 image "):
        crossed(np.zeros((3, 1)))


@pytest.mark.parametrize(("of_draws", "of_images"), [(0.0, 1.0), (0.3, 0.0), (0.15, 1.0)])
def test_where_nothing_differs_it_seldom_says_so_whatever_varies(of_draws: float, of_images: float) -> None:
    """And a t test over draws alone would: it takes these test images for all there are."""
    rng, wrong, naive_wrong, rounds = np.random.default_rng(3), 0, 0, 400
    for _ in range(rounds):
        draws, images = rng.normal(size=(5, 1)) * of_draws, rng.normal(size=(1, 40)) * of_images
        table = draws + images + 0.3 * rng.normal(size=(5, 40))
        wrong += crossed(table).p_value < 0.05
        naive_wrong += stats.ttest_1samp(table.mean(axis=1), 0).pvalue < 0.05
    assert wrong / rounds <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / rounds)
    if of_images:
        assert naive_wrong / rounds > 0.15


def test_a_difference_that_is_there_is_found() -> None:
    rng = np.random.default_rng(4)
    table = 0.5 + 0.1 * rng.normal(size=(5, 1)) + rng.normal(size=(1, 200)) + 0.3 * rng.normal(size=(5, 200))
    assert crossed(table).p_value < 0.001
