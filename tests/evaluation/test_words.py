from __future__ import annotations

import pytest

from clipcifar.evaluation import words
from clipcifar.evaluation.compare import from_counts


@pytest.mark.parametrize(
    ("value", "in_a_column", "said"),
    [
        (0.0, "< 0.0001", "p < 0.0001"),
        (9.9e-5, "< 0.0001", "p < 0.0001"),
        (1e-4, "0.0001", "p = 0.0001"),
        (0.01234, "0.0123", "p = 0.0123"),
        (1.0, "1.0000", "p = 1.0000"),
    ],
)
def test_a_p_value_is_never_shown_as_nought(value: float, in_a_column: str, said: str) -> None:
    assert (words.p_text(value), words.p_said(value)) == (in_a_column, said)


def test_a_difference_is_said_in_points_with_its_sign() -> None:
    found = from_counts(1000, n_correct_a=900, only_a=0, only_b=0)
    assert words.with_interval(found) == "+0.0 [-0.3, +0.3]"
    assert words.points(-0.01234, 2) == "-1.23"
    paired = from_counts(1000, n_correct_a=900, only_a=40, only_b=10)
    low, high = 100 * paired.low, 100 * paired.high
    assert low < -3 < high < 0
    assert words.with_interval(paired, unit=" points") == f"-3.0 points [{low:.1f}, {high:.1f}]"
    assert words.interval(paired) == f"{low:.2f} to {high:.2f}"
