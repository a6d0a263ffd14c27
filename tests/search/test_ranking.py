"""The choice of prompts against naive references, and that it finds no winner where there is none."""

from __future__ import annotations

import inspect
import itertools
import tracemalloc
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray
from scipy import stats

from clipcifar.evaluation import compare, signs
from clipcifar.evaluation.balance import Measure
from clipcifar.methods import zero_shot
from clipcifar.search import counting, ranking
from clipcifar.search.candidates import Candidate
from clipcifar.search.outcome import candidate_rows
from tests.support.synthetic import unit

SCALE = 10.0  # of the logits, by which templates are weighted
select = partial(ranking.select, logit_scale=SCALE)
KINDS = ("active", "average", "weighted", "ensemble")  # of equals on val the first
Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


def right(embeddings: Floats, labels: Labels, weights: Floats) -> NDArray[np.bool_]:
    """Whether each image's label is the first of its highest scores."""
    return np.asarray((embeddings @ weights.T).argmax(axis=1) == labels)


def naive_tally(embeddings: Floats, labels: Labels, weights: Floats, reference: Floats) -> list[list[int]]:
    """Hits, only the reference, only the candidate: one classifier after the other."""
    known = right(embeddings, labels, reference)
    rows = [right(embeddings, labels, own) for own in weights]
    return [
        [int(own.sum()) for own in rows],
        [int((known & ~own).sum()) for own in rows],
        [int((own & ~known).sum()) for own in rows],
    ]


def counted(found: counting.Tally) -> list[list[int]]:
    return [
        counts.sum(axis=0).tolist() for counts in (found.hits, found.only_reference, found.only_candidate)
    ]


def integers(
    seed: int, *, num_classes: int, n: int = 40, num_candidates: int = 7
) -> tuple[Floats, Labels, Floats, Floats]:
    """Embeddings, labels, weights and reference of small whole numbers: many scores are equal, exactly."""
    rng = np.random.default_rng(seed)

    def whole(*shape: int) -> Floats:
        return rng.integers(-1, 2, size=(*shape, 3)).astype(np.float32)

    labels = rng.integers(0, num_classes, size=n)
    return whole(n), labels, whole(num_candidates, num_classes), whole(num_classes)


# --- tally ---------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.integers(0, 100_000), st.sampled_from([2, 3, 10]))
def test_the_tally_is_a_loop_over_templates_and_of_equal_scores_the_first_class_wins(
    seed: int, num_classes: int
) -> None:
    embeddings, labels, weights, reference = integers(seed, num_classes=num_classes)
    found = counting.tally(embeddings, labels, weights, reference=reference)
    assert found.n == len(labels)
    assert counted(found) == naive_tally(embeddings, labels, weights, reference)


def test_the_whole_numbers_do_give_equal_highest_scores() -> None:
    """Without them the test above would say nothing on who wins."""
    embeddings, _, weights, _ = integers(0, num_classes=3)
    scores = embeddings @ weights[0].T
    assert ((scores == scores.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum() >= 5


def test_a_tally_by_hand() -> None:
    """Two classes on two axes. The last image lies between them: class 0 gets it."""
    embeddings = np.array([[1, 0], [0, 1], [0, 1], [1, 1]], dtype=np.float32)
    labels = np.array([0, 1, 0, 1])
    straight, swapped = np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)[::-1]
    found = counting.tally(embeddings, labels, np.stack([straight, swapped]), reference=straight)
    assert counted(found) == [[2, 1], [0, 2], [0, 1]]
    first_wins = counting.tally(embeddings[3:], np.array([0]), straight[None], reference=swapped)
    assert counted(first_wins) == [[1], [0], [0]]


@pytest.mark.parametrize(("rows", "scores"), [(1, 1), (3, 50), (7, 10), (1000, 1), (2, 10**9)])
@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_the_size_of_the_blocks_does_not_matter(
    rows: int, scores: int, num_classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings, labels, weights, reference = integers(5, num_classes=num_classes, n=61, num_candidates=11)
    whole = counting.tally(embeddings, labels, weights, reference=reference)
    monkeypatch.setattr(counting, "_BLOCK_ROWS", rows)
    monkeypatch.setattr(counting, "_BLOCK_SCORES", scores)
    assert counted(counting.tally(embeddings, labels, weights, reference=reference)) == counted(whole)


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_a_class_without_images_still_takes_images_from_the_others(absent: int) -> None:
    embeddings, labels, weights, reference = integers(8, num_classes=3)
    labels = np.where(labels == absent, (absent + 1) % 3, labels)
    found = counting.tally(embeddings, labels, weights, reference=reference)
    assert counted(found) == naive_tally(embeddings, labels, weights, reference)
    others = [c for c in range(3) if c != absent]
    alone = counting.tally(
        embeddings, np.searchsorted(others, labels), weights[:, others], reference=reference
    )
    assert found.hits.sum() < alone.hits.sum()


def _peak(num_candidates: int, n: int) -> int:
    embeddings, labels, weights, reference = integers(1, num_classes=5, n=n, num_candidates=num_candidates)
    tracemalloc.start()
    try:
        counting.tally(embeddings, labels, weights, reference=reference)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_grows_neither_with_the_templates_nor_with_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_BLOCK_ROWS", 256)
    monkeypatch.setattr(counting, "_BLOCK_SCORES", 256 * 5 * 10)  # ten templates at a time
    _peak(20, 2_000)  # what is imported on first use
    small = _peak(20, 2_000)
    assert _peak(200, 2_000) < 1.5 * small
    assert _peak(20, 4_000) < 1.5 * small


# --- greedy ensemble -----------------------------------------------------------------------------


class Problem(NamedTuple):
    """Images, and T candidates of k sentences for each class: (T, C, k, D) unit rows."""

    embeddings: Floats
    labels: Labels
    sentences: Floats

    @property
    def sums(self) -> Floats:
        return self.sentences.sum(axis=2)

    def classifier(self, members: list[int]) -> Floats:
        """The zero-shot classifier of all the members' sentences, as one prompt set would have it."""
        num_classes, per_class = self.sentences.shape[1:3]
        return zero_shot.class_weights(
            np.concatenate([self.sentences[i].reshape(num_classes * per_class, -1) for i in members]),
            np.tile(np.repeat(np.arange(num_classes), per_class), len(members)),
            class_names=[str(c) for c in range(num_classes)],
        )

    def accuracy(self, members: list[int]) -> float:
        return float(right(self.embeddings, self.labels, self.classifier(members)).mean())


def problem(
    seed: int,
    *,
    n: int = 90,
    num_classes: int = 3,
    num_candidates: int = 9,
    per_class: int = 2,
    dim: int = 12,
    noise: float = 1.5,
) -> Problem:
    """Sentences near their class's centre, each off in its own way, so that averaging them helps."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((num_classes, dim))
    labels = rng.integers(0, num_classes, size=n)
    embeddings = unit(centres[labels] + noise * rng.standard_normal((n, dim)))
    shape = (num_candidates, num_classes, per_class, dim)
    off = centres[None, :, None] + 2 * rng.standard_normal(shape)
    return Problem(embeddings, labels, unit(off.reshape(-1, dim)).reshape(shape))


def naive_greedy(made: Problem, shortlist: list[int], *, most: int) -> tuple[list[int], list[float]]:
    members: list[int] = []
    accuracies: list[float] = []
    for _ in range(most):
        offers = [(made.accuracy([*members, i]), i) for i in shortlist if i not in members]
        best = max((accuracy for accuracy, _ in offers), default=0.0)
        if not offers or (accuracies and best <= accuracies[-1]):
            break
        members.append(next(i for accuracy, i in offers if accuracy == best))
        accuracies.append(best)
    return members, accuracies


@pytest.mark.parametrize("seed", range(25))
def test_the_greedy_ensemble_is_the_naive_one_and_gets_strictly_better(seed: int) -> None:
    made = problem(seed)
    shortlist = np.random.default_rng(seed).permutation(9)[:6].tolist()
    members, accuracies = ranking.greedy_ensemble(made.embeddings, made.labels, made.sums, shortlist)
    expected = naive_greedy(made, shortlist, most=ranking.MAX_MEMBERS)
    assert (members, accuracies) == (expected[0], pytest.approx(expected[1]))
    assert all(later > earlier for earlier, later in itertools.pairwise(accuracies))
    assert set(members) <= set(shortlist)
    assert len(set(members)) == len(members)


def test_the_problems_do_grow_ensembles_and_leave_some_candidates_out() -> None:
    sizes = [
        len(ranking.greedy_ensemble(made.embeddings, made.labels, made.sums, list(range(9)))[0])
        for made in map(problem, range(25))
    ]
    assert min(sizes) < 9
    assert max(sizes) > 2


def test_the_greedy_ensemble_stops_where_nothing_helps() -> None:
    """Two classes on two axes; the copies change nothing and the swapped one ruins everything."""
    embeddings = np.array([[1, 0.1], [0.1, 1]], dtype=np.float32)
    straight = np.eye(2, dtype=np.float32)
    sums = np.stack([straight[::-1], straight, straight, 3 * straight])
    found = ranking.greedy_ensemble(embeddings, np.array([0, 1]), sums, [0, 3, 2, 1])
    assert found == ([3], [1.0])  # of equally good ones the first of the shortlist


def test_a_member_joins_for_what_it_adds_and_not_for_how_good_it_is_alone() -> None:
    """Each gets one of four images wrong; the first two the same one, so the second adds nothing."""
    embeddings = unit(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0.1, 1]]))
    labels = np.array([0, 0, 1, 1])
    away = [[0.0, 0.0, 1.0]]
    first = np.array([[[1.0, -0.5, 0.0]], away]).reshape(2, 3)
    second = np.array([[[-0.3, 1.0, 0.0]], away]).reshape(2, 3)
    sums = np.stack([first, first, second]).astype(np.float32)
    members, accuracies = ranking.greedy_ensemble(embeddings, labels, sums, [0, 1, 2])
    assert members == [0, 2]
    assert accuracies == [0.75, 1.0]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_an_ensemble_has_at_most_so_many_members(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = problem(3, n=600, num_candidates=20)
    arguments = (made.embeddings, made.labels, made.sums, list(range(20)))
    unbounded, _ = ranking.greedy_ensemble(*arguments)
    assert 3 < len(unbounded) <= ranking.MAX_MEMBERS == 8
    monkeypatch.setattr(ranking, "MAX_MEMBERS", most)
    assert ranking.greedy_ensemble(*arguments)[0] == unbounded[:most]


def test_a_shortlist_of_one_is_an_ensemble_of_one() -> None:
    made = problem(0)
    members, accuracies = ranking.greedy_ensemble(made.embeddings, made.labels, made.sums, [4])
    assert members == [4]
    assert accuracies == [pytest.approx(made.accuracy([4]))]


# --- select --------------------------------------------------------------------------------------


def halves(made: Problem, num_train: int) -> tuple[tuple[Floats, Labels], tuple[Floats, Labels]]:
    return (
        (made.embeddings[:num_train], made.labels[:num_train]),
        (made.embeddings[num_train:], made.labels[num_train:]),
    )


def test_test_is_no_argument_of_the_choice() -> None:
    found = list(inspect.signature(ranking.select).parameters)
    assert found == [
        *("train", "val", "sums", "reference", "logit_scale"),
        *("averaged", "template_weights", "clashes", "by"),
    ]


def naive_weights(images: Floats, made: Problem, members: list[int]) -> NDArray[np.float64]:
    """ZPE's, all logits of all images at once, 1 on average and rounded as params.yaml gets them."""
    logits = np.array([SCALE * images @ made.classifier([i]).T for i in members], dtype=np.float64)
    shares = np.exp((logits - logits.mean(axis=1, keepdims=True)).max(axis=2).mean(axis=1))
    return np.round(len(members) * shares / shares.sum(), 4)


def naive_weighted(images: Floats, made: Problem, members: list[int]) -> Floats:
    """Every sentence of a template counts as much as its template."""
    weights = naive_weights(images, made, members)
    rows = np.sum([w * made.sums[i] for w, i in zip(weights, members, strict=True)], axis=0)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


@pytest.mark.parametrize("seed", range(6))
def test_the_choice_is_the_naive_one(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best five on train, an ensemble of them on train, val among it, both averages and the reference."""
    monkeypatch.setattr(ranking, "SHORTLIST", 5)
    made = problem(seed, n=240, num_candidates=12)
    reference = made.classifier([7])
    train, val = halves(made, 150)
    on_train = Problem(*train, made.sentences)
    found = select(train, val, made.sums, reference=reference)

    singles = np.stack([made.classifier([i]) for i in range(12)])
    assert counted(found.singles) == naive_tally(*train, singles, reference)
    assert found.order.tolist() == sorted(range(12), key=lambda i: (-found.singles.hits[:, i].sum(), i))
    members, accuracies = naive_greedy(on_train, found.order[:5].tolist(), most=10)
    assert found.ensemble == members
    assert found.train_accuracy == pytest.approx(accuracies)
    offers = {
        "active": reference,
        "average": made.classifier(list(range(12))),
        "weighted": naive_weighted(train[0], made, list(range(12))),
        "ensemble": made.classifier(members),
    }
    assert found.template_weights == pytest.approx(naive_weights(train[0], made, list(range(12))), abs=1.1e-4)
    on_val = {kind: int(right(*val, weights).sum()) for kind, weights in offers.items()}
    assert found.val_accuracy == pytest.approx({kind: hits / 90 for kind, hits in on_val.items()})
    assert found.kind == next(kind for kind in KINDS if on_val[kind] == max(on_val.values()))
    np.testing.assert_allclose(found.weights, offers[found.kind], atol=1e-4)
    assert found.weights.dtype == np.float32


def test_the_seeds_of_the_choices_give_every_kind() -> None:
    kinds = set()
    for seed in range(20):
        made = problem(seed, n=240, num_candidates=12)
        reference = made.classifier([7] if seed % 2 else list(range(11)))  # poor, or hard to beat
        found = select(*halves(made, 150), made.sums, reference=reference)
        kinds.add(found.kind)
        expected = {"active": [], "ensemble": found.ensemble}.get(found.kind, list(range(12)))
        assert found.members == expected
        assert (found.member_weights is None) == (found.kind != "weighted")
    assert kinds == set(KINDS)


def test_a_template_without_weight_is_no_member() -> None:
    made = problem(0, n=240, num_candidates=4)
    found = select(*halves(made, 150), made.sums, reference=made.classifier([0]))
    weighted = replace(found, kind="weighted", averaged=[3, 1, 2], template_weights=[0.5, 0.0, 2.5])
    assert (weighted.members, weighted.member_weights) == ([3, 2], [0.5, 2.5])


@pytest.mark.parametrize("by", ["accuracy", "balanced_accuracy"])
@pytest.mark.parametrize(
    ("best", "kind"),
    [
        (KINDS, "active"),  # all are equal: what is there stays
        (("active",), "active"),
        (("active", "weighted", "ensemble"), "active"),
        (("average",), "average"),
        (("weighted",), "weighted"),
        (("ensemble",), "ensemble"),
        (("weighted", "ensemble"), "weighted"),  # of equals that are better, what took less from train
        (("average", "weighted", "ensemble"), "average"),
    ],
)
def test_of_equals_on_val_the_active_set_is_kept_then_the_simpler_wins(
    best: tuple[str, ...], kind: str, by: Measure
) -> None:
    """Val: of each class three images that all four get right, and one that the best alone get right."""
    made = problem(2, n=6_000, num_classes=2, num_candidates=12, dim=6)
    train, rest = halves(made, 300)
    reference = made.classifier([5])
    members = select(train, rest, made.sums, reference=reference, by=by).ensemble
    average, weighted = made.classifier(list(range(12))), naive_weighted(train[0], made, list(range(12)))
    offers = [reference, average, weighted, made.classifier(members)]
    told = np.array([right(*rest, weights) for weights in offers])
    only_best = (told == np.isin(KINDS, best)[:, None]).all(axis=0)
    classes = [rest[1] == label for label in range(2)]
    rows = [np.flatnonzero(own & told.all(axis=0))[:3] for own in classes]
    rows += [np.flatnonzero(own & only_best)[-1:] for own in classes]
    assert len(np.concatenate(rows)) == 8
    val = tuple(part[np.concatenate(rows)] for part in rest)
    found = select(train, val, made.sums, reference=reference, by=by)  # type: ignore[arg-type]
    assert found.kind == kind
    np.testing.assert_allclose(found.weights, offers[KINDS.index(kind)], atol=1e-4)


def test_the_average_is_of_those_that_may_be_averaged_and_the_ensemble_of_any() -> None:
    """Val is what the average of three gets right and the ensemble does not."""
    made = problem(2, n=900, num_candidates=12)
    train, rest = halves(made, 300)
    reference = made.classifier([0])
    plain = select(train, rest, made.sums, reference=reference)
    averaged = [i for i in range(12) if i not in plain.ensemble][:3]
    better = right(*rest, made.classifier(averaged)) & ~right(*rest, made.classifier(plain.ensemble))
    val = (rest[0][better], rest[1][better])
    found = select(train, val, made.sums, reference=reference, averaged=averaged)
    weighted = naive_weighted(train[0], made, averaged)
    assert found.val_accuracy == {
        "active": right(*val, reference).mean(),
        "average": 1.0,
        "weighted": pytest.approx(right(*val, weighted).mean()),
        "ensemble": 0.0,
    }
    assert found.template_weights == pytest.approx(naive_weights(train[0], made, averaged), abs=1.1e-4)
    assert (found.kind, found.members, found.ensemble) == ("average", averaged, plain.ensemble)
    np.testing.assert_allclose(found.weights, made.classifier(averaged), atol=1e-6)
    assert counted(found.singles) == counted(plain.singles)
    everything = select(train, val, made.sums, reference=reference, averaged=list(range(12)))
    by_default = select(train, val, made.sums, reference=reference)
    assert everything.val_accuracy == by_default.val_accuracy != found.val_accuracy
    assert by_default.averaged == list(range(12))


def test_val_weighs_the_ensemble_and_has_no_part_in_growing_it() -> None:
    made = problem(4, n=240, num_candidates=12)
    train, val = halves(made, 150)
    reference = made.classifier([0])
    found = select(train, val, made.sums, reference=reference)
    other_val = (val[0], (val[1] + 1) % 3)
    other = select(train, other_val, made.sums, reference=reference)
    assert other.val_accuracy != found.val_accuracy
    assert (other.order.tolist(), other.ensemble) == (found.order.tolist(), found.ensemble)
    assert other.train_accuracy == found.train_accuracy
    other_train = (train[0], (train[1] + 1) % 3)
    assert select(other_train, val, made.sums, reference=reference).ensemble != found.ensemble


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_candidates_does_not_matter(seed: int) -> None:
    made = problem(seed, n=6_000, num_candidates=6)
    train, val = halves(made, 5_000)
    reference = made.classifier([0])
    found = select(train, val, made.sums, reference=reference)
    assert (
        len(set(found.singles.scores("accuracy").tolist())) == 6
    )  # of equally good ones the first would win
    shuffle = np.random.default_rng(seed).permutation(6)
    other = select(train, val, made.sums[shuffle], reference=reference)
    for name in ("hits", "only_reference", "only_candidate"):
        np.testing.assert_array_equal(getattr(other.singles, name), getattr(found.singles, name)[:, shuffle])
    np.testing.assert_array_equal(shuffle[other.order], found.order)
    assert shuffle[other.ensemble].tolist() == found.ensemble
    assert sorted(shuffle[other.members].tolist()) == sorted(found.members)
    assert other.train_accuracy == found.train_accuracy
    assert (other.kind, other.val_accuracy) == (found.kind, found.val_accuracy)
    np.testing.assert_allclose(other.weights, found.weights, atol=1e-6)


def test_members_come_from_the_best_on_train_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = problem(1, n=400, num_candidates=15)
    train, val = halves(made, 300)
    reference = made.classifier([0])
    wide = select(train, val, made.sums, reference=reference)
    assert not set(wide.ensemble) <= set(wide.order[:2].tolist())
    monkeypatch.setattr(ranking, "SHORTLIST", 2)
    assert set(select(train, val, made.sums, reference=reference).ensemble) <= set(wide.order[:2].tolist())


def test_normalised_rows_keep_their_direction_and_lose_their_length() -> None:
    found = ranking.normalised(np.array([[[3, 4], [0, -2]]], dtype=np.float32))
    np.testing.assert_allclose(found, [[[0.6, 0.8], [0, -1]]], rtol=1e-6)
    assert found.dtype == np.float32


# --- by balanced accuracy ------------------------------------------------------------------------


def balanced(embeddings: Floats, labels: Labels, weights: Floats) -> float:
    """The mean over the classes that have images of the share that is right."""
    correct = right(embeddings, labels, weights)
    return float(np.mean([correct[labels == label].mean() for label in np.unique(labels)]))


def uneven(seed: int) -> Problem:
    """A tenth of the images of the first class, all of the second, two fifths of the third."""
    made = problem(seed, n=400, num_candidates=10)
    kept = np.random.default_rng(seed).random(400) < np.array([0.1, 1.0, 0.4])[made.labels]
    return Problem(made.embeddings[kept], made.labels[kept], made.sentences)


def test_by_balanced_accuracy_five_cats_outweigh_forty_dogs() -> None:
    """By hand: the first calls all a dog, the second gets all cats and 30 of 40 dogs."""
    embeddings = np.repeat(np.eye(3, dtype=np.float32), [5, 30, 10], axis=0)
    labels = np.repeat([0, 1, 1], [5, 30, 10])
    all_dogs = np.array([[-1, -1, -1], [1, 1, 1]], dtype=np.float32)
    with_cats = np.array([[1, 0, 1], [0, 1, 0]], dtype=np.float32)
    part, sums = (embeddings, labels), np.stack([all_dogs, with_cats])
    plain, fair = (
        select(part, part, sums, reference=all_dogs, averaged=[0], by=by)
        for by in ("accuracy", "balanced_accuracy")
    )
    assert plain.singles.scores("accuracy").tolist() == pytest.approx([40 / 45, 35 / 45])
    assert plain.singles.scores("balanced_accuracy").tolist() == pytest.approx([0.5, 0.875])
    assert plain.singles.gains("balanced_accuracy").tolist() == pytest.approx([0, 0.375])
    assert (plain.order.tolist(), plain.ensemble[0]) == ([0, 1], 0)
    assert (fair.order.tolist(), fair.ensemble, fair.kind) == ([1, 0], [1], "ensemble")
    assert fair.train_accuracy == [0.875]
    assert fair.val_accuracy == {"active": 0.5, "average": 0.5, "weighted": 0.5, "ensemble": 0.875}


@pytest.mark.parametrize("seed", range(6))
def test_the_choice_by_balanced_accuracy_is_the_naive_one(seed: int) -> None:
    made = uneven(seed)
    train, val = halves(made, len(made.labels) * 2 // 3)
    reference = made.classifier([7])
    found = select(train, val, made.sums, reference=reference, by="balanced_accuracy")

    singles = [balanced(*train, made.classifier([i])) for i in range(10)]
    assert found.singles.scores("balanced_accuracy").tolist() == pytest.approx(singles)
    gains = [score - balanced(*train, reference) for score in singles]
    assert found.singles.gains("balanced_accuracy").tolist() == pytest.approx(gains)
    assert found.order.tolist() == sorted(range(10), key=lambda i: (-round(singles[i], 9), i))
    members: list[int] = []
    reached: list[float] = []
    while len(members) < ranking.MAX_MEMBERS:
        left = [i for i in found.order.tolist() if i not in members]
        offers = {i: round(balanced(*train, made.classifier([*members, i])), 9) for i in left}
        best = max(left, key=lambda i: offers[i])
        if reached and offers[best] <= reached[-1]:
            break
        members.append(best)
        reached.append(offers[best])
    assert found.ensemble == members
    assert found.train_accuracy == pytest.approx(reached)
    average, weighted = made.classifier(list(range(10))), naive_weighted(train[0], made, list(range(10)))
    offers = [reference, average, weighted, made.classifier(members)]
    on_val = [round(balanced(*val, weights), 9) for weights in offers]
    assert list(found.val_accuracy.values()) == pytest.approx(on_val)
    assert found.kind == KINDS[on_val.index(max(on_val))]


@pytest.mark.parametrize("seed", range(4))
def test_where_classes_are_equally_large_both_measures_choose_alike(seed: int) -> None:
    made = problem(seed, n=600)
    rows = np.concatenate([np.flatnonzero(made.labels == label)[:120] for label in range(3)])
    train, val = ((made.embeddings[own], made.labels[own]) for own in (rows[::2], rows[1::2]))
    plain, fair = (
        select(train, val, made.sums, reference=made.classifier([0]), by=by)
        for by in ("accuracy", "balanced_accuracy")
    )
    assert fair.order.tolist() == plain.order.tolist()
    assert (fair.ensemble, fair.kind) == (plain.ensemble, plain.kind)
    assert fair.train_accuracy == pytest.approx(plain.train_accuracy)


def test_where_they_are_not_the_measures_choose_otherwise() -> None:
    """Or the tests above would hold of a search that ignores what it is asked to go by."""
    made = uneven(3)
    part = (made.embeddings, made.labels)
    plain, fair = (
        select(part, part, made.sums, reference=made.classifier([0]), by=by)
        for by in ("accuracy", "balanced_accuracy")
    )
    assert fair.order.tolist() != plain.order.tolist()


# --- does it fool itself? ------------------------------------------------------------------------

REPETITIONS = 300
CANDIDATES = 40
CLASSES = [str(c) for c in range(4)]
SIZES = {"train": 200, "val": 60, "test": 200}


@dataclass(frozen=True)
class Claims:
    """In how many repetitions a winner over the reference was claimed, by way of choosing and asking.

    Attributes:
        procedure: chosen by train and val, asked on test: what the stage does.
        on_train: the same classifier, asked on the images that chose it.
        best_on_test: the best single candidate on test, asked there.
        holm: any single candidate on train, corrected over all.
        uncorrected: any single candidate on train, not corrected.
        found: a planted better candidate came first, joined first, and the procedure claimed a winner.
    """

    procedure: int = 0
    on_train: int = 0
    best_on_test: int = 0
    holm: int = 0
    uncorrected: int = 0
    found: int = 0


def winner(found: compare.Paired) -> bool:
    return found.p_value < signs.LEVEL and found.difference > 0


def repetition(rng: np.random.Generator, *, better: int | None, by: Measure = "accuracy") -> dict[str, bool]:
    """One task with unrelated directions as prompts, `better` one of them being the truth.

    By balanced accuracy half of the images are of one class and a twentieth of another.

    Without it the labels are drawn apart from everything: any classifier, single or averaged, is
    right with probability 1 / C on every image. No prompt is better than another.
    """
    num_classes, dim = len(CLASSES), 16
    centres = 3.0 * unit(rng.standard_normal((num_classes, dim))) if better is not None else None
    parts: dict[str, tuple[Floats, Labels]] = {}
    for name, n in SIZES.items():
        labels = rng.integers(0, num_classes, size=n)
        if by == "balanced_accuracy":
            labels = rng.choice(num_classes, p=[0.5, 0.3, 0.15, 0.05], size=n)
        rows = rng.standard_normal((n, dim))
        parts[name] = (unit(rows if centres is None else rows + centres[labels]), labels)
    sums = unit(rng.standard_normal((CANDIDATES * num_classes, dim)))
    sums = sums.reshape(CANDIDATES, num_classes, dim)
    if centres is not None:
        sums[better] = unit(centres)
    reference = unit(rng.standard_normal((num_classes, dim)))

    selection = select(parts["train"], parts["val"], sums, reference=reference, by=by)
    test, labels = parts["test"]
    chosen, active, *singles = (
        (test @ weights.T).argmax(axis=1) for weights in (selection.weights, reference, *sums)
    )
    asked = compare.compare(active, chosen, labels, class_names=CLASSES, by=by).overall
    best = max(singles, key=lambda predicted: int((predicted == labels).sum()))
    offered = [Candidate(str(i), ["made"], []) for i in range(CANDIDATES)]
    ranked = candidate_rows(offered, selection)
    counts = zip(*counted(selection.singles)[1:], strict=True)
    return {
        "procedure": winner(asked),
        "on_train": winner(
            compare.paired(right(*parts["train"], reference), right(*parts["train"], selection.weights))
        ),
        "best_on_test": winner(compare.paired(active == labels, best == labels)),
        "holm": any(row["p_holm"] < signs.LEVEL and row["difference"] > 0 for row in ranked),
        "uncorrected": any(b > a and signs.mcnemar_exact(int(a), int(b)) < signs.LEVEL for a, b in counts),
        "found": selection.order[0] == better and selection.ensemble[0] == better and winner(asked),
    }


def simulate(repetitions: int, *, better: int | None, by: Measure = "accuracy") -> Claims:
    rng = np.random.default_rng(2024)
    trials = [repetition(rng, better=better, by=by) for _ in range(repetitions)]
    return Claims(**{name: sum(trial[name] for trial in trials) for name in trials[0]})


@cache
def null() -> Claims:
    return simulate(REPETITIONS, better=None)


TOO_MANY = int(stats.binom.ppf(0.999, REPETITIONS, signs.LEVEL))


def test_among_equal_prompts_the_procedure_claims_no_more_winners_than_its_level_allows() -> None:
    assert null().procedure <= TOO_MANY


def test_among_equal_prompts_no_candidate_is_shown_to_be_better_on_train() -> None:
    assert null().holm <= TOO_MANY


def test_by_balanced_accuracy_neither_are_claims_made_among_equals_nor_is_a_better_prompt_missed() -> None:
    equal = simulate(100, better=None, by="balanced_accuracy")
    assert max(equal.procedure, equal.holm) <= int(stats.binom.ppf(0.999, 100, signs.LEVEL))
    assert simulate(20, better=3, by="balanced_accuracy").found >= 18


def test_choosing_and_asking_on_the_same_images_would_claim_winners_that_do_not_exist() -> None:
    """Or the two tests above would pass whatever the procedure did."""
    assert null().best_on_test > 3 * signs.LEVEL * REPETITIONS
    assert null().on_train > TOO_MANY
    assert null().uncorrected > 3 * signs.LEVEL * REPETITIONS


def test_one_prompt_that_is_really_better_is_found_and_claimed() -> None:
    assert simulate(40, better=13).found >= 38


def test_what_clashes_with_a_member_never_joins_it() -> None:
    made = problem(3, n=600, num_candidates=20)
    arguments = (made.embeddings, made.labels, made.sums, list(range(20)))
    free, _ = ranking.greedy_ensemble(*arguments)
    clashes = {free[0]: {free[1], free[2]}, free[1]: {free[0]}, free[2]: {free[0]}}
    members, _ = ranking.greedy_ensemble(*arguments, clashes=clashes)
    assert members[0] == free[0]
    assert not {free[1], free[2]} & set(members)
    assert ranking.greedy_ensemble(*arguments, clashes={})[0] == free
    everything = {i: set(range(20)) for i in range(20)}
    assert ranking.greedy_ensemble(*arguments, clashes=everything)[0] == free[:1]
