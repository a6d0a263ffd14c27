from __future__ import annotations

import math

import numpy as np
import pytest

from clipcifar.selection import Standing, best, standing


def test_the_standing_of_scores_worked_out_by_hand() -> None:
    scores = np.array([[0, math.log(3)], [math.log(3), 0]], np.float32)  # 3 to 1 for one class each
    found = standing(scores, np.array([1, 1]))
    assert found.accuracy == 0.5
    assert found.nll == pytest.approx(-(math.log(3 / 4) + math.log(1 / 4)) / 2, abs=1e-6)


@pytest.mark.parametrize(
    ("standings", "wanted"),
    [
        ([(0.5, 0.1), (0.6, 9.0)], 1),  # accuracy comes first
        ([(0.6, 0.3), (0.6, 0.2), (0.5, 0.0)], 1),  # then the likelihood
        ([(0.1, 1.0), (0.6, 0.2), (0.6, 0.2)], 1),  # then the order
    ],
)
def test_accuracy_then_likelihood_then_order(standings: list[tuple[float, float]], wanted: int) -> None:
    assert best([Standing(*one) for one in standings]) == wanted
