from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from clipcifar.core.errors import ConfigError, DataError
from clipcifar.core.files import Attribute
from clipcifar.methods import zero_shot
from clipcifar.store.embeddings import TextEmbeddings
from clipcifar.store.fields import class_names_attribute

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


def by_hand(rows: NDArray[np.float32], groups: NDArray[np.int64]) -> list[int]:
    """For each row the first of its group within the bound, by comparing all with all."""
    distances = np.linalg.norm(rows[:, None].astype(np.float64) - rows[None], axis=2)
    same = (distances <= zero_shot.EQUAL) & (groups[:, None] == groups[None])
    return [int(np.flatnonzero(row)[0]) for row in same]


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 4))
def test_equal_rows_are_those_that_comparing_all_with_all_finds(seed: int, n: int, num_groups: int) -> None:
    rng = np.random.default_rng(seed)
    rows = _unit(rng, n)[rng.integers(0, n, n)]
    groups = rng.integers(0, num_groups, n)
    assert zero_shot.first_of_equal(rows, groups).tolist() == by_hand(rows, groups)
    assert zero_shot.first_of_equal(list(rows), groups).tolist() == by_hand(rows, groups)
    assert zero_shot.first_of_equal(rows[:0], groups[:0]).tolist() == []


def test_last_bits_of_another_machine_are_not_told_apart_and_one_other_sentence_of_hundreds_is() -> None:
    rng = np.random.default_rng(0)
    row, other = _unit(rng, 2, dim=512)
    noise = rng.normal(size=512).astype(np.float32)
    noisy = row + 1e-6 * noise / np.linalg.norm(noise)
    means = [(299 * row + own) / np.linalg.norm(299 * row + own) for own in (row, other)]
    rows = np.stack([row, noisy, *means]).astype(np.float32)
    assert zero_shot.first_of_equal(rows, np.zeros(4, np.int64)).tolist() == [0, 0, 0, 3]
    assert np.dot(means[0], means[1]) > 1 - 2e-5  # a cosine would need seven digits to tell


def test_a_sentence_that_becomes_the_tokens_of_another_of_its_class_counts_once() -> None:
    a, b, c = np.eye(3, dtype=np.float32)
    rows, index = np.stack([a, b, a, b, c]), np.array([0, 0, 0, 1, 1])
    weights = zero_shot.text_classifier(rows, index, class_names=["cat", "dog"], where="here")
    np.testing.assert_allclose(weights, np.sqrt([[0.5, 0.5, 0], [0, 0.5, 0.5]]), atol=1e-6)
    assert zero_shot.repeated_note(rows, index) == (
        "; 1 sentence becomes the same tokens as another of the class, and each counts once"
    )
    assert zero_shot.repeated_note(rows[1:], index[1:]) == ""
    twice = zero_shot.class_weights(rows, index, class_names=["cat", "dog"])  # of images, not of sentences
    np.testing.assert_allclose(twice[0], np.array([2, 1, 0]) / np.sqrt(5), atol=1e-6)


def test_weighted_sentences_are_a_weighted_mean_and_those_of_equals_add_up() -> None:
    a, b, c = np.eye(3, dtype=np.float32)
    rows, index = np.stack([a, b, a, b, c]), np.array([0, 0, 0, 1, 1])
    about: dict[str, Any] = {"class_names": ["cat", "dog"], "where": "here"}
    weights = [1.0, 4.0, 2.0, 0.5, 0.5]
    found = zero_shot.text_classifier(rows, index, **about, sentence_weights=weights)
    np.testing.assert_allclose(found, [[0.6, 0.8, 0], [0, 0.5**0.5, 0.5**0.5]], atol=1e-6)
    rescaled = [1e-300 * weight for weight in weights]
    again = zero_shot.text_classifier(rows, index, **about, sentence_weights=rescaled)
    np.testing.assert_allclose(again, found, atol=1e-6)
    assert "their weights add up" in zero_shot.repeated_note(rows, index, weights)
    attributes: dict[str, Attribute] = {"class_names": class_names_attribute(["cat", "dog"])}
    texts = TextEmbeddings(rows, index, list("vwxyz"), attributes, np.array(weights))
    np.testing.assert_array_equal(zero_shot.classifier(texts), found)


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_equal_weights_are_none_and_any_are_a_naive_mean(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, index, weights = _unit(rng, 12), np.arange(12) % 3, rng.uniform(0.1, 5, 12)
    about: dict[str, Any] = {"class_names": NAMES, "where": "here"}
    plain = zero_shot.text_classifier(rows, index, **about)
    alike = zero_shot.text_classifier(rows, index, **about, sentence_weights=np.full(12, 3.0))
    np.testing.assert_allclose(alike, plain, atol=1e-6)
    found = zero_shot.text_classifier(rows, index, **about, sentence_weights=weights)
    for label in range(3):
        own = (weights[index == label, None] * rows[index == label]).sum(axis=0)
        np.testing.assert_allclose(found[label], own / np.linalg.norm(own), atol=1e-6)


def test_two_classes_with_one_row_are_an_error_that_names_both_and_the_set() -> None:
    a, b, c = np.eye(3, dtype=np.float32)
    names = ["Turkey", "eel", "turkey"]
    attributes: dict[str, Attribute] = {"class_names": class_names_attribute(names), "prompt_set": "photo"}
    rows, index = np.stack([a, b, c, b, a]), np.array([0, 0, 1, 2, 2])
    with pytest.raises(ConfigError) as caught:
        zero_shot.classifier(TextEmbeddings(rows, index, list("vwxyz"), attributes))
    assert "two classes are the same: 'Turkey' and 'turkey'" in caught.value.what
    assert caught.value.where == "prompt set photo"
    assert "rename one of the two" in caught.value.fix
    shared = np.array([0, 0, 1, 2, 2]), np.stack([a, b, c, b, c])  # one sentence of two classes is no fault
    texts = TextEmbeddings(shared[1], shared[0], list("vwxyz"), attributes)
    assert zero_shot.classifier(texts).shape == (3, 3)


@pytest.mark.parametrize(("num_classes", "num_sentences"), [(1, 1), (3, 20), (7, 3000), (500, 1500)])
def test_class_weights_are_the_bytes_of_adding_row_by_row(num_classes: int, num_sentences: int) -> None:
    """In whatever order the sentences come."""
    rng = np.random.default_rng(num_classes)
    rows = rng.standard_normal((num_sentences, 33)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = rng.permutation(np.arange(num_sentences) % num_classes)
    sums = np.zeros((num_classes, 33))
    np.add.at(sums, labels, rows)
    expected = (sums / np.linalg.norm(sums, axis=1)[:, None]).astype(np.float32)
    names = [str(label) for label in range(num_classes)]
    assert zero_shot.class_weights(rows, labels, class_names=names).tobytes() == expected.tobytes()
