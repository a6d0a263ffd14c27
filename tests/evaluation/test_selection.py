from __future__ import annotations

import math

import numpy as np
import pytest

from clipcifar.evaluation.selection import Standing, most_accurate, most_likely, standing


def test_the_standing_of_scores_worked_out_by_hand() -> None:
    scores = np.array([[0, math.log(3)], [math.log(3), 0]], np.float32)  # 3 to 1 for one class each
    found = standing(scores, np.array([1, 1]))
    assert found.accuracy == 0.5
    assert found.nll == pytest.approx(-(math.log(3 / 4) + math.log(1 / 4)) / 2, abs=1e-6)


@pytest.mark.parametrize(
    ("standings", "accurate", "likely"),
    [
        ([(0.5, 0.1), (0.6, 9.0)], 1, 0),  # each by its own measure first
        ([(0.6, 0.3), (0.6, 0.2), (0.5, 0.2)], 1, 1),  # then by the other's
        ([(0.1, 1.0), (0.6, 0.2), (0.6, 0.2)], 1, 1),  # then by order
    ],
)
def test_one_measure_then_the_other_then_the_order(
    standings: list[tuple[float, float]], accurate: int, likely: int
) -> None:
    found = [Standing(*one) for one in standings]
    assert most_accurate(found) == accurate
    assert most_likely(found) == likely
