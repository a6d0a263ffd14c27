"""Superclasses: the facts of CIFAR-100, the metrics, and their section of the page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from clipcifar.errors import DataError
from clipcifar.hierarchy import SUPERCLASSES, Hierarchy, coarse_metrics, hierarchy_of
from clipcifar.metrics import wilson_interval
from clipcifar.report import page, superclasses
from clipcifar.report.pictures import Pictures
from clipcifar.report.table import METHODS
from tests import finished_run

CIFAR100 = sorted(
    " ".join(SUPERCLASSES["cifar100"].values()).split()
)  # in label order, as its archive has it
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
        written = json.loads((tmp_path / "metrics" / f"{method}.json").read_text())["coarse"]
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
