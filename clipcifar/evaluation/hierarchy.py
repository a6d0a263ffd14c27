"""Superclasses: how many errors stay within the family of the true class.

The 20 superclasses of CIFAR-100, five classes each, are those of its home page
(https://www.cs.toronto.edu/~kriz/cifar.html; Krizhevsky 2009, "Learning Multiple Layers of Features
from Tiny Images").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError
from clipcifar.evaluation.metrics import wilson_interval

SUPERCLASSES: Mapping[str, Mapping[str, str]] = {
    "cifar100": {
        "aquatic mammals": "beaver dolphin otter seal whale",
        "fish": "aquarium_fish flatfish ray shark trout",
        "flowers": "orchid poppy rose sunflower tulip",
        "food containers": "bottle bowl can cup plate",
        "fruit and vegetables": "apple mushroom orange pear sweet_pepper",
        "household electrical devices": "clock keyboard lamp telephone television",
        "household furniture": "bed chair couch table wardrobe",
        "insects": "bee beetle butterfly caterpillar cockroach",
        "large carnivores": "bear leopard lion tiger wolf",
        "large man-made outdoor things": "bridge castle house road skyscraper",
        "large natural outdoor scenes": "cloud forest mountain plain sea",
        "large omnivores and herbivores": "camel cattle chimpanzee elephant kangaroo",
        "medium-sized mammals": "fox porcupine possum raccoon skunk",
        "non-insect invertebrates": "crab lobster snail spider worm",
        "people": "baby boy girl man woman",
        "reptiles": "crocodile dinosaur lizard snake turtle",
        "small mammals": "hamster mouse rabbit shrew squirrel",
        "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
        "vehicles 1": "bicycle bus motorcycle pickup_truck train",
        "vehicles 2": "lawn_mower rocket streetcar tank tractor",
    }
}


@dataclass(frozen=True)
class Hierarchy:
    """The superclasses of a dataset.

    Attributes:
        names: G superclass names.
        superclass: (C,) int64, the superclass of each class.
    """

    names: list[str]
    superclass: NDArray[np.int64]

    @property
    def chance_within(self) -> float:
        """The share of errors that would stay within the superclass if they fell on any class alike."""
        sizes = np.bincount(self.superclass)[self.superclass]
        return float(((sizes - 1) / (len(self.superclass) - 1)).mean())


def hierarchy_of(dataset: str, class_names: list[str]) -> Hierarchy | None:
    """The superclasses of a dataset's C classes, None for one that has none.

    Raises:
        DataError: a class has no superclass.
    """
    if dataset not in SUPERCLASSES:
        return None
    names = list(SUPERCLASSES[dataset])
    of_class = {
        member: i for i, members in enumerate(SUPERCLASSES[dataset].values()) for member in members.split()
    }
    missing = [name for name in class_names if name not in of_class]
    if missing:
        raise DataError(f"the class {missing[0]!r} of {dataset} has no superclass")
    return Hierarchy(names, np.array([of_class[name] for name in class_names], dtype=np.int64))


def coarse_metrics(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], hierarchy: Hierarchy
) -> dict[str, Any]:
    """What N predicted classes amount to by superclass.

    Args:
        predicted: (N,) int64 classes.
        labels: (N,) int64, the true classes.

    Returns:
        accuracy (the superclass is right), accuracy_ci95.low/high (Wilson), n_errors (wrong classes),
        n_within (those in the right superclass) and within_share, their share; 0 without an error.
    """
    same = hierarchy.superclass[predicted] == hierarchy.superclass[labels]
    n_errors, n_within = int((predicted != labels).sum()), int((same & (predicted != labels)).sum())
    low, high = wilson_interval(int(same.sum()), len(labels))
    return {
        "accuracy": float(same.mean()),
        "accuracy_ci95": {"low": low, "high": high},
        "n_errors": n_errors,
        "n_within": n_within,
        "within_share": n_within / n_errors if n_errors else 0.0,
    }
