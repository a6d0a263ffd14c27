"""The images of a source divided into train, val and test, and chosen from: all by class, seed and id."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipcifar.core.errors import DataError
from clipcifar.datasets.params import DatasetParams
from clipcifar.datasets.source import Collected
from clipcifar.store import splits
from clipcifar.store.dataset import OWN_VAL, PreparedSplit
from clipcifar.store.splits import SplitParams, TrainVal

BEYOND = "beyond dataset.max_per_class"


@dataclass(frozen=True)
class Divided:
    """Attributes:
    train: the official train split, val included; without a row where there is only test.
    rows: which of its rows are train and which val.
    left_out: how many of what kind were not used, `BEYOND` included.
    notes: what was decided for the user.
    """

    train: PreparedSplit
    test: PreparedSplit
    rows: TrainVal
    left_out: dict[str, int]
    notes: list[str]


def divide(collected: Collected, dataset: DatasetParams, split: SplitParams) -> Divided:
    """Draw what no split is given for, choose at most `dataset.max_per_class` of each class and split.

    Raises:
        DataError: a class has too few images for it, or there are fewer than two classes.
    """
    names, parts, notes = collected.class_names, dict(collected.splits), []
    if (undivided := parts.pop("undivided", None)) is not None:
        splits.check_counts(undivided.labels, class_names=names, parts=("train", "val", "test"))
        is_test = splits.seeded_share(
            undivided.labels, undivided.ids, fraction=dataset.test_fraction, seed=dataset.seed, purpose="test"
        )
        parts["train"], parts["test"] = (undivided.take(np.flatnonzero(rows)) for rows in (~is_test, is_test))
        notes.append(
            f"no train and test folders: {dataset.test_fraction:g} of each class was drawn for test "
            f"(dataset.test_fraction, dataset.seed {dataset.seed})"
        )
    test, none = parts["test"], np.zeros(0, dtype=np.int64)
    before = sum(len(part.ids) for part in parts.values())
    train, val, test = (
        _subset(parts.get(name, test.take(none)), dataset) for name in ("train", "val", "test")
    )
    kept = len(train.ids) + len(val.ids) + len(test.ids)
    left_out = {**collected.left_out, **({BEYOND: before - kept} if before > kept else {})}
    splits.check_classes(test.labels, class_names=names, split="test")
    if not len(train.ids):
        notes.append("no train images: zero-shot and what compares its prompts is all that can be run")
        return Divided(train, test, TrainVal(none, none), left_out, notes)
    splits.check_classes(train.labels, class_names=names, split="train")
    if len(val.ids):
        notes.append(OWN_VAL)
        rows = np.arange(len(train.ids) + len(val.ids))
        return Divided(train + val, test, TrainVal(*np.split(rows, [len(train.ids)])), left_out, notes)
    try:
        drawn = splits.stratified_split(
            train.labels, train.ids, class_names=names, val_fraction=split.val_fraction, seed=split.seed
        )
    except DataError as error:
        if dataset.max_per_class == 1:
            error.fix = "raise dataset.max_per_class"
        raise
    return Divided(train, test, drawn, left_out, notes)


def _subset(part: PreparedSplit, dataset: DatasetParams) -> PreparedSplit:
    if dataset.max_per_class is None:
        return part
    limit = {"max_per_class": dataset.max_per_class, "seed": dataset.seed}
    return part.take(splits.seeded_subset(part.labels, part.ids, **limit))
