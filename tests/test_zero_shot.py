from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clipcifar import zero_shot
from clipcifar.errors import DataError

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
