"""Choosing by few images: the rule by hand and written out, and that it does what it is there for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from clipcifar.studies.few_shot import choice
from clipcifar.studies.few_shot.methods import METHODS
from clipcifar.studies.few_shot.shots import Examples
from clipcifar.studies.few_shot.tip_adapter import Cache, Mix, asking
from tests.support.synthetic import around, prototypes, task

NUM_CLASSES = 3


def candidates(n: int, *, seed: int, helps: float) -> tuple[list[NDArray[np.float32]], NDArray[np.int64]]:
    """Zero-shot logits, and four that add more and more of what helps, or does not, beside noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, NUM_CLASSES, n)
    right = np.eye(NUM_CLASSES)[labels]
    prior, other = rng.standard_normal((2, n, NUM_CLASSES))
    base, added = prior + 2 * right, other + helps * right
    return [(base + weight * added).astype(np.float32) for weight in (0, 0.3, 1, 3, 10)], labels


def naive_nearest(scores: list[NDArray[np.float32]], labels: NDArray[np.int64]) -> int:
    """The temperature by SciPy on smoothed labels, and every mean and error of its own."""
    n = len(labels)
    logs, losses = [], []
    for logits in scores:
        target = (1 - 1 / (n + 1)) * np.eye(NUM_CLASSES)[labels] + 1 / (n + 1) / NUM_CLASSES

        def smoothed(
            log_t: float, logits: NDArray[np.float32] = logits, target: NDArray[np.float64] = target
        ) -> float:
            return -float((target * log_softmax(logits / math.exp(log_t), axis=1)).sum())

        best = minimize_scalar(smoothed, bounds=(-6.9, 6.9), method="bounded", options={"xatol": 1e-9})
        logs.append(log_softmax(logits.astype(np.float64) / math.exp(best.x), axis=1))
        losses.append([-logs[-1][i, label] for i, label in enumerate(labels)])
    means = [sum(loss) / n for loss in losses]
    winner = means.index(min(means))
    allowed = []
    for i, loss in enumerate(losses):
        gaps = [a - b for a, b in zip(loss, losses[winner], strict=True)]
        mean = sum(gaps) / n
        error = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / (n - 1) / n)
        if mean <= error:
            allowed.append(i)
    divergence = {i: float((np.exp(logs[0]) * (logs[0] - logs[i])).sum()) for i in allowed}
    return min(allowed, key=lambda i: divergence[i])


@pytest.mark.parametrize("n", [9, 30, 200])
@pytest.mark.parametrize("helps", [0.0, 1.0, 3.0])
def test_it_is_the_rule_written_out(n: int, helps: float) -> None:
    chosen = []
    for seed in range(8):
        scores, labels = candidates(n, seed=seed, helps=helps)
        chosen.append(choice.nearest(scores, labels))
        assert chosen[-1] == naive_nearest(scores, labels)
    if helps == 0:
        assert chosen.count(0) >= 4
    if helps == 3 and n == 200:
        assert 0 not in chosen  # many images that speak for it are heard


def test_one_standard_error_by_hand() -> None:
    """Where the second candidate wins three of four images and loses one, it is less than an error ahead."""
    labels = np.zeros(4, np.int64)
    first, lucky, clear = (
        np.array([[gap, 0] for gap in gaps], np.float32)
        for gaps in ((1, 1, 1, -1), (2.2, 1, 1, -1.2), (5, 5, 5, 5))
    )
    assert choice.likeliest([first, lucky], labels) == 1
    assert choice.nearest([first, lucky], labels) == 0
    assert choice.nearest([first, clear], labels) == 1
    assert choice.nearest([lucky, first], labels) == 0  # whichever comes first is what is kept


def test_of_those_within_an_error_the_least_departure_is_taken_and_not_the_first() -> None:
    scores, labels = candidates(200, seed=0, helps=3)
    chosen = choice.nearest(scores, labels)
    again = choice.nearest([scores[0], *scores[:0:-1]], labels)
    assert again == len(scores) - chosen


def test_surer_is_not_better() -> None:
    """The same logits four times as large have another likelihood and the same standing here."""
    scores, labels = candidates(60, seed=1, helps=0)
    (first,) = scores[:1]
    losses, departures = choice.judged([first, 4 * first], labels)
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-5)
    np.testing.assert_allclose(departures, 0, atol=1e-6)


def test_folds_are_judged_together_in_their_order() -> None:
    a, b = np.array([[1.0, 0]], np.float32), np.array([[0.0, 2], [3, 0]], np.float32)
    first, second = choice.pooled([[a, 10 * a], [b, 10 * b]])
    assert first.tolist() == [[1, 0], [0, 2], [3, 0]]
    assert second.tolist() == [[10, 0], [0, 20], [30, 0]]


def test_one_image_per_class_no_longer_costs_what_good_text_knows() -> None:
    """Three images to learn from and three to choose by, 40 draws; val's likeliest mix is the control."""
    weights = around(prototypes(), np.arange(NUM_CLASSES), noise=0.3, seed=9)

    def examples(n: int, seed: int) -> Examples:
        rows, labels = task(n, noise=2.5, seed=seed)
        return Examples(rows, (10 * rows @ weights.T).astype(np.float32), labels)

    unseen = examples(400, 999)
    mixes = [Mix(1.0, 0.0), *asking((1.0, 10.0), (3.0, 30.0, 300.0))]
    lost: dict[str, list[float]] = {"likeliest": [], "nearest": []}
    right = (unseen.zero_shot.argmax(axis=1) == unseen.labels).mean()
    for seed in range(40):
        parts = examples(3, 2 * seed), examples(3, 2 * seed + 1)
        by_fold = [
            Cache(train.embeddings, train.labels, NUM_CLASSES).logits_by_mix(
                val.embeddings, val.zero_shot, mixes
            )
            for train, val in (parts, parts[::-1])
        ]
        labels = np.concatenate([parts[1].labels, parts[0].labels])
        cache = Cache(parts[0].embeddings, parts[0].labels, NUM_CLASSES)
        for rule, mix in (
            ("likeliest", mixes[choice.likeliest(by_fold[0], parts[1].labels)]),
            ("nearest", mixes[choice.nearest(choice.pooled(by_fold), labels)]),
        ):
            said = cache.logits(unseen.embeddings, unseen.zero_shot, mix).argmax(axis=1)
            lost[rule].append(float(right - (said == unseen.labels).mean()))
    assert np.mean(lost["nearest"]) < 0.01
    assert np.mean(lost["likeliest"]) > 3 * max(0.01, float(np.mean(lost["nearest"])))


def test_every_method_has_a_title_of_its_own() -> None:
    assert len(set(METHODS.values())) == len(METHODS)
