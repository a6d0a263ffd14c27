"""Every sentence that a comparison can come to: none is empty, repeats itself or lists nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from clipcifar.evaluation import compare
from clipcifar.evaluation.balance import Measure
from clipcifar.evaluation.compare import Comparison, NamedDifference
from clipcifar.evaluation.verdict import difference_said, statement, verdict

# By class, images that only A and only B gets right, of 100 of each.
LOST, WON, EVEN, NEITHER = (40, 0), (0, 40), (3, 3), (0, 0)


def compared(*classes: tuple[int, int]) -> Comparison:
    by_class = [
        compare.from_counts(100, n_correct_a=50, only_a=only_a, only_b=only_b) for only_a, only_b in classes
    ]
    only_a, only_b = (sum(counts) for counts in zip(*classes, strict=True))
    n = 100 * len(classes)
    overall = compare.from_counts(n, n_correct_a=n // 2, only_a=only_a, only_b=only_b)
    named = [(f"class{i}", item) for i, item in enumerate(by_class)]
    return Comparison(overall, compare.corrected(named), [])


def ending(*classes: tuple[int, int]) -> str:
    """What follows the head."""
    said = verdict(compared(*classes), name_a="a", name_b="b")
    return said.partition("; ")[2]


FAMILY = "second family, 3 classes (Holm)"


def test_the_ending_names_the_classes_that_are_shown_to_differ_and_nothing_where_none_is() -> None:
    assert ending(LOST, WON, EVEN) == f"{FAMILY}: class0 -40.0, class1 +40.0."
    assert ending(LOST, EVEN, NEITHER) == f"{FAMILY}: class0 -40.0."
    assert ending(EVEN, WON, NEITHER) == f"{FAMILY}: none worse, class1 +40.0."
    assert ending(EVEN, EVEN, NEITHER) == ""
    in_none = "second family, 4 classes (Holm): none shown to differ."
    assert ending(*[(0, 4)] * 4) == in_none
    assert ending(*[(4, 0)] * 4) == in_none
    assert ending((0, 9)) == ""  # one class is the whole


def test_two_that_are_right_on_the_same_images_are_told_in_that_one_phrase() -> None:
    same = compared(NEITHER, NEITHER)
    expected = "b and a are right on exactly the same images"
    assert verdict(same, name_a="a", name_b="b") == f"{expected}."
    assert statement(same.overall, 1.0, name_a="a", name_b="b") == expected
    # Of several answers about an image, such as its corruptions, equal counts are no equal answers.
    assert difference_said(same.overall, 1.0, name_a="a", name_b="b").startswith(
        "no difference shown between"
    )


@pytest.mark.parametrize("by", ["accuracy", "balanced_accuracy"])
def test_no_sentence_is_empty_in_a_part_or_says_a_thing_twice(by: Measure) -> None:
    said = [
        verdict(replace(compared(*classes), by=by), name_a="photo", name_b="scenes", p_value=p_value)
        for classes in product((LOST, WON, EVEN, NEITHER, (0, 6)), repeat=3)
        for p_value in (None, 0.2)
    ]
    for sentence in said:
        assert re.fullmatch(r"(scenes|no difference) .*[^ ;.,]\.", sentence), sentence
        parts = sentence.removesuffix(".").split("; ")
        assert len(set(parts)) == len(parts), sentence
        assert all(part.strip() for part in parts), sentence
        assert sum("second family" in part for part in parts) <= 1, sentence
        assert sentence.count("none") <= 1, sentence


def test_named_differences_of_one_image_are_in_the_singular() -> None:
    labels = np.array([0] * 9 + [1])
    right, wrong = np.ones(10, dtype=bool), np.array([True] * 9 + [False])
    found = compare.paired_by_class(right, wrong, labels, class_names=["cat", "dog"])
    item = NamedDifference("scenes", found, 1.0)
    assert "(dog 1.00 → 0.00, 1 image)" in statement(item.paired, 1.0, name_a="a", name_b="b")
