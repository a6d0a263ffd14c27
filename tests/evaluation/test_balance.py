"""Imbalance: what accuracy hides is named, counted by class, and tested for what it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import balanced_accuracy_score

from clipcifar.api.comparing import Compared
from clipcifar.cli import comparison
from clipcifar.evaluation import balance, compare, signs
from clipcifar.evaluation.balance import ClassSums, class_sums, sign_flip, sign_flip_bound
from clipcifar.evaluation.verdict import statement, verdict
from clipcifar.report import verdicts

NAMES = ["cat", "dog", "truck"]
Labels = NDArray[np.int64]
SIZES = [5, 40, 10]


def answers(*right: int, sizes: list[int] = SIZES, last: bool = False) -> Labels:
    """Predictions that are right on so many images of each class, the first of them, or the last."""
    said = []
    for label, (n, own) in enumerate(zip(sizes, right, strict=True)):
        wrong = [(label + 1) % len(sizes)] * (n - own)
        said.append([*wrong, *[label] * own] if last else [*[label] * own, *wrong])
    return np.concatenate(said).astype(np.int64)


LABELS = np.repeat([0, 1, 2], SIZES)
# 3, 27 and 10 of 5, 40 and 10 are right, then none, 39 and 10: the photographs of the issue.
BEFORE, AFTER = answers(3, 27, 10), answers(0, 39, 10)


def compared(a: Labels, b: Labels, labels: Labels = LABELS) -> compare.Comparison:
    return compare.compare(a, b, labels, class_names=NAMES)


def test_a_fall_of_balanced_accuracy_is_named_where_accuracy_rises() -> None:
    found = compared(BEFORE, AFTER)
    assert found.overall.accuracy_a == pytest.approx(40 / 55)
    assert found.overall.accuracy_b == pytest.approx(49 / 55)
    said = verdict(found, name_a="photo", name_b="chosen")
    assert said.startswith("chosen is better than photo: +16.4 points [")
    assert "; balanced accuracy falls from 0.758 to 0.658, -10.0 points [" in said
    assert "] (cat 0.60 → 0.00, 5 images); second family, 3 classes (Holm)" in said
    assert said.endswith("none worse, dog +30.0.")


def test_a_rise_that_accuracy_hides_is_named_too_and_one_that_goes_along_is_not() -> None:
    said = verdict(compared(AFTER, BEFORE), name_a="a", name_b="b")
    assert said.startswith("b is worse than a: -16.4 points")
    assert "balanced accuracy rises from 0.658 to 0.758, +10.0 points" in said
    assert "(cat 0.00 → 0.60, 5 images)" in said
    # 2, 16 and 4 more: two fifths of every class.
    along = verdict(compared(answers(1, 10, 2), answers(3, 26, 6)), name_a="a", name_b="b")
    assert along.startswith("b is better than a: +40.0 points")
    assert "balanced" not in along


def test_a_fall_is_named_where_no_difference_is_shown_and_none_where_classes_are_equally_large() -> None:
    even = compared(answers(3, 30, 8), answers(1, 32, 8))
    said = verdict(even, name_a="a", name_b="b")
    assert said.startswith("no difference shown between b and a: +0.0 points")
    assert "balanced accuracy falls from 0.717 to 0.600, -11.7 points" in said
    assert said.endswith("(cat 0.60 → 0.20, 5 images).")
    sizes = [10, 10, 10]
    alike = compared(
        answers(9, 3, 5, sizes=sizes), answers(2, 10, 5, sizes=sizes), np.repeat([0, 1, 2], sizes)
    )
    assert alike.overall.balanced is None
    assert "balanced" not in verdict(alike, name_a="a", name_b="b")


def test_one_image_is_one_image() -> None:
    labels = np.repeat([0, 1, 2], [1, 30, 30])
    said = verdict(compared(labels, np.where(labels == 0, 1, labels), labels), name_a="a", name_b="b")
    assert "(cat 1.00 → 0.00, 1 image)" in said


def test_sets_of_which_nothing_is_shown_say_what_their_average_hides() -> None:
    (item,) = compare.against(answers(3, 30, 8), {"wide": answers(1, 32, 8)}, LABELS, class_names=NAMES)
    (said,) = verdicts.of_sets([item], active="photo")
    assert said.startswith(
        "No difference shown between photo and wide; with wide balanced accuracy falls from 0.717 to 0.600"
    )
    (same,) = compare.against(LABELS, {"wide": LABELS}, LABELS, class_names=NAMES)
    assert verdicts.of_sets([same], active="photo") == ["No difference shown between photo and wide."]


def named(found: compare.Comparison) -> Compared:
    return Compared(found.overall, found.per_class, found.flows, name_a="x", name_b="y")


def test_the_table_of_a_comparison_has_a_row_in_which_classes_count_alike() -> None:
    text = comparison.as_table(named(compared(BEFORE, AFTER)), shown=str)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    row = next(cells for cells in rows if cells[0] == "balanced")
    assert row[1:5] == ["–", "0.7583", "0.6583", "-10.00"]
    assert "each class counting alike" in text
    assert "Too few images to show any difference, were all of them lost: cat (5)." in text
    assert "each class counting alike; its interval is normal" in text  # all others are Bonett and Price's
    sizes = [10, 10, 10]
    even = np.repeat([0, 1, 2], sizes)
    table = comparison.as_table(named(compared(even, even, even)))
    assert "balanced" not in table
    assert "Too few" not in table
    data = comparison.as_data(named(compared(BEFORE, AFTER)))
    assert data["overall"]["balanced"]["difference"] == pytest.approx(-0.1)
    assert data["overall"]["balanced"]["mover"] == {
        "name": "cat",
        "n": 5,
        "accuracy_a": 0.6,
        "accuracy_b": 0.0,
    }


@settings(max_examples=60, derandomize=True)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_balanced_accuracies_are_scikit_learns(seed: int, num_classes: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice(num_classes, size=60, p=rng.dirichlet(np.ones(num_classes)))
    a, b = (np.where(rng.random(60) < share, labels, (labels + 1) % num_classes) for share in (0.7, 0.5))
    names = [str(label) for label in range(num_classes)]
    found = compare.compare(a, b, labels, class_names=names)
    scores = [
        balance.mean_of_classes(
            np.bincount(labels, said == labels, num_classes), np.bincount(labels, minlength=num_classes)
        )
        for said in (a, b)
    ]
    present = np.unique(labels)
    expected = [np.mean([(said == labels)[labels == label].mean() for label in present]) for said in (a, b)]
    assert [float(score) for score in scores] == pytest.approx(expected)
    if set(a) | set(b) <= set(present):
        assert expected == pytest.approx([balanced_accuracy_score(labels, said) for said in (a, b)])
    item = found.overall.balanced
    if item is not None:
        assert (item.accuracy_a, item.accuracy_b) == pytest.approx(tuple(expected))
        assert item.low <= item.difference <= item.high


def test_the_interval_covers_the_truth_where_a_class_has_five_images() -> None:
    """Nine in ten at the least, where the plain formula would give seven in eight."""
    rng, sizes, covered = np.random.default_rng(1), np.array(SIZES), 0
    lost, won = np.array([0.3, 0.05, 0.1]), np.array([0.1, 0.1, 0.1])
    for _ in range(1_000):
        draws = np.array(
            [rng.multinomial(n, [a, b, 1 - a - b]) for n, a, b in zip(sizes, lost, won, strict=True)]
        )
        a, b = draws[:, 0], draws[:, 1]
        item = balance.balanced(ClassSums(sizes, a, b - a, a + b), NAMES)
        assert item is not None
        covered += item.low <= (won - lost).mean() <= item.high
    assert covered >= 900


def test_five_lost_images_of_a_class_are_not_certain() -> None:
    item = compared(LABELS, answers(0, 40, 10)).overall.balanced
    assert item is not None
    assert item.high - item.low > 0.1


# --- the test by flipping signs ------------------------------------------------------------------


def naive_sign_flip(right_a: NDArray[np.bool_], right_b: NDArray[np.bool_], labels: Labels) -> float:
    """All sign vectors, image by image."""
    present, counts = np.unique(labels, return_counts=True)
    weight = dict(zip(present.tolist(), 1 / counts, strict=True))
    values = [
        weight[label] * (int(b) - int(a))
        for a, b, label in zip(right_a, right_b, labels.tolist(), strict=True)
    ]
    values = [value for value in values if value]
    signs = 1 - 2 * ((np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1)
    return float((np.abs(signs @ np.abs(values)) >= abs(sum(values)) - 1e-12).mean())


@pytest.mark.parametrize("seed", range(6))
def test_the_p_value_is_that_of_all_flips_and_the_bound_is_never_below(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 2], [3, 9, 6])
    a, b = rng.random(18) < 0.4, rng.random(18) < 0.7
    sums = class_sums(a, b, labels, num_classes=4)  # the fourth class has no image
    exact = naive_sign_flip(a, b, labels)
    assert sign_flip(sums) == pytest.approx(exact, abs=0.02)
    columns = ClassSums(sums.n, *(values[:, None] for values in sums[1:4]))
    assert sign_flip_bound(columns)[0] >= exact


def test_of_one_class_the_test_is_mcnemars_and_nothing_changed_is_no_doubt() -> None:
    labels = np.zeros(40, dtype=np.int64)
    a, b = np.arange(40) < 10, (np.arange(40) >= 10) & (np.arange(40) < 32)
    sums = class_sums(a, b, labels, num_classes=1)
    assert sign_flip(sums) == pytest.approx(stats.binomtest(10, 32).pvalue, abs=0.01)
    same = class_sums(a, a, labels, num_classes=1)
    assert sign_flip(same) == 1
    assert sign_flip_bound(ClassSums(same.n, *(values[:, None] for values in same[1:4]))).tolist() == [1]


def test_among_equals_it_finds_no_more_than_its_level_allows_and_a_difference_it_finds() -> None:
    rng, shown = np.random.default_rng(3), {0.0: 0, 0.25: 0}
    for gain in shown:
        for _ in range(200):
            a, b = rng.random(55) < 0.5, rng.random(55) < 0.5 + gain
            shown[gain] += sign_flip(class_sums(a, b, LABELS, num_classes=3)) < signs.LEVEL
    assert shown[0.0] <= int(stats.binom.ppf(0.999, 200, signs.LEVEL))
    assert shown[0.25] > 60


def test_a_verdict_by_balanced_accuracy_says_so_and_what_the_accuracy_does() -> None:
    found = compare.compare(BEFORE, AFTER, LABELS, class_names=NAMES, by="balanced_accuracy")
    said = verdict(found, name_a="photo", name_b="chosen")
    assert said.startswith(
        "no difference shown between chosen and photo in balanced accuracy: -10.0 points ["
    )
    assert "; in accuracy +16.4 points; second family, 3 classes" in said
    asked = found.overall
    assert (asked.accuracy_a, asked.accuracy_b) == pytest.approx((0.75833, 0.65833), abs=1e-5)
    assert asked.p_value == sign_flip(class_sums(BEFORE == LABELS, AFTER == LABELS, LABELS, num_classes=3))
    assert asked.low <= 0 <= asked.high  # as its p value has it
    sizes = [10, 10, 10]
    even = np.repeat([0, 1, 2], sizes)
    after = answers(8, 8, 8, sizes=sizes)
    alike = compare.compare(even, after, even, class_names=NAMES, by="balanced_accuracy")
    assert alike.overall == compared(even, after, even).overall  # which it then is
    assert "balanced" not in statement(
        alike.overall, alike.overall.p_value, name_a="a", name_b="b", by="balanced_accuracy"
    )
