from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clipcifar.studies.few_shot import tip_adapter
from clipcifar.studies.few_shot.shots import Examples
from clipcifar.studies.few_shot.tip_adapter import Cache, Mix, asking, finetuned, loss_and_gradient
from tests.support.synthetic import task

NUM_CLASSES = 3


def examples(n: int, *, seed: int = 1, noise: float = 1.5, scale: float = 5.0) -> Examples:
    """Images with a zero-shot classifier that is nearly useless."""
    rows, labels = task(n, noise=noise, seed=seed)
    off = np.random.default_rng(0).standard_normal((NUM_CLASSES, rows.shape[1])).astype(np.float32)
    return Examples(rows, scale / 10 * rows @ off.T, labels)


def cache_of(train: Examples) -> Cache:
    return Cache(train.embeddings, train.labels, NUM_CLASSES)


def naive_votes(images: NDArray[np.float32], cache: Cache, beta: float) -> NDArray[np.float64]:
    """The paper's sum, one image and key at a time, over the mean number of keys per class."""
    found = np.zeros((len(images), NUM_CLASSES))
    for i, image in enumerate(images):
        for key, label in zip(cache.keys, cache.labels, strict=True):
            found[i, label] += math.exp(-beta * (1 - float(image @ key)))
    return found / (len(cache.keys) / NUM_CLASSES)


def test_votes_worked_out_by_hand() -> None:
    keys = np.array([[1, 0], [0, 1]], np.float32)
    votes = Cache(keys, np.array([0, 1]), 2).votes(np.array([[1, 0]], np.float32), sharpness=math.log(4))
    np.testing.assert_allclose(votes, [[1, 0.25]], atol=1e-6)  # cosine 1 and 0, one key per class


@pytest.mark.parametrize("block", [1, 40, 2**24])
def test_votes_are_the_papers_sum_in_blocks_of_any_size(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tip_adapter, "_BLOCK_NUMBERS", block)
    cache, images = cache_of(examples(13)), examples(11, seed=2).embeddings
    for beta, votes in zip((1.0, 6.0), cache.votes_by_sharpness(images, (1.0, 6.0)), strict=True):
        np.testing.assert_allclose(votes, naive_votes(images, cache, beta), rtol=1e-4)
        np.testing.assert_allclose(cache.votes(images, sharpness=beta), votes, rtol=1e-6)


def test_the_same_keys_twice_vote_as_once() -> None:
    once, images = cache_of(examples(12)), examples(7, seed=2).embeddings
    twice = Cache(np.tile(once.keys, (2, 1)), np.tile(once.labels, 2), NUM_CLASSES)
    np.testing.assert_allclose(
        twice.votes(images, sharpness=3.0), once.votes(images, sharpness=3.0), rtol=1e-5
    )


def test_without_weight_it_is_zero_shot() -> None:
    train, val = examples(9), examples(12, seed=2)
    scores = cache_of(train).logits(val.embeddings, val.zero_shot, Mix(3.0, 0.0))
    np.testing.assert_array_equal(scores, val.zero_shot)


def test_the_logits_of_many_mixes_are_those_of_each() -> None:
    cache, val = cache_of(examples(12)), examples(9, seed=2)
    mixes = [Mix(1.0, 0.0), *asking((1.0, 5.0), (0.0, 2.0, 10.0))]
    assert mixes[1:] == [Mix(1.0, 2.0), Mix(1.0, 10.0), Mix(5.0, 2.0), Mix(5.0, 10.0)]
    together = cache.logits_by_mix(val.embeddings, val.zero_shot, mixes)
    for mix, scores in zip(mixes, together, strict=True):
        expected = val.zero_shot + mix.weight * naive_votes(val.embeddings, cache, mix.sharpness)
        np.testing.assert_allclose(scores, expected, rtol=1e-4)


def test_the_gradient_is_that_of_finite_differences() -> None:
    train, mix = examples(20, seed=3), Mix(4.0, 3.0)
    cache = cache_of(examples(8))
    _, gradient = loss_and_gradient(cache, train, mix)
    for i, j in ((0, 0), (3, 7), (7, 20)):
        step = np.zeros_like(cache.keys)
        step[i, j] = 0.02
        up, down = (
            loss_and_gradient(Cache(cache.keys + way * step, cache.labels, NUM_CLASSES), train, mix)[0]
            for way in (1, -1)
        )
        assert (up - down) / 0.04 == pytest.approx(float(gradient[i, j]), abs=2e-4)
    assert np.abs(gradient).max() > 1e-3


def test_learning_the_keys_lowers_the_loss_and_leaves_the_cache_given_alone() -> None:
    train, mix = examples(60), Mix(4.0, 5.0)
    cache = cache_of(train)
    before, kept = loss_and_gradient(cache, train, mix)[0], cache.keys.copy()
    options = {"epochs": 10, "learning_rate": 0.01, "batch_size": 16, "seed": 0}
    states = list(finetuned(cache, train, mix, **options))  # type: ignore[arg-type]
    assert len(states) == 10
    assert loss_and_gradient(states[-1], train, mix)[0] < 0.8 * before
    np.testing.assert_array_equal(cache.keys, kept)
    again = list(finetuned(cache, train, mix, **options))  # type: ignore[arg-type]
    np.testing.assert_array_equal(again[-1].keys, states[-1].keys)
    other = list(finetuned(cache, train, mix, **{**options, "seed": 1}))  # type: ignore[arg-type]
    assert np.abs(other[-1].keys - states[-1].keys).max() > 0


def test_the_steps_are_those_of_torchs_adam_along_a_cosine() -> None:
    """All images in one batch, so that the order does not matter; the gradient is torch's own."""
    train, mix, epochs, rate = examples(20), Mix(4.0, 5.0), 6, 0.01
    cache = cache_of(train)
    keys = torch.tensor(cache.keys, requires_grad=True)
    optimiser = torch.optim.Adam([keys], lr=rate, eps=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    images, zero_shot, labels = (torch.from_numpy(array) for array in train)
    options = {"epochs": epochs, "learning_rate": rate, "batch_size": 20, "seed": 0}
    for state in finetuned(cache, train, mix, **options):  # type: ignore[arg-type]
        votes = torch.exp(mix.sharpness * (images @ keys.T - 1)) @ torch.from_numpy(cache.values)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(zero_shot + mix.weight * votes, labels).backward()
        optimiser.step()
        schedule.step()
        np.testing.assert_allclose(state.keys, keys.detach().numpy(), atol=2e-5)
    assert np.abs(state.keys - cache.keys).max() > rate
