from __future__ import annotations

import numpy as np
from scipy import special

from clipcifar.report import gallery

LABELS = np.array([0, 0, 1, 1, 1])


def logits(rows: list[list[float]]) -> np.ndarray:
    return np.log(np.array(rows, dtype=np.float32))


A = logits([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3], [0.6, 0.4]])  # right, wrong, right, wrong, wrong
B = logits([[0.3, 0.7], [0.8, 0.2], [0.1, 0.9], [0.4, 0.6], [0.1, 0.9]])  # wrong, right, right, right, right


def test_flips_by_hand_the_largest_change_of_mind_first() -> None:
    won, lost = gallery.flips(A, B, LABELS, limit=10)
    assert [flip.row for flip in won] == [4, 1, 3]  # by 0.5, 0.4 and 0.3
    assert [flip.row for flip in lost] == [0]
    first = won[0]
    assert (first.label, first.said_a, first.said_b) == (1, 0, 1)
    assert (round(first.sure_a, 4), round(first.sure_b, 4)) == (0.6, 0.9)


def test_flips_the_other_way_round_are_won_and_lost_swapped() -> None:
    won, lost = gallery.flips(A, B, LABELS, limit=10)
    back_won, back_lost = gallery.flips(B, A, LABELS, limit=10)
    assert [flip.row for flip in back_won] == [flip.row for flip in lost]
    assert [flip.row for flip in back_lost] == [flip.row for flip in won]
    assert gallery.flips(A, A, LABELS, limit=10) == ([], [])
    assert [flip.row for flip in gallery.flips(A, B, LABELS, limit=2)[0]] == [4, 1]


def test_the_hardest_images_are_a_naive_loops() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    scores = {name: rng.normal(size=(40, 4)).astype(np.float32) for name in "abc"}
    found = gallery.hardest(scores, labels, per_class=3, num_classes=4)
    assert list(found) == [0, 1, 2]  # class 3 has no image
    for label, images in found.items():
        mean = {
            row: np.mean([special.softmax(s[row].astype(float))[label] for s in scores.values()])
            for row in np.flatnonzero(labels == label)
        }
        assert [image.row for image in images] == sorted(mean, key=lambda row: mean[row])[:3]
        for image in images:
            said = [int(s[image.row].argmax()) for s in scores.values()]
            wrong = [guess for guess in said if guess != label]
            assert image.num_wrong == len(wrong)
            assert np.isclose(image.probability, mean[image.row])
            assert wrong.count(image.mistaken_for) == max(map(wrong.count, wrong))


def test_an_image_that_all_get_right_is_mistaken_for_nothing_else() -> None:
    scores = {"a": logits([[0.9, 0.1]])}
    (image,) = gallery.hardest(scores, np.array([0]), per_class=1, num_classes=2)[0]
    assert (image.mistaken_for, image.num_wrong) == (0, 0)
