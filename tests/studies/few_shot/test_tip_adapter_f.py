"""The few-shot study's Tip-Adapter-F put together again step by step, and what its probes hand on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import log_softmax

from clipcifar.evaluation.calibration import fit_temperature
from clipcifar.methods import zero_shot
from clipcifar.studies.few_shot.methods import Outcome, learn
from clipcifar.studies.few_shot.params import FewShotParams
from clipcifar.studies.few_shot.shots import Examples, Fold
from clipcifar.studies.few_shot.tip_adapter import Cache, Mix, finetuned
from tests.support.synthetic import CLASSES, around, prototypes, task

NUM_CLASSES, SCALE, SEED = 3, 10.0, 4
PARAMS = FewShotParams(
    shots=(1,),
    seeds=(0, 1),
    val_per_class=None,
    c_grid=(0.1,),
    max_iter=500,
    text_weights=(1.0,),
    sharpness=(1.0, 3.0, 10.0),
    cache_weights=(0.0, 1.0, 3.0, 10.0, 30.0, 100.0),
    epochs=8,
    learning_rate=0.01,
    batch_size=8,
    finetuned_per_class=100,
)


def examples(n: int, *, seed: int, noise: float, text_noise: float) -> Examples:
    rows, labels = task(n, noise=noise, seed=seed)
    weights = around(prototypes(), np.arange(NUM_CLASSES), noise=text_noise, seed=9)
    return Examples(rows, zero_shot.logits(rows, weights, logit_scale=SCALE), labels)


def draws(n: int, *, seed: int, noise: float, text_noise: float) -> tuple[Examples, Examples, Examples]:
    train, val, test = (
        examples(size, seed=one, noise=noise, text_noise=text_noise)
        for size, one in ((n, seed), (45, seed + 50), (200, seed + 90))
    )
    return train, val, test


def learnt(parts: tuple[Examples, Examples, Examples], params: FewShotParams) -> dict[str, Outcome]:
    train, val, test = parts
    return learn(
        [Fold(train, val)],
        test.embeddings,
        test.zero_shot,
        weights=prototypes(),
        logit_scale=SCALE,
        params=params,
        class_names=CLASSES,
        seed=SEED,
    )


def nll(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    exact = scores.astype(np.float64)
    return float(np.mean(np.log(np.exp(exact).sum(axis=1)) - exact[np.arange(len(labels)), labels]))


def own_nll(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) losses at the temperature that these images prefer."""
    log_p = log_softmax(scores.astype(np.float64) / fit_temperature(scores, labels), axis=1)
    return np.asarray(-log_p[np.arange(len(labels)), labels])


def first_of_each_class(train: Examples, per_class: int) -> Cache:
    kept: list[int] = []
    for row, label in enumerate(train.labels):
        if sum(train.labels[other] == label for other in kept) < per_class:
            kept.append(row)
    return Cache(train.embeddings[kept], train.labels[kept], NUM_CLASSES)


def mixes(params: FewShotParams) -> list[Mix]:
    return [Mix(beta, alpha) for beta in params.sharpness for alpha in params.cache_weights if alpha]


def best_mix(cache: Cache, val: Examples, params: FewShotParams) -> Mix:
    def loss(mix: Mix) -> float:
        return float(own_nll(cache.logits(val.embeddings, val.zero_shot, mix), val.labels).mean())

    return min(mixes(params), key=loss)


def nearest_mix(cache: Cache, val: Examples, params: FewShotParams) -> Mix:
    """One standard error of the best, then the least divergence from zero-shot, mix by mix."""
    every = [Mix(params.sharpness[0], 0.0), *mixes(params)]
    scores = [cache.logits(val.embeddings, val.zero_shot, mix) for mix in every]
    losses = [own_nll(of_mix, val.labels) for of_mix in scores]
    best = min(losses, key=lambda loss: float(loss.mean()))
    temper = [of_mix / fit_temperature(of_mix, val.labels) for of_mix in scores]
    logs = [log_softmax(of_mix.astype(np.float64), axis=1) for of_mix in temper]

    def departure(i: int) -> float:
        return float((np.exp(logs[0]) * (logs[0] - logs[i])).sum(axis=1).mean())

    def behind(i: int) -> bool:
        gap = losses[i] - best
        return float(gap.mean()) > float(gap.std(ddof=1)) / math.sqrt(len(gap))

    return every[min((i for i in range(len(every)) if not behind(i)), key=departure)]


class Naive:
    """Every step of it: the bounded cache, the mix that asks it, the states, the epoch, the mix again."""

    def __init__(self, parts: tuple[Examples, Examples, Examples], params: FewShotParams) -> None:
        train, val, test = parts
        self.start = first_of_each_class(train, params.finetuned_per_class)
        self.mix = best_mix(self.start, val, params)
        states = finetuned(
            self.start,
            train,
            self.mix,
            epochs=params.epochs,
            learning_rate=params.learning_rate,
            batch_size=params.batch_size,
            seed=SEED,
        )
        self.states = [self.start, *states]
        of_val = [
            own_nll(state.logits(val.embeddings, val.zero_shot, self.mix), val.labels).mean()
            for state in self.states
        ]
        self.epoch = int(np.argmin(of_val))
        self.final = nearest_mix(self.states[self.epoch], val, params)
        scores = self.states[self.epoch].logits(val.embeddings, val.zero_shot, self.final)
        self.accuracy, self.nll = float((scores.argmax(axis=1) == val.labels).mean()), nll(scores, val.labels)
        self.predicted = self.said(test, self.final)

    def said(self, test: Examples, mix: Mix) -> NDArray[np.int64]:
        state = self.states[self.epoch]
        return np.asarray(state.logits(test.embeddings, test.zero_shot, mix).argmax(axis=1))


def check(found: Outcome, naive: Naive) -> None:
    assert found.chosen == {
        "epoch": naive.epoch,
        "sharpness": naive.final.sharpness,
        "weight": naive.final.weight,
    }
    assert found.standing.accuracy == pytest.approx(naive.accuracy)
    assert found.standing.nll == pytest.approx(naive.nll, abs=1e-5)
    np.testing.assert_array_equal(found.predicted, naive.predicted)


def test_val_chooses_an_epoch_in_the_middle_and_then_another_mix() -> None:
    parts = draws(30, seed=6, noise=3.5, text_noise=1.5)
    params = replace(PARAMS, learning_rate=0.1, finetuned_per_class=3)
    naive = Naive(parts, params)
    assert 0 < naive.epoch < params.epochs
    assert naive.final != naive.mix
    assert (naive.said(parts[2], naive.mix) != naive.predicted).sum() > 5  # test tells the mixes apart
    check(learnt(parts, params)["tip_adapter_f"], naive)


def test_keys_as_they_were_given_are_a_state_that_val_may_choose() -> None:
    parts = draws(30, seed=1, noise=2.5, text_noise=1.5)
    params = replace(PARAMS, learning_rate=0.03, finetuned_per_class=3)
    naive = Naive(parts, params)
    assert naive.epoch == 0
    check(learnt(parts, params)["tip_adapter_f"], naive)


def test_keys_are_learnt_where_the_cache_as_given_is_best_left_unasked() -> None:
    parts = draws(30, seed=8, noise=2.5, text_noise=0.5)
    params = replace(
        PARAMS,
        sharpness=(3.0, 10.0),
        cache_weights=(0.0, 10.0),
        learning_rate=0.03,
        finetuned_per_class=1,
    )
    naive = Naive(parts, params)
    assert nearest_mix(naive.start, parts[1], params).weight == 0
    assert naive.epoch > 0
    assert naive.final.weight == 10
    check(learnt(parts, params)["tip_adapter_f"], naive)


def test_the_keys_of_a_bounded_cache_are_the_first_of_every_class() -> None:
    """Negative control of the bound: with all keys, or with others, val sees another likelihood."""
    train, val, test = parts = draws(18, seed=2, noise=1.5, text_noise=4.0)
    bounded, whole = (
        learnt(parts, replace(PARAMS, finetuned_per_class=n))["tip_adapter_f"] for n in (3, 100)
    )
    reversed_ = train.part(np.arange(len(train.labels))[::-1])
    others = Naive((reversed_, val, test), replace(PARAMS, finetuned_per_class=3))
    assert bounded.standing.nll != pytest.approx(whole.standing.nll, abs=1e-3)
    assert bounded.standing.nll != pytest.approx(others.nll, abs=1e-3)


def test_fits_that_did_not_converge_are_in_what_the_probes_say_they_chose() -> None:
    parts = draws(60, seed=1, noise=1.5, text_noise=0.5)
    found = learnt(parts, replace(PARAMS, c_grid=(1e-4, 1e4), max_iter=3))
    assert found["linear_probe"].chosen["c"] == 1e-4
    assert found["text_probe"].chosen["c"] in (0, 1e-4)
    assert all(found[method].chosen["n_not_converged"] == 1 for method in ("linear_probe", "text_probe"))
