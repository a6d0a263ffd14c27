"""Two methods over seeds and images: by hand, at its level where nothing differs, and in words."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from clipcifar.evaluation.seeds import OverSeeds, SeedsCompared, compare_seeds, covers_said, seeds_said
from clipcifar.evaluation.signs import mcnemar_exact

Answers = NDArray[np.int64]


def compared(a: Answers | None, b: Answers | None, labels: Answers, **known: Answers) -> SeedsCompared | None:
    """Of sides without seeds what they predict is in `known`; else it is what their first seed says."""
    reported = [known[f"sure_{side}"] if said is None else said[0] for side, said in (("a", a), ("b", b))]
    return compare_seeds(a, b, predicted_a=reported[0], predicted_b=reported[1], labels=labels)


def over(a: Answers | None, b: Answers | None, labels: Answers, **known: Answers) -> OverSeeds:
    result = compared(a, b, labels, **known)
    assert result is not None
    assert result.crossed is not None
    return result.crossed


def test_a_comparison_worked_out_by_hand_with_an_unequal_number_of_seeds() -> None:
    labels = np.zeros(4, dtype=np.int64)
    a = np.array([[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 1, 0]])  # right on 1/2, 1/4 and 3/4
    b = np.array([[0, 0, 0, 0], [0, 0, 1, 0]])  # right on 1 and 3/4
    result = over(a, b, labels)
    assert (result.accuracy_a, result.accuracy_b, result.difference) == (0.5, 0.875, 0.375)
    of_images = np.var([0, 1 - 2 / 3, 0.5, 1 - 1 / 3], ddof=1) / 4
    of_a, of_b = np.var([0.5, 0.25, 0.75], ddof=1) / 3, np.var([1, 0.75], ddof=1) / 2
    assert of_a == pytest.approx(1 / 48)
    assert of_b == pytest.approx(1 / 64)
    freedom = (of_a + of_b) ** 2 / (of_a**2 / 2 + of_b**2 / 1)
    variance = of_images + of_a + of_b
    quantile = (of_images * stats.t.ppf(0.975, 3) + (of_a + of_b) * stats.t.ppf(0.975, freedom)) / variance
    assert result.low == pytest.approx(0.375 - quantile * math.sqrt(variance))
    assert result.high == pytest.approx(0.375 + quantile * math.sqrt(variance))


def test_turning_the_sides_turns_the_sign() -> None:
    rng = np.random.default_rng(0)
    a, b, labels = rng.integers(0, 3, (3, 50)), rng.integers(0, 2, (5, 50)), rng.integers(0, 3, 50)
    there, back = over(a, b, labels), over(b, a, labels)
    assert (back.difference, back.low, back.high) == (-there.difference, -there.high, -there.low)
    assert back.p_value == there.p_value


def test_a_side_without_seeds_adds_images_alone() -> None:
    rng = np.random.default_rng(1)
    labels, sure = rng.integers(0, 3, 60), rng.integers(0, 3, 60)
    seeds = rng.integers(0, 3, (3, 60))
    result = compared(None, seeds, labels, sure_a=sure)
    assert result is not None
    assert (result.n_a, result.n_b) == (0, 3)
    same = np.tile(sure, (4, 1))  # seeds that all say the same spread over nothing, either
    assert result.crossed == over(same, seeds, labels)


def test_of_one_seed_and_of_one_image_no_spread_is_told_and_without_seeds_there_is_nothing_to_say() -> None:
    labels = np.array([0, 1, 2])
    assert compared(None, None, labels, sure_a=labels, sure_b=labels) is None
    assert compared(labels[None], None, labels, sure_b=labels) == SeedsCompared(1, 0, None)
    assert compared(labels[None], np.tile(labels, (3, 1)), labels) == SeedsCompared(1, 3, None)
    one_image = np.zeros((3, 1), dtype=np.int64)
    assert compared(one_image, one_image, one_image[0]) == SeedsCompared(3, 3, None)
    copies = np.array([0, 0, 0])
    seeds = np.tile(labels, (2, 1))
    three_of_one = compare_seeds(
        seeds, seeds, predicted_a=labels, predicted_b=labels, labels=labels, copies=copies
    )
    assert three_of_one == SeedsCompared(2, 2, None)


class Noise(NamedTuple):
    """How far a margin (right where it is above 0) varies by seed, by image, and by both."""

    seed: float
    image: float
    rest: float = 0.2


def answers(
    rng: np.random.Generator, common: NDArray[np.float64], noise: Noise, *, seeds: int, gain: float = 0.0
) -> Answers:
    """(R, N), 0 where the margin of a method is above 0: on nine images of ten, over all seeds and images."""
    shape = (seeds, len(common))
    margin = common + noise.image * rng.normal(size=len(common))
    margin = margin + noise.seed * rng.normal(size=(seeds, 1)) + noise.rest * rng.normal(size=shape)
    of_all = math.sqrt(1 + noise.image**2 + noise.seed**2 + noise.rest**2)
    return (margin + 1.2816 * of_all + gain <= 0).astype(np.int64)


ROUNDS, IMAGES = 1500, 500
CASES = [  # seeds of either side; 0: a method without any, whose margin varies by image alone
    (3, 3, Noise(0.15, 0.3)),
    (3, 3, Noise(0.0, 0.3)),
    (0, 3, Noise(0.2, 0.1)),
    (2, 5, Noise(0.1, 0.3)),
    (10, 3, Noise(0.1, 0.0, 0.4)),
]


@pytest.mark.parametrize(("n_a", "n_b", "noise"), CASES)
def test_where_methods_do_not_differ_it_seldom_says_so_and_the_interval_covers(
    n_a: int, n_b: int, noise: Noise
) -> None:
    """And McNemar of one model with another says it too often as soon as seeds differ: it asks less."""
    rng, labels = np.random.default_rng(2), np.zeros(IMAGES, dtype=np.int64)
    wrong, mcnemar = 0, 0
    for _ in range(ROUNDS):
        common = rng.normal(size=IMAGES)
        b = answers(rng, common, noise, seeds=n_b)
        if n_a:
            a = answers(rng, common, noise, seeds=n_a)
            result = over(a, b, labels)
        else:
            sure = Noise(0.0, math.hypot(*noise), rest=0.0)
            a = answers(rng, common, sure, seeds=1)
            result = over(None, b, labels, sure_a=a[0])
        assert (result.low <= 0 <= result.high) == (result.p_value >= 0.05)
        wrong += result.p_value < 0.05
        only_a, only_b = (
            int((right & ~other).sum()) for right, other in ((a[0] == 0, b[0] == 0), (b[0] == 0, a[0] == 0))
        )
        mcnemar += mcnemar_exact(only_a, only_b) < 0.05
    limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / ROUNDS)
    assert wrong / ROUNDS <= limit
    assert (mcnemar / ROUNDS > 2 * limit) == (noise.seed > 0)


def test_a_difference_that_is_there_is_seen() -> None:
    rng, labels = np.random.default_rng(3), np.zeros(2000, dtype=np.int64)
    common, noise = rng.normal(size=2000), Noise(0.02, 0.3)
    a, b = (answers(rng, common, noise, seeds=3, gain=gain) for gain in (0.0, 0.5))
    result = over(a, b, labels)
    assert result.low > 0
    assert result.p_value < 0.01


def test_copies_of_test_images_are_no_further_images() -> None:
    rng = np.random.default_rng(4)
    common, labels = rng.normal(size=40), np.zeros(40, dtype=np.int64)
    a, b = (answers(rng, common, Noise(0.0, 1.0), seeds=3) for _ in range(2))
    fives = [np.repeat(rows, 5, axis=-1) for rows in (a, b, labels)]
    known, alike = over(a, b, labels), over(*fives)
    told = compare_seeds(
        fives[0],
        fives[1],
        predicted_a=fives[0][0],
        predicted_b=fives[1][0],
        labels=fives[2],
        copies=np.repeat(np.arange(40) * 5, 5),
    )
    assert told is not None
    assert told.crossed is not None
    assert (told.crossed.low, told.crossed.high) == (pytest.approx(known.low), pytest.approx(known.high))
    assert alike.high - alike.low < 0.7 * (known.high - known.low)  # where nobody says that they are copies


def test_in_words() -> None:
    shown = OverSeeds(0.9, 0.92, 0.02, 0.005, 0.035, 0.012)
    unshown = OverSeeds(0.9, 0.898, -0.002, -0.012, 0.008, 0.61)
    names = {"name_a": "mlp_probe", "name_b": "projection"}
    covers = "The p value covers other test images, not retraining"
    assert seeds_said(None, **names) == ""
    assert seeds_said(SeedsCompared(3, 2, shown), **names) == (
        f"{covers}. Covering both: projection (mean of 2 seeds) is better than mlp_probe (mean of 3 seeds): "
        "+2.0 points [+0.5, +3.5], p = 0.0120."
    )
    assert seeds_said(SeedsCompared(0, 3, unshown), **names) == (
        f"{covers}. Covering both: no difference shown between projection (mean of 3 seeds) and mlp_probe: "
        "-0.2 points [-1.2, +0.8], p = 0.6100."
    )
    assert seeds_said(SeedsCompared(1, 3, None), **names) == f"{covers}: of mlp_probe one seed is kept."
    assert seeds_said(SeedsCompared(3, 3, None), **names) == f"{covers}."  # of one image


def test_a_list_of_sentences_has_one_line_for_all_of_its_seeded_methods() -> None:
    assert covers_said(["linear_probe", "mlp_probe", "projection"]) == [
        "P values of MLP probe and projection heads cover other test images, not retraining."
    ]
    assert covers_said(["rank_prompts", "linear_probe"]) == []
