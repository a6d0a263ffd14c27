from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, strategies as st

from clipcifar.core.errors import DataError
from clipcifar.evaluation import compare
from clipcifar.studies.corruptions.judge import repeated
from clipcifar.studies.corruptions.judge.repeated import bootstrap_means, interval, paired, sign_flip_exact


def naive_p(differences: list[int]) -> float:
    """Every assignment of signs, counted."""
    found = abs(sum(differences))
    flips = list(itertools.product((-1, 1), repeat=len(differences)))
    return sum(abs(sum(s * d for s, d in zip(f, differences, strict=True))) >= found for f in flips) / len(
        flips
    )


def test_by_hand() -> None:
    # +-3 +-1: sums -4, -2, 2, 4; two of four are at least as large as 4
    assert sign_flip_exact(np.array([3, 1])) == pytest.approx(0.5)
    assert sign_flip_exact(np.array([3, 1, 0, 0])) == pytest.approx(0.5)
    assert sign_flip_exact(np.array([3, -1])) == pytest.approx(1.0)
    assert sign_flip_exact(np.array([2, 2, 2, 2, 2])) == pytest.approx(2 / 32)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=9))
def test_it_is_the_count_of_all_signs(differences: list[int]) -> None:
    assert sign_flip_exact(np.array(differences)) == pytest.approx(naive_p(differences), abs=1e-9)


@given(st.integers(0, 400), st.integers(0, 400))
def test_single_steps_make_it_mcnemars_test(only_a: int, only_b: int) -> None:
    differences = np.array([-1] * only_a + [1] * only_b + [0] * 50)
    assert sign_flip_exact(differences) == pytest.approx(compare.mcnemar_exact(only_a, only_b), abs=1e-9)


def test_it_is_symmetric_and_one_where_nothing_differs() -> None:
    differences = np.random.default_rng(0).integers(-4, 6, 300)
    assert sign_flip_exact(differences) == pytest.approx(sign_flip_exact(-differences), abs=1e-12)
    assert sign_flip_exact(np.zeros(5, dtype=np.int64)) == 1.0


def test_many_large_differences_give_a_small_p_and_never_none() -> None:
    assert sign_flip_exact(np.full(10_000, 50)) == 1e-12


def test_under_equal_methods_whose_answers_hang_together_it_errs_as_often_as_it_says() -> None:
    """The negative control: all five answers about an image are one, which McNemar would take for five."""
    rng, found = np.random.default_rng(0), {"image": 0, "answer": 0}
    for _ in range(400):
        a, b = (rng.random((2, 60)) < 0.5).astype(np.int64)
        found["image"] += sign_flip_exact(5 * (b - a)) < 0.05
        found["answer"] += compare.mcnemar_exact(5 * (a > b).sum(), 5 * (b > a).sum()) < 0.05
    assert found["image"] <= 400 * 0.05 + 3 * np.sqrt(400 * 0.05 * 0.95)
    assert found["answer"] > 400 * 0.2


def test_of_one_answer_an_image_it_is_the_usual_comparison() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 500)) < np.array([[0.6], [0.66]])
    ours, theirs = paired(a[None], b[None]), compare.paired(a, b)
    assert (ours.n, ours.only_a, ours.only_b) == (theirs.n, theirs.only_a, theirs.only_b)
    assert ours.p_value == pytest.approx(theirs.p_value, abs=1e-12)
    assert (ours.accuracy_a, ours.accuracy_b) == (theirs.accuracy_a, pytest.approx(theirs.accuracy_b))
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.006)


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
    assert copies.high - copies.low == pytest.approx(once.high - once.low, rel=0.06)


def test_means_of_several_columns_come_from_the_same_resamples() -> None:
    values = np.random.default_rng(0).integers(0, 2, (100, 1)).repeat(2, axis=1)
    draws = bootstrap_means(values)
    assert draws.shape == (compare.RESAMPLES, 2)
    np.testing.assert_array_equal(draws[:, 0], draws[:, 1])
    assert draws[:, 0].std() == pytest.approx(np.sqrt(values[:, 0].var() / 100), rel=0.05)
    assert interval(np.arange(1001.0)) == (25.0, 975.0)


def test_two_runs_agree_and_another_seed_does_not() -> None:
    a, b = np.random.default_rng(0).random((2, 3, 90)) < 0.5
    assert paired(a, b) == paired(a, b)
    assert paired(a, b) != paired(a, b, seed=1)


def test_what_cannot_be_paired_is_refused() -> None:
    with pytest.raises(DataError, match="cannot pair"):
        paired(np.zeros((2, 3), bool), np.zeros((2, 4), bool))
    with pytest.raises(DataError, match="cannot pair"):
        paired(np.zeros((2, 0), bool), np.zeros((2, 0), bool))
    assert repeated.LEVEL == 0.05
