"""Which images a person asks for: every filter and order against a loop over the images."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qsl

import numpy as np
import pytest
from hypothesis import given, strategies as st

from clipcifar.core.errors import ConfigError
from clipcifar.explorer.answers import _ROWS, ORDERS, OUTCOMES, RESULTS, SPLITS, Answers, Wanted, disagreement

N, CLASSES = 60, 4
NAMES = ["zero_shot", "gda", "tried"]


def _made(seed: int) -> tuple[np.ndarray, dict[str, Answers]]:
    """Labels, and classifiers that are often right, often of one mind, and often as unsure as each other."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, N)
    answers = {}
    for name in NAMES:
        scores = rng.integers(0, 3, (N, CLASSES)) + 2 * rng.integers(0, 2, (N, 1)) * np.eye(CLASSES)[labels]
        answers[name] = Answers(name, scores.astype(np.float32), None)
    return labels, answers


def test_an_outcome_against_one_that_says_nothing_is_against_the_active_set() -> None:
    _, answers = _made(0)
    of_train = {"zero_shot": answers["zero_shot"]}  # as train has it
    wanted = Wanted.read({"split": "train", "against": "gda", "outcome": "won"}, of_train, CLASSES)
    assert (wanted.against, wanted.outcome) == ("zero_shot", "won")


def _margin(scores: np.ndarray) -> float:
    """By a whole softmax."""
    likely = np.exp(scores.astype(np.float64) - scores.max())
    *_, second, first = sorted(likely / likely.sum())
    return float(first - second)


def _passes(wanted: Wanted, label: int, own: int, other: int | None) -> bool:
    """By the words of the form, for one image."""
    if wanted.label is not None and label != wanted.label:
        return False
    if wanted.called is not None and own != wanted.called:
        return False
    if wanted.result == "right" and own != label:
        return False
    if wanted.result == "wrong" and own == label:
        return False
    if other is None or not wanted.outcome:
        return True
    return {
        "won": own == label and other != label,
        "lost": own != label and other == label,
        "changed": own != other,
    }[wanted.outcome]


WANTED = st.builds(
    Wanted,
    split=st.sampled_from(SPLITS),
    label=st.none() | st.integers(0, CLASSES - 1),
    by=st.sampled_from(NAMES),
    called=st.none() | st.integers(0, CLASSES - 1),
    result=st.sampled_from(list(RESULTS)),
    against=st.sampled_from(["", *NAMES]),
    outcome=st.sampled_from(list(OUTCOMES)),
    order=st.sampled_from(list(ORDERS)),
    page=st.integers(1, 9),
)


@given(WANTED, st.integers(0, 5))
def test_the_images_that_pass_are_those_that_a_loop_lets_pass_in_its_order(wanted: Wanted, seed: int) -> None:
    labels, answers = _made(seed)
    said = {
        name: [max(range(CLASSES), key=list(of.scores[i]).__getitem__) for i in range(N)]
        for name, of in answers.items()
    }
    own, other = said[wanted.by], said.get(wanted.against)
    passing = [i for i in range(N) if _passes(wanted, labels[i], own[i], other[i] if other else None)]
    margins = [_margin(row) for row in answers[wanted.by].scores]
    apart = [3 - max([s[i] for s in said.values()].count(s[i]) for s in said.values()) for i in range(N)]
    key = {
        "dataset": lambda i: 0,
        "unsure": lambda i: round(margins[i], 9),
        "sure": lambda i: -round(margins[i], 9),
        "disagreement": lambda i: -apart[i],
    }[wanted.order]
    rows = wanted.rows(labels, answers).tolist()
    assert sorted(rows) == passing
    assert [key(i) for i in rows] == sorted(key(i) for i in passing)
    if wanted.order in (
        "dataset",
        "disagreement",
    ):  # of margins that differ by rounding alone, either is first
        assert rows == sorted(passing, key=key)


@given(WANTED)
def test_an_address_reads_as_what_was_asked_for(wanted: Wanted) -> None:
    _, answers = _made(0)
    against = wanted.against or ("zero_shot" if wanted.outcome else "")  # won against whom, a page shows
    assert Wanted.read(dict(parse_qsl(wanted.query)), answers, CLASSES) == replace(wanted, against=against)
    assert wanted.at(7).page == 7
    assert wanted.at(7).at(wanted.page) == wanted


def test_an_address_holds_nothing_that_goes_without_saying() -> None:
    assert Wanted().query == ""
    assert Wanted(label=0, page=2).query == "label=0&page=2"  # class 0 is a class


@pytest.mark.parametrize("temperature", [None, 0.25, 40.0])
@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_a_margin_is_that_of_the_whole_softmax_beyond_a_block_of_rows(
    temperature: float | None, num_classes: int
) -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(_ROWS + 3, num_classes)).astype(np.float32) * 5
    margins = Answers("a", scores, temperature).margin
    expected = [_margin(row / (temperature or 1.0)) for row in scores]
    np.testing.assert_allclose(margins, expected, atol=1e-6)


def test_with_a_single_class_no_other_is_near() -> None:
    assert Answers("a", np.zeros((3, 1), np.float32), None).margin.tolist() == [1, 1, 1]


def test_of_equal_scores_the_first_class_is_the_answer_and_the_margin_is_none() -> None:
    answers = Answers("a", np.float32([[2, 5, 5], [7, 7, 7]]), 3.0)
    assert answers.predicted.tolist() == [1, 0]
    assert answers.margin.tolist() == [0, 0]
    assert answers.probability(1) == pytest.approx(1 / 3)


def test_disagreement_by_hand() -> None:
    def says(*classes: int) -> Answers:
        return Answers("a", np.eye(4, dtype=np.float32)[list(classes)], None)

    four = {
        "a": says(0, 0, 0, 0, 1),
        "b": says(0, 0, 1, 1, 1),
        "c": says(0, 0, 1, 2, 2),
        "d": says(0, 3, 0, 3, 2),
    }
    #            all alike, one apart, two and two, all apart, two and two
    assert disagreement(four).tolist() == [0, 1, 2, 3, 2]
    assert disagreement({"a": four["a"]}).tolist() == [0] * 5


HOSTILE = [
    *({"by": "nobody"}, {"by": ""}, {"by": "__class__"}, {"against": "nobody"}, {"outcome": "drawn"}),
    *({"split": "../x"}, {"split": "val"}, {"split": ""}, {"result": "RIGHT"}, {"order": "random"}),
    *({"label": str(CLASSES)}, {"label": "-1"}, {"label": "١"}, {"label": "²"}, {"label": "1.0"}),
    *({"label": " 1"}, {"label": "1_0"}, {"label": "None"}, {"called": "9" * 5000}, {"called": "4"}),
    *({"page": str(10**9)}, {"page": "-1"}, {"page": "1e3"}, {"page": "x"}, {"page": "9" * 5000}),
]


@pytest.mark.parametrize("query", HOSTILE, ids=lambda query: str(query)[:40])
def test_a_field_with_a_value_that_none_has_is_refused(query: dict[str, str]) -> None:
    _, answers = _made(0)
    with pytest.raises(ConfigError) as refused:
        Wanted.read(query, answers, CLASSES)
    assert len(str(refused.value)) < 6000
    assert refused.value.fix


def test_fields_that_none_asks_for_are_passed_over_and_page_zero_is_the_first() -> None:
    _, answers = _made(0)
    assert Wanted.read({"page": "0", "token": "x", "rows": "1"}, answers, CLASSES) == Wanted()
    assert Wanted.read({"label": "", "called": ""}, answers, CLASSES) == Wanted()
