from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from clipcifar.methods import prompt_weighting


def _unit(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    rows = rng.normal(size=shape)
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), dtype=np.float32)


def _naive(
    images: NDArray[np.float32], classifiers: NDArray[np.float32], logit_scale: float
) -> NDArray[np.float64]:
    """The equations of the paper as they stand, all logits at once in float64."""
    logits = logit_scale * np.einsum("nd,tcd->ntc", images.astype(np.float64), classifiers.astype(np.float64))
    scores = (logits - logits.mean(axis=0)).max(axis=2).mean(axis=0)
    shares = np.exp(scores)
    return np.asarray(shares / shares.sum())


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 7), st.integers(1, 5))
def test_weights_are_those_of_the_paper_in_blocks_of_whatever_size(
    seed: int, num_images: int, num_templates: int, num_classes: int
) -> None:
    rng = np.random.default_rng(seed)
    images, classifiers = _unit(rng, num_images, 6), _unit(rng, num_templates, num_classes, 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompt_weighting, "_BLOCK_IMAGES", 7)
        patch.setattr(prompt_weighting, "_BLOCK_LOGITS", 3 * 7 * num_classes)
        weights = prompt_weighting.weights(images, classifiers, logit_scale=10.0)
    np.testing.assert_allclose(weights, _naive(images, classifiers, 10.0), rtol=1e-4)
    assert weights.dtype == np.float64
    assert weights.sum() == pytest.approx(1)


def test_a_template_by_hand() -> None:
    """Two images along two axes: less their mean (.5, .5), the largest logit is half of the scale."""
    images = np.eye(2, dtype=np.float32)
    telling, mute = np.eye(2, dtype=np.float32), np.ones((2, 2), dtype=np.float32) / np.float32(np.sqrt(2))
    classifiers = np.stack([telling, mute])
    np.testing.assert_allclose(
        prompt_weighting.scores(images, classifiers, logit_scale=4.0), [2.0, 0.0], atol=1e-6
    )
    expected = [1 / (1 + np.exp(-2.0)), 1 / (1 + np.exp(2.0))]
    np.testing.assert_allclose(
        prompt_weighting.weights(images, classifiers, logit_scale=4.0), expected, rtol=1e-6
    )


def test_what_a_template_says_of_every_image_gets_no_weight() -> None:
    """A loud template, near all images, would win by its raw logits; without the mean it gains nothing."""
    rng = np.random.default_rng(0)
    common = np.zeros(8)
    common[0] = 3
    labels = rng.integers(0, 3, 300)
    images = common + np.eye(8)[1 + labels] + 0.1 * rng.normal(size=(300, 8))
    images = np.asarray(images / np.linalg.norm(images, axis=1, keepdims=True), dtype=np.float32)
    telling = np.eye(8, dtype=np.float32)[1:4]
    loud = np.asarray(np.repeat(np.eye(8)[:1], 3, axis=0), dtype=np.float32)
    raw = [float((images @ rows.T).max(axis=1).mean()) for rows in (telling, loud)]
    assert raw[1] > raw[0]
    first, second = prompt_weighting.weights(images, np.stack([telling, loud]), logit_scale=100.0)
    assert first > 0.99 > second


def test_scores_that_overflow_an_exponential_still_make_weights() -> None:
    rng = np.random.default_rng(1)
    weights = prompt_weighting.weights(_unit(rng, 20, 4), _unit(rng, 5, 3, 4), logit_scale=1e5)
    assert np.isfinite(weights).all()
    assert weights.sum() == pytest.approx(1)


def test_equal_weights_are_the_plain_average_and_all_on_one_is_that_template() -> None:
    classifiers = _unit(np.random.default_rng(2), 4, 3, 6)
    mean = classifiers.mean(axis=0)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(prompt_weighting.weighted(classifiers, np.full(4, 0.25)), mean, atol=1e-6)
    np.testing.assert_allclose(
        prompt_weighting.weighted(classifiers, np.eye(4)[2]), classifiers[2], atol=1e-6
    )
