from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from clipcifar.core.errors import DataError
from clipcifar.methods import zero_shot

NAMES = ["cat", "dog", "eel"]


def _unit(rng: np.random.Generator, n: int, dim: int = 5) -> NDArray[np.float32]:
    rows = rng.normal(size=(n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_class_weights_are_renormalised_means(seed: int) -> None:
    rng = np.random.default_rng(seed)
    index = np.concatenate([np.arange(3), rng.integers(0, 3, 9)])
    embeddings = _unit(rng, 12)
    found = zero_shot.class_weights(embeddings, index, class_names=NAMES)
    for label in range(3):
        mean = embeddings[index == label].mean(axis=0)
        np.testing.assert_allclose(found[label], mean / np.linalg.norm(mean), atol=1e-6)
    assert found.dtype == np.float32
    order = rng.permutation(12)
    np.testing.assert_allclose(
        zero_shot.class_weights(embeddings[order], index[order], class_names=NAMES), found, atol=1e-6
    )


def test_classes_without_a_direction_are_named() -> None:
    rows = np.array([[1, 0], [-1, 0], [0, 1]], dtype=np.float32)
    with pytest.raises(DataError, match="'dog'"):
        zero_shot.class_weights(rows, np.array([0, 1, 1])[[0, 0, 0]], class_names=["cat", "dog"])
    with pytest.raises(DataError, match="'cat'"):
        zero_shot.class_weights(rows, np.array([0, 0, 1]), class_names=["cat", "dog"])


def test_logits_are_scaled_cosines() -> None:
    rng = np.random.default_rng(0)
    images, weights = _unit(rng, 7), _unit(rng, 3)
    found = zero_shot.logits(images, weights, logit_scale=100.0)
    assert (found.shape, found.dtype) == ((7, 3), np.float32)
    for n in range(7):
        for c in range(3):
            assert found[n, c] == pytest.approx(100 * float(np.dot(images[n], weights[c])), abs=1e-3)


def test_permuting_classes_permutes_logits() -> None:
    rng = np.random.default_rng(1)
    images, weights, order = _unit(rng, 9), _unit(rng, 3), [2, 0, 1]
    straight = zero_shot.logits(images, weights, logit_scale=10.0)
    np.testing.assert_allclose(
        zero_shot.logits(images, weights[order], logit_scale=10.0), straight[:, order], rtol=1e-5
    )


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_permuting_classes_permutes_weights(seed: int) -> None:
    rng = np.random.default_rng(seed)
    embeddings, index, order = _unit(rng, 9), np.repeat(np.arange(3), 3), rng.permutation(3)
    straight = zero_shot.class_weights(embeddings, index, class_names=NAMES)
    moved = zero_shot.class_weights(
        embeddings, np.argsort(order)[index], class_names=[NAMES[c] for c in order]
    )
    np.testing.assert_array_equal(moved, straight[order])


def test_one_sentence_is_its_own_weight_and_saying_it_twice_changes_nothing() -> None:
    embeddings = _unit(np.random.default_rng(0), 3)
    once = zero_shot.class_weights(embeddings, np.arange(3), class_names=NAMES)
    np.testing.assert_allclose(once, embeddings, atol=1e-6)
    twice = zero_shot.class_weights(
        np.concatenate([embeddings, embeddings]), np.tile(np.arange(3), 2), class_names=NAMES
    )
    np.testing.assert_allclose(twice, once, atol=1e-6)


def test_weights_have_unit_length_however_far_apart_the_sentences_are() -> None:
    """A class of varied sentences has a short mean; not normalised again it would lose every contest."""
    embeddings = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float32)
    found = zero_shot.class_weights(embeddings, np.array([0, 0, 1]), class_names=["cat", "dog"])
    np.testing.assert_allclose(found, [[0.5**0.5, 0.5**0.5, 0], [0, 0, 1]], atol=1e-6)
    assert np.linalg.norm(embeddings[:2].mean(axis=0)) < 0.8


def test_many_sentences_are_averaged_without_losing_digits() -> None:
    rng = np.random.default_rng(0)
    embeddings = _unit(rng, 30_000) + np.float32(0.5)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    mean = embeddings.astype(np.float64).mean(axis=0)
    found = zero_shot.class_weights(embeddings, np.zeros(30_000, dtype=np.int64), class_names=["cat"])
    np.testing.assert_array_equal(found[0], (mean / np.linalg.norm(mean)).astype(np.float32))


def test_an_image_goes_to_the_class_whose_direction_is_nearest() -> None:
    weights = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    images = np.array([[0.9, 0.436], [0.1, 0.995], [0.6, 0.8]], dtype=np.float32)
    found = zero_shot.logits(images, weights, logit_scale=50.0)
    assert found.argmax(axis=1).tolist() == [0, 1, 2]
    assert found[2, 2] == pytest.approx(50)


def test_the_scale_moves_confidence_and_no_prediction() -> None:
    rng = np.random.default_rng(3)
    images, weights = _unit(rng, 50), _unit(rng, 3)
    cold, hot = (zero_shot.logits(images, weights, logit_scale=scale) for scale in (1.0, 100.0))
    np.testing.assert_array_equal(cold.argmax(axis=1), hot.argmax(axis=1))
    np.testing.assert_allclose(100 * cold, hot, rtol=1e-5)
