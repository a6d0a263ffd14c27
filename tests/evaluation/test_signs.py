"""Exact tests by flipping signs, and the interval that says what they say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray
from scipy import stats

from clipcifar.evaluation import compare, signs
from clipcifar.evaluation.signs import agreeing, holm, mcnemar_exact, paired_interval, sign_flip_exact


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_two_sided_binomial_test_symmetric_and_in_range(only_a: int, only_b: int) -> None:
    p = mcnemar_exact(only_a, only_b)
    assert p == mcnemar_exact(only_b, only_a)
    assert 0 < p <= 1
    if only_a + only_b:
        tail = stats.binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)
        assert p == pytest.approx(min(1.0, 2 * tail))


@settings(max_examples=60, derandomize=True)
@given(st.integers(0, 60_000), st.integers(0, 60_000))
def test_mcnemar_equals_scipys_binomial_test_and_is_never_0_however_many_images(
    only_a: int, only_b: int
) -> None:
    p = mcnemar_exact(only_a, only_b)
    assert 0 < p <= 1
    assert p == mcnemar_exact(only_b, only_a)
    assert mcnemar_exact(only_a, only_a) == 1
    if only_a + only_b:
        assert p == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue, rel=1e-6, abs=1e-300)


@settings(max_examples=60, derandomize=True)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.data())
def test_holm_is_monotone(p_values: list[float], data: st.DataObject) -> None:
    """A larger p value, or one more comparison, never makes any corrected one smaller."""
    adjusted = holm(p_values)
    i = data.draw(st.integers(0, len(p_values) - 1))
    raised = [*p_values[:i], data.draw(st.floats(p_values[i], 1)), *p_values[i + 1 :]]
    assert all(q <= r for q, r in zip(adjusted, holm(raised), strict=True))
    more = holm([*p_values, data.draw(st.floats(0, 1))])
    assert all(q <= r for q, r in zip(adjusted, more, strict=False))


def test_mcnemar_by_hand_and_as_published() -> None:
    assert signs.mcnemar_exact(0, 5) == pytest.approx(2 * 0.5**5)
    assert signs.mcnemar_exact(0, 0) == 1.0
    assert signs.mcnemar_exact(100, 130) == pytest.approx(0.056, abs=5e-4)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_its_definition_rejects(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    rejected, order = set(), sorted(range(len(p_values)), key=lambda i: p_values[i])
    for rank, i in enumerate(order):
        if p_values[i] * (len(p_values) - rank) >= signs.LEVEL:
            break
        rejected.add(i)
    assert {i for i, q in enumerate(adjusted) if q < signs.LEVEL} == rejected
    ranked = [adjusted[i] for i in order]
    assert ranked == sorted(ranked)


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
    assert sign_flip_exact(differences) == pytest.approx(mcnemar_exact(only_a, only_b), abs=1e-9)


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
        found["answer"] += mcnemar_exact(5 * (a > b).sum(), 5 * (b > a).sum()) < 0.05
    assert found["image"] <= 400 * 0.05 + 3 * np.sqrt(400 * 0.05 * 0.95)
    assert found["answer"] > 400 * 0.2


# --- the interval --------------------------------------------------------------------------------


def every_outcome(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All pairs of discordant counts that n images can have."""
    a, b = (counts.ravel() for counts in np.meshgrid(np.arange(n + 1), np.arange(n + 1)))
    return a[a + b <= n], b[a + b <= n]


def intervals(n: int, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float64]:
    """(T, 2), those of the comparisons."""
    compared = [
        compare.from_counts(n, n_correct_a=n, only_a=x, only_b=y)
        for x, y in zip(a.tolist(), b.tolist(), strict=True)
    ]
    return np.array([(item.low, item.high) for item in compared])


def test_the_interval_is_bonett_and_prices_by_hand() -> None:
    # as published for 26 and 4 of 48, in the example of R's statpsych::ci.prop.ps
    published = paired_interval(n=48, gained=22, squared=30, groups=48, changed=30)
    assert published == pytest.approx((0.2548067, 0.6251933), abs=1e-7)
    # 10 and 30 of 100: 20 / 102 -+ 1.95996 sqrt((42 / 102 - (20 / 102)^2) / 102) = 0.196078 -+ 0.118573
    low, high = paired_interval(n=100, gained=20, squared=40, groups=100, changed=40)
    assert (low, high) == pytest.approx((0.077505, 0.314652), abs=1e-6)
    found = compare.from_counts(100, n_correct_a=60, only_a=10, only_b=30)
    assert (found.low, found.high) == (low, high)


@pytest.mark.parametrize("n", [1, 2, 5, 6, 7, 12, 30, 60])
def test_of_every_outcome_the_interval_says_what_mcnemars_test_says(n: int) -> None:
    a, b = every_outcome(n)
    low, high = intervals(n, a, b).T
    p_values = np.array(signs.mcnemar_exact_each(a, b))
    np.testing.assert_array_equal((low > 0) | (high < 0), p_values < signs.LEVEL)
    assert (low <= (b - a) / n).all()
    assert ((b - a) / n <= high).all()
    assert (low < high).all()  # no discordant image is no certainty


def test_bonett_and_prices_alone_contradicts_the_test_which_is_why_it_is_widened() -> None:
    low, high = paired_interval(n=100, gained=8, squared=14, groups=100, changed=14)
    p_value = mcnemar_exact(3, 11)
    assert low > 0
    assert p_value > signs.LEVEL
    assert agreeing(low, high, difference=0.08, p_value=p_value) == (0, high)


@pytest.mark.parametrize(
    ("n", "lost", "won", "least"),
    [
        (20, 0.2, 0.2, 0.95),
        (20, 0.001, 0.2, 0.925),
        (60, 0.05, 0.05, 0.95),
        (60, 0.05, 0.1, 0.95),
        (100, 0.0005, 0.1386, 0.937),  # the worst of a hundred and more: nearly all that differ go one way
        (100, 0.34, 0.64, 0.945),
    ],
)
def test_the_interval_covers_by_enumeration(n: int, lost: float, won: float, least: float) -> None:
    a, b = every_outcome(n)
    chances = stats.multinomial.pmf(np.stack([a, b, n - a - b], axis=1), n, [lost, won, 1 - lost - won])
    low, high = intervals(n, a, b).T
    covered = chances[(low <= won - lost + 1e-12) & (won - lost - 1e-12 <= high)].sum()
    assert least <= covered <= 1


@settings(max_examples=50, derandomize=True)
@given(st.lists(st.integers(-1, 1), min_size=1, max_size=40), st.integers(2, 6))
def test_copies_of_every_image_are_no_evidence(gains: list[int], times: int) -> None:
    """All images so many times: the interval and the p value of the images once."""
    once, often = np.array(gains), np.repeat(gains, times)
    copies = np.repeat(np.arange(len(gains)), times)
    bare = compare.paired(once == -1, once == 1)
    grouped = compare.paired(often == -1, often == 1, copies)
    assert (grouped.low, grouped.high) == pytest.approx((bare.low, bare.high))
    assert grouped.p_value == pytest.approx(bare.p_value, abs=1e-9)
    assert grouped.n_copies == (times - 1) * len(gains)
    assert grouped.difference == pytest.approx(bare.difference)
    alone = compare.paired(once == -1, once == 1, np.arange(len(gains)))
    assert alone == bare  # a group of each is none


def test_among_equals_with_copies_the_test_holds_its_level_and_mcnemar_does_not() -> None:
    """A quarter of the images five times, then all of them; two equal classifiers."""
    rng = np.random.default_rng(0)
    for sizes, too_often in (([1, 1, 1, 5], 0.2), ([5], 0.3)):
        claims, naive, reps = 0, 0, 400
        for _ in range(reps):
            size = rng.choice(sizes, size=150)
            kind = np.repeat(rng.choice(3, size=150, p=[0.1, 0.1, 0.8]), size)
            copies = np.repeat(np.arange(150), size)
            claims += compare.paired(kind == 0, kind == 1, copies).p_value < signs.LEVEL
            naive += compare.paired(kind == 0, kind == 1).p_value < signs.LEVEL
        assert claims <= int(stats.binom.ppf(0.999, reps, signs.LEVEL))
        assert naive > too_often * reps


def test_with_copies_the_interval_covers_and_contradicts_no_test() -> None:
    rng, covered, reps = np.random.default_rng(1), 0, 500
    for _ in range(reps):
        size = rng.choice([1, 1, 1, 4], size=120)
        kind = np.repeat(rng.choice(3, size=120, p=[0.05, 0.15, 0.8]), size)
        item = compare.paired(kind == 0, kind == 1, np.repeat(np.arange(120), size))
        covered += item.low <= 0.1 <= item.high
        assert (item.low < 0 < item.high) <= (item.p_value >= signs.LEVEL)
        assert (item.low > 0 or item.high < 0) <= (item.p_value < signs.LEVEL)
    assert covered >= int(stats.binom.ppf(0.001, reps, 0.95))


def test_a_copy_under_another_class_cancels_out() -> None:
    """A is right on the first of the two, B on the second: the group tells nothing."""
    right_a, right_b = np.array([True, False, True]), np.array([False, True, True])
    item = compare.paired(right_a, right_b, np.array([0, 0, 2]))
    assert (item.only_a, item.only_b, item.p_value) == (1, 1, 1)


def test_in_balanced_accuracy_copies_are_flipped_together() -> None:
    """Each of 12 images of two classes five times: the p value of the images once, and no smaller."""
    labels = np.repeat([0, 1], [4, 8])
    right_b = np.array([True] * 4 + [True] * 5 + [False] * 3)
    right_a = np.zeros(12, dtype=bool)

    def judged(times: int, *, grouped: bool) -> compare.Paired:
        a, b, of = (np.repeat(values, times) for values in (right_a, right_b, labels))
        copies = np.repeat(np.arange(12), times) if grouped else None
        names = ["cat", "dog"]
        return compare.paired_by_class(a, b, of, class_names=names, copies=copies, by="balanced_accuracy")

    once, together, apart = judged(1, grouped=False), judged(5, grouped=True), judged(5, grouped=False)
    assert together.p_value == pytest.approx(once.p_value, abs=0.01)
    assert apart.p_value < together.p_value
    assert together.difference == once.difference == pytest.approx((1 + 5 / 8) / 2)
    assert (together.low, together.high) == pytest.approx((once.low, once.high))  # no surer for it
