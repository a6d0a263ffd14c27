"""Superclasses: the facts of CIFAR-100, the metrics, and their section of the page."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from clipcifar.core.errors import DataError
from clipcifar.evaluation import headline
from clipcifar.evaluation.hierarchy import SUPERCLASSES, Hierarchy, coarse_metrics, hierarchy_of
from clipcifar.evaluation.metrics import wilson_interval
from clipcifar.evaluation.names import METHODS
from clipcifar.render.pictures import Pictures
from clipcifar.report import page, superclasses
from tests.support import finished_run

# `fine_label_names` of the archive's `meta`, in label order, and every label's `coarse_labels` in `train`.
FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
COARSE = """
4 1 14 8 0 6 7 7 18 3 3 14 9 18 7 11 3 9 7 11 6 11 5 10 7 6 13 15 3 15 0 11 1 10 12 14 16 9 11 5 5 19 8 8 15
13 14 17 18 10 16 4 17 4 2 0 17 4 18 17 10 3 2 12 12 16 12 1 9 19 2 10 0 1 16 12 9 13 15 13 16 19 2 4 6 19 5
5 8 19 18 1 2 15 6 0 17 8 14 13
"""
CIFAR100 = FINE.split()
TWO = Hierarchy(["cats", "fish"], np.array([0, 0, 0, 1]))


def test_cifar100_has_twenty_superclasses_of_five_classes_each() -> None:
    found = hierarchy_of("cifar100", CIFAR100)
    assert found is not None
    assert len(set(CIFAR100)) == 100
    assert np.bincount(found.superclass).tolist() == [5] * 20
    of = {name: found.names[found.superclass[i]] for i, name in enumerate(CIFAR100)}
    assert (of["whale"], of["shark"], of["mushroom"]) == ("aquatic mammals", "fish", "fruit and vegetables")
    assert (of["bicycle"], of["tank"], of["worm"]) == ("vehicles 1", "vehicles 2", "non-insect invertebrates")
    assert found.chance_within == pytest.approx(4 / 99)


def test_the_whole_table_is_twenty_times_five_and_names_each_class_once() -> None:
    families = [members.split() for members in SUPERCLASSES["cifar100"].values()]
    assert [len(members) for members in families] == [5] * 20
    assert sorted(name for members in families for name in members) == CIFAR100 == sorted(set(CIFAR100))


def test_every_class_is_in_the_superclass_that_its_images_are_labelled_with() -> None:
    """The archive numbers its superclasses by name, where 15 is reptiles and 19 vehicles_2."""
    found = hierarchy_of("cifar100", CIFAR100)
    assert found is not None
    assert found.superclass.tolist() == [int(label) for label in COARSE.split()]
    assert (found.names[0], found.names[15], found.names[19]) == ("aquatic mammals", "reptiles", "vehicles 2")
    assert len(found.names) == 20


@pytest.mark.parametrize(
    ("superclass", "members"),
    [
        ("vehicles 1", {"bicycle", "bus", "motorcycle", "pickup_truck", "train"}),
        ("vehicles 2", {"lawn_mower", "rocket", "streetcar", "tank", "tractor"}),
        ("large carnivores", {"bear", "leopard", "lion", "tiger", "wolf"}),
        ("large omnivores and herbivores", {"camel", "cattle", "chimpanzee", "elephant", "kangaroo"}),
        ("medium-sized mammals", {"fox", "porcupine", "possum", "raccoon", "skunk"}),
        ("small mammals", {"hamster", "mouse", "rabbit", "shrew", "squirrel"}),
        ("aquatic mammals", {"beaver", "dolphin", "otter", "seal", "whale"}),
    ],
)
def test_families_that_are_easily_confused(superclass: str, members: set[str]) -> None:
    found = hierarchy_of("cifar100", CIFAR100)
    assert found is not None
    own = found.names.index(superclass)
    assert {CIFAR100[i] for i in np.flatnonzero(found.superclass == own)} == members


def test_another_dataset_has_none_and_a_class_without_a_superclass_is_named() -> None:
    assert hierarchy_of("cifar10", ["cat", "dog"]) is None
    with pytest.raises(DataError, match="'zebra'"):
        hierarchy_of("cifar100", ["whale", "zebra"])


def test_a_case_by_hand() -> None:
    labels = np.array([0, 1, 2, 3, 3, 0])
    predicted = np.array([0, 2, 3, 3, 0, 1])  # right, within, across, right, across, within
    low, high = wilson_interval(4, 6)
    assert coarse_metrics(predicted, labels, TWO) == {
        "accuracy": 4 / 6,
        "accuracy_ci95": {"low": low, "high": high},
        "n_errors": 4,
        "n_within": 2,
        "within_share": 0.5,
    }
    assert TWO.chance_within == pytest.approx((3 * 2 / 3 + 0) / 4)


def test_without_an_error_no_error_stays_within() -> None:
    found = coarse_metrics(np.arange(4), np.arange(4), TWO)
    assert (found["accuracy"], found["n_errors"], found["within_share"]) == (1.0, 0, 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_what_the_fine_and_the_coarse_accuracy_have_to_do_with_each_other(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hierarchy = hierarchy_of("cifar100", CIFAR100)
    assert hierarchy is not None
    labels, predicted = rng.integers(0, 100, (2, 20_000))
    naive = sum(
        any(
            {CIFAR100[a], CIFAR100[b]} <= set(members.split())
            for members in SUPERCLASSES["cifar100"].values()
        )
        for a, b in zip(labels[:300], predicted[:300], strict=True)
    )
    assert coarse_metrics(predicted[:300], labels[:300], hierarchy)["accuracy"] == naive / 300
    found = coarse_metrics(predicted, labels, hierarchy)
    right = float((labels == predicted).mean())
    assert found["accuracy"] == pytest.approx(right + found["n_within"] / 20_000)
    assert found["within_share"] == pytest.approx(hierarchy.chance_within, abs=0.005)


def test_other_families_give_other_numbers() -> None:
    """Negative control: the numbers are of these families."""
    hierarchy = hierarchy_of("cifar100", CIFAR100)
    assert hierarchy is not None
    labels = np.arange(100)
    predicted = np.array([np.flatnonzero(hierarchy.superclass == s)[0] for s in hierarchy.superclass])
    shuffled = Hierarchy(hierarchy.names, np.random.default_rng(0).permutation(hierarchy.superclass))
    assert coarse_metrics(predicted, labels, hierarchy)["within_share"] == 1
    assert coarse_metrics(predicted, labels, shuffled)["within_share"] < 0.2


def test_every_methods_metrics_have_them_and_the_page_shows_them(tmp_path: Path) -> None:
    finished_run.write(tmp_path, class_names=CIFAR100, n=300, dataset="cifar100")
    facts = finished_run.read(tmp_path)
    hierarchy = hierarchy_of("cifar100", CIFAR100)
    assert hierarchy is not None
    for method in METHODS:
        written = headline.read(tmp_path / "metrics", method)["coarse"]
        found = facts.predictions[method]
        same = hierarchy.superclass[found.predicted] == hierarchy.superclass[found.labels]
        assert written["accuracy"] == pytest.approx(same.mean(), abs=1e-5)
        assert written["n_errors"] == int((found.predicted != found.labels).sum())
    section = superclasses.section(facts)
    assert section is not None
    assert [row[0] for row in section["classes_rows"]] == hierarchy.names
    assert f"{facts.metrics['zero_shot']['coarse']['accuracy']:.4f}" == section["rows"][0][2]
    html = page.render(facts, Pictures(facts.dataset.test, tmp_path), split="")
    assert re.findall(r'<a href="#([^"]+)"', html) == [anchor for anchor, _ in page.SECTIONS]
    assert "large omnivores and herbivores" in html


def test_without_superclasses_neither_the_metrics_nor_the_page_know_of_them(tmp_path: Path) -> None:
    finished_run.write(tmp_path)
    facts = finished_run.read(tmp_path)
    assert "coarse" not in facts.metrics["zero_shot"]
    assert "uperclass" not in page.render(facts, Pictures(facts.dataset.test, tmp_path), split="")
