from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray
from scipy import stats

from clipcifar.api.comparing import Compared
from clipcifar.cli import comparison
from clipcifar.core.errors import DataError
from clipcifar.evaluation import compare
from clipcifar.evaluation.flows import FLOWS_SHOWN
from clipcifar.evaluation.verdict import verdict

NAMES = ["cat", "dog", "eel"]
Labels = NDArray[np.int64]


def _bools(
    *, only_a: int, only_b: int, both: int, neither: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    a = np.array([True] * only_a + [False] * only_b + [True] * both + [False] * neither)
    b = np.array([False] * only_a + [True] * only_b + [True] * both + [False] * neither)
    return a, b


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_two_sided_binomial_test_symmetric_and_in_range(only_a: int, only_b: int) -> None:
    p = compare.mcnemar_exact(only_a, only_b)
    assert p == compare.mcnemar_exact(only_b, only_a)
    assert 0 < p <= 1
    if only_a + only_b:
        tail = stats.binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)
        assert p == pytest.approx(min(1.0, 2 * tail))


@settings(max_examples=60, derandomize=True)
@given(st.integers(0, 60_000), st.integers(0, 60_000))
def test_mcnemar_equals_scipys_binomial_test_and_is_never_0_however_many_images(
    only_a: int, only_b: int
) -> None:
    p = compare.mcnemar_exact(only_a, only_b)
    assert 0 < p <= 1
    assert p == compare.mcnemar_exact(only_b, only_a)
    assert compare.mcnemar_exact(only_a, only_a) == 1
    if only_a + only_b:
        assert p == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue, rel=1e-6, abs=1e-300)


@settings(max_examples=40, derandomize=True)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=50), st.integers(0, 3))
def test_identical_predictions_give_p_1_and_no_difference(said: list[int], label: int) -> None:
    predicted, labels = np.array(said), np.full(len(said), label)
    found = compare.compare(predicted, predicted.copy(), labels, class_names=list("abcd"))
    assert (found.overall.p_value, found.overall.difference, found.flows) == (1, 0, [])
    assert [item.p_holm for item in found.per_class] == [1]


@settings(max_examples=60, derandomize=True)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.data())
def test_holm_is_monotone(p_values: list[float], data: st.DataObject) -> None:
    """A larger p value, or one more comparison, never makes any corrected one smaller."""
    adjusted = compare.holm(p_values)
    i = data.draw(st.integers(0, len(p_values) - 1))
    raised = [*p_values[:i], data.draw(st.floats(p_values[i], 1)), *p_values[i + 1 :]]
    assert all(q <= r for q, r in zip(adjusted, compare.holm(raised), strict=True))
    more = compare.holm([*p_values, data.draw(st.floats(0, 1))])
    assert all(q <= r for q, r in zip(adjusted, more, strict=False))


def test_mcnemar_by_hand_and_as_published() -> None:
    assert compare.mcnemar_exact(0, 5) == pytest.approx(2 * 0.5**5)
    assert compare.mcnemar_exact(0, 0) == 1.0
    assert compare.mcnemar_exact(100, 130) == pytest.approx(0.056, abs=5e-4)


def test_holm_by_hand() -> None:
    assert compare.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert compare.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert compare.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_its_definition_rejects(p_values: list[float]) -> None:
    adjusted = compare.holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    rejected, order = set(), sorted(range(len(p_values)), key=lambda i: p_values[i])
    for rank, i in enumerate(order):
        if p_values[i] * (len(p_values) - rank) >= compare.LEVEL:
            break
        rejected.add(i)
    assert {i for i, q in enumerate(adjusted) if q < compare.LEVEL} == rejected
    ranked = [adjusted[i] for i in order]
    assert ranked == sorted(ranked)


def test_a_paired_difference_by_hand() -> None:
    found = compare.paired(*_bools(only_a=10, only_b=30, both=50, neither=10))
    assert (found.n, found.only_a, found.only_b) == (100, 10, 30)
    assert found.accuracy_a == pytest.approx(0.6)
    assert found.accuracy_b == pytest.approx(0.8)
    assert found.difference == pytest.approx(0.2)
    assert found.p_value == pytest.approx(stats.binomtest(10, 40).pvalue)


def test_the_interval_is_the_one_of_resampling_images() -> None:
    a, b = _bools(only_a=12, only_b=25, both=140, neither=23)
    found = compare.paired(a, b)
    naive = stats.bootstrap(
        (b.astype(float) - a.astype(float),),
        np.mean,
        n_resamples=9999,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found.low == pytest.approx(naive.low, abs=0.006)
    assert found.high == pytest.approx(naive.high, abs=0.006)
    assert found.low < found.difference < found.high


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """400 experiments with a true difference of 0.05; 95 % coverage, give or take three deviations."""
    rng, covered = np.random.default_rng(0), 0
    for trial in range(400):
        kinds = rng.choice(3, p=[0.10, 0.15, 0.75], size=400)
        found = compare.paired(kinds == 0, kinds == 1, seed=trial)
        covered += found.low <= 0.05 <= found.high
    assert covered / 400 == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / 400))


def test_what_cannot_be_paired_is_refused() -> None:
    with pytest.raises(DataError, match="3 with 2"):
        compare.paired(np.zeros(3, bool), np.zeros(2, bool))
    with pytest.raises(DataError):
        compare.paired(np.zeros(0, bool), np.zeros(0, bool))


def _comparison(a: list[int], b: list[int], labels: list[int]) -> compare.Comparison:
    arrays = (np.array(values, dtype=np.int64) for values in (a, b, labels))
    return compare.compare(*arrays, class_names=NAMES)


def test_classes_and_flows_by_hand() -> None:
    found = _comparison(a=[0, 0, 1, 1, 2, 0], b=[0, 1, 1, 0, 2, 1], labels=[0, 0, 1, 1, 2, 2])
    assert [item.name for item in found.per_class] == NAMES
    assert [(item.paired.only_a, item.paired.only_b) for item in found.per_class] == [(1, 0), (1, 0), (0, 0)]
    assert {(f.label, f.from_a, f.to_b, f.n) for f in found.flows} == {
        ("cat", "cat", "dog", 1),
        ("dog", "dog", "cat", 1),
        ("eel", "cat", "dog", 1),
    }


def test_the_largest_flows_come_first() -> None:
    found = _comparison(a=[0, 0, 0, 1, 1, 2], b=[1, 2, 2, 0, 0, 2], labels=[0, 0, 0, 0, 0, 0])
    assert [flow.n for flow in found.flows] == [2, 2, 1]
    many = _comparison(a=[0] * 30, b=[1, 2] * 15, labels=[0, 1, 2] * 10)
    assert len(many.flows) == 6
    names = [f"class {i}" for i in range(FLOWS_SHOWN + 2)]
    b = np.repeat(np.arange(len(names)), np.arange(len(names)) + 1)
    shown = compare.compare((b + 1) % len(names), b, np.zeros_like(b), class_names=names).flows
    assert [flow.n for flow in shown] == list(range(len(names), len(names) - FLOWS_SHOWN, -1))


def test_a_class_without_images_is_left_out() -> None:
    assert [item.name for item in _comparison([0, 2], [0, 0], [0, 2]).per_class] == ["cat", "eel"]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=60))
def test_swapping_the_sides_negates_the_difference_and_keeps_p(triples: list[tuple[int, int, int]]) -> None:
    a, b, labels = (list(column) for column in zip(*triples, strict=True))
    there, back = _comparison(a, b, labels), _comparison(b, a, labels)
    assert there.overall.difference == -back.overall.difference
    assert there.overall.p_value == back.overall.p_value
    assert sum(flow.n for flow in there.flows) <= sum(x != y for x, y in zip(a, b, strict=True))


def test_verdicts_say_better_worse_nothing_shown_and_identical() -> None:
    labels = np.repeat([0, 1, 2], 200)
    worse = labels.copy()
    worse[:60] = 1  # cats called dogs
    slightly = labels.copy()
    slightly[[0, 250]] = 2
    names = {"name_a": "photo", "name_b": "scenes"}

    def said(a: Labels, b: Labels) -> str:
        return verdict(compare.compare(a, b, labels, class_names=NAMES), **names)

    assert said(labels, worse).startswith("scenes is worse than photo: -10.0 points [")
    assert said(labels, worse).endswith("p < 0.0001; cat -30.0.")
    assert said(worse, labels).startswith("scenes is better than photo: +10.0 points [")
    assert said(worse, labels).endswith("no class is shown to be worse; cat +30.0.")
    assert said(labels, slightly).startswith("no difference shown between scenes and photo: -0.3 points [")
    assert said(labels, labels) == "scenes and photo are right on exactly the same images."


def test_a_class_is_named_only_where_the_corrected_p_value_says_so() -> None:
    """Six lost dogs: p = 0.031 alone, 0.094 among three classes."""
    labels = np.repeat([0, 1, 2], 200)
    fewer = labels.copy()
    fewer[200:206] = 0
    found = compare.compare(labels, fewer, labels, class_names=NAMES)
    assert found.per_class[1].paired.p_value < compare.LEVEL < found.per_class[1].p_holm
    said = verdict(found, name_a="a", name_b="b")
    assert said.startswith("b is worse than a: -1.0 points")
    assert said.endswith("; no class alone is shown to differ.")


def test_without_a_flow_there_is_no_table_of_flows() -> None:
    same, other = ([0, 1, 2], [0, 1, 2]), ([0, 1, 2], [0, 2, 2])
    texts = [
        comparison.as_table(Compared(found.overall, found.per_class, found.flows, "x", "y"), shown=str)
        for found in (_comparison(a, b, [0, 1, 2]) for a, b in (same, other))
    ]
    assert ["images of" in text for text in texts] == [False, True]
