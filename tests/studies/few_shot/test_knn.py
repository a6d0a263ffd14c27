from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier

from clipcifar.studies.few_shot import knn
from tests.support.synthetic import task

NUM_CLASSES = 3


@pytest.mark.parametrize("block", [1, 500, 2**24])
@pytest.mark.parametrize("k", [1, 2, 5, 40])
def test_it_is_scikit_learns(k: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its votes counted alike, and ties told by the same small share of the cosine."""
    monkeypatch.setattr(knn, "_BLOCK_NUMBERS", block)
    (keys, labels), (images, _) = task(40, noise=2.5, seed=1), task(70, noise=2.5, seed=2)

    def weights(distances: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1 + (1 - distances) / (4 * k)

    model = KNeighborsClassifier(n_neighbors=k, metric="cosine", weights=weights).fit(keys, labels)
    (log_p,) = knn.votes(images, keys, labels, neighbours=[k], num_classes=NUM_CLASSES)
    np.testing.assert_array_equal(log_p.argmax(axis=1), model.predict(images))
    plain = KNeighborsClassifier(n_neighbors=k, metric="cosine").fit(keys, labels).predict_proba(images)
    expected = (plain * k + 1 / NUM_CLASSES) / (k + 1)
    np.testing.assert_allclose(np.exp(log_p), expected, atol=0.3 / k)
    tied = np.sort(plain, axis=1)[:, -1] == np.sort(plain, axis=1)[:, -2]
    np.testing.assert_array_equal(log_p.argmax(axis=1)[~tied], plain.argmax(axis=1)[~tied])


def test_votes_by_hand_and_a_tie_goes_to_the_nearer() -> None:
    keys = np.array([[0.8, 0.6], [1, 0], [0, 1]], np.float32)
    labels, image = np.array([0, 1, 2]), np.array([[1, 0]], np.float32)
    one, two = knn.votes(image, keys, labels, neighbours=[1, 2], num_classes=3)
    np.testing.assert_allclose(np.exp(one), [[1 / 6, (1.25 + 1 / 3) / 2, 1 / 6]], atol=1e-6)
    np.testing.assert_allclose(np.exp(two[0, :2]), [(1.1 + 1 / 3) / 3, (1.125 + 1 / 3) / 3], atol=1e-6)
    assert two.argmax() == 1  # one vote each, and the second is nearer


def test_more_votes_beat_nearer_ones() -> None:
    keys = np.array([[1, 0], [0, 1], [0, 1]], np.float32)
    (log_p,) = knn.votes(
        np.array([[1, 0]], np.float32), keys, np.array([0, 1, 1]), neighbours=[3], num_classes=2
    )
    assert log_p.argmax() == 1


def test_all_numbers_at_once_are_those_of_each() -> None:
    (keys, labels), (images, _) = task(30, noise=2.5, seed=1), task(20, noise=2.5, seed=2)
    together = knn.votes(images, keys, labels, neighbours=[1, 4, 30], num_classes=NUM_CLASSES)
    for k, log_p in zip((1, 4, 30), together, strict=True):
        (alone,) = knn.votes(images, keys, labels, neighbours=[k], num_classes=NUM_CLASSES)
        np.testing.assert_allclose(alone, log_p, atol=1e-6)


def test_no_more_neighbours_than_there_are() -> None:
    assert knn.usable((64, 1, 8), 10) == [1, 8]
    assert knn.usable((64, 32), 10) == [10]


def test_memory_does_not_grow_with_images_times_neighbours_times_classes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Few keys of many classes: their cosines are few, and the votes of all images at once would be many."""
    monkeypatch.setattr(knn, "_BLOCK_NUMBERS", 2**16)
    rng, num_images, num_classes = np.random.default_rng(0), 600, 60
    keys, images = (rng.normal(size=(n, 8)).astype(np.float32) for n in (num_classes, num_images))
    tracemalloc.start()
    try:
        (log_p,) = knn.votes(images, keys, np.arange(num_classes), neighbours=[40], num_classes=num_classes)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert log_p.shape == (num_images, num_classes)
    assert peak < 4 * num_images * 40 * num_classes  # a float for each vote that could be
