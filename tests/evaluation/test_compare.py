from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray
from scipy import stats

from clipcifar.api.comparing import Compared
from clipcifar.cli import comparison
from clipcifar.core.errors import DataError
from clipcifar.evaluation import compare, signs
from clipcifar.evaluation.flows import FLOWS_SHOWN
from clipcifar.evaluation.verdict import verdict

NAMES = ["cat", "dog", "eel"]
FAMILY = "second family, 3 classes (Holm)"
Labels = NDArray[np.int64]


def _bools(
    *, only_a: int, only_b: int, both: int, neither: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    a = np.array([True] * only_a + [False] * only_b + [True] * both + [False] * neither)
    b = np.array([False] * only_a + [True] * only_b + [True] * both + [False] * neither)
    return a, b


@settings(max_examples=40, derandomize=True)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=50), st.integers(0, 3))
def test_identical_predictions_give_p_1_and_no_difference(said: list[int], label: int) -> None:
    predicted, labels = np.array(said), np.full(len(said), label)
    found = compare.compare(predicted, predicted.copy(), labels, class_names=list("abcd"))
    assert (found.overall.p_value, found.overall.difference, found.flows) == (1, 0, [])
    assert [item.p_holm for item in found.per_class] == [1]


def test_a_paired_difference_by_hand() -> None:
    found = compare.paired(*_bools(only_a=10, only_b=30, both=50, neither=10))
    assert (found.n, found.only_a, found.only_b) == (100, 10, 30)
    assert found.accuracy_a == pytest.approx(0.6)
    assert found.accuracy_b == pytest.approx(0.8)
    assert found.difference == pytest.approx(0.2)
    assert found.p_value == pytest.approx(stats.binomtest(10, 40).pvalue)


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
    assert said(labels, worse).endswith(f"p < 0.0001; {FAMILY}: cat -30.0.")
    assert said(worse, labels).startswith("scenes is better than photo: +10.0 points [")
    assert said(worse, labels).endswith(": none worse, cat +30.0.")
    assert said(labels, slightly).startswith("no difference shown between scenes and photo: -0.3 points [")
    assert said(labels, labels) == "scenes and photo are right on exactly the same images."


def test_a_class_is_named_only_where_the_corrected_p_value_says_so() -> None:
    """Six lost dogs: p = 0.031 alone, 0.094 among three classes."""
    labels = np.repeat([0, 1, 2], 200)
    fewer = labels.copy()
    fewer[200:206] = 0
    found = compare.compare(labels, fewer, labels, class_names=NAMES)
    assert found.per_class[1].paired.p_value < signs.LEVEL < found.per_class[1].p_holm
    said = verdict(found, name_a="a", name_b="b")
    assert said.startswith("b is worse than a: -1.0 points")
    assert said.endswith(f"; {FAMILY}: none shown to differ.")


def test_without_a_flow_there_is_no_table_of_flows() -> None:
    same, other = ([0, 1, 2], [0, 1, 2]), ([0, 1, 2], [0, 2, 2])
    texts = [
        comparison.as_table(
            Compared(found.overall, found.per_class, found.flows, name_a="x", name_b="y"), shown=str
        )
        for found in (_comparison(a, b, [0, 1, 2]) for a, b in (same, other))
    ]
    assert ["images of" in text for text in texts] == [False, True]
