"""Images that a dataset holds more than once, byte for byte: what that says of its labels and of its splits.

Two copies of one image under two classes cannot both be labelled right, and one that lies in train and in
test tells nothing of images that a method has not seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.terminal import one_line
from clipcifar.datasets.plain_files import shortened
from clipcifar.store.dataset import PreparedSplit
from clipcifar.store.names import repeated

SPLITS = ("train", "val", "test")


class Copy(NamedTuple):
    """Where one image lies: its split (train, val or test), its sample id and its label."""

    split: str
    sample_id: str
    label: int


@dataclass(frozen=True)
class Twins:
    """The images of which there are several copies.

    Attributes:
        groups: a list for each such image, of its copies: those in train first, then val, then test.
    """

    groups: list[list[Copy]]

    @property
    def of_two_classes(self) -> list[list[Copy]]:
        """The images that lie under more than one class, in one split or in several."""
        return [group for group in self.groups if len({copy.label for copy in group}) > 1]

    @property
    def wrong_labels(self) -> int:
        """Labels that must be wrong: of each image all copies but those of its most frequent class."""
        counted = [Counter(copy.label for copy in group) for group in self.of_two_classes]
        return sum(labels.total() - max(labels.values()) for labels in counted)

    def in_both(self, a: str, b: str) -> list[list[Copy]]:
        """The images that lie in both of two splits."""
        return [group for group in self.groups if {a, b} <= {copy.split for copy in group}]

    @property
    def repeated(self) -> list[list[Copy]]:
        """The images that lie more than once in one split under one class."""
        return [
            group for group in self.groups if len({(copy.split, copy.label) for copy in group}) < len(group)
        ]

    def counts(self) -> dict[str, int]:
        """How many images there are of each kind; one may be of several."""
        return {
            "two_classes": len(self.of_two_classes),
            **{f"{a}_and_{b}": len(self.in_both(a, b)) for a, b in combinations(SPLITS, 2)},
            "repeated": len(self.repeated),
        }

    def lines(self, class_names: Sequence[str]) -> list[str]:
        """What a person is told: a sentence for each kind that there is, and below it copies by name."""
        told = []
        if groups := self.of_two_classes:
            which = f"at least {_counted(self.wrong_labels, 'label')} must be wrong"
            told += [f"under two classes, {_counted(len(groups), 'image')}: {which}"]
            told += _named([(group[0], _other_class(group)) for group in groups], class_names)
        for a, b in combinations(SPLITS, 2):
            if groups := self.in_both(a, b):
                told += [f"both in {a} and in {b}, {_counted(len(groups), 'image')}: {_MEANS[b]}"]
                told += _named([(_first(group, a), _first(group, b)) for group in groups], class_names)
        if groups := self.repeated:
            told += [f"more than once in one split under one class, {_counted(len(groups), 'image')}"]
        return told


_MEANS = {"val": "val chooses by what was learnt", "test": "test asks for what was learnt or chosen by"}


def find(train: PreparedSplit, test: PreparedSplit, *, val: NDArray[np.int64]) -> Twins:
    """Find the images that are there more than once; the same bytes of a file, or the same pixels.

    Args:
        train, test: both official splits.
        val: (V,) int64 rows of train that are val.
    """
    n = len(train.ids)
    split = np.zeros(n + len(test.ids), dtype=np.int8)  # of the rows of train, then test: which of SPLITS
    split[val], split[n:] = 1, 2
    groups = [
        sorted(zip(split[rows].tolist(), rows.tolist(), strict=True))
        for rows in repeated(train.contents, test.contents)
    ]

    def copy(of: int, row: int) -> Copy:
        part, row = (train, row) if row < n else (test, row - n)
        return Copy(SPLITS[of], part.ids[row], int(part.labels[row]))

    return Twins([[copy(of, row) for of, row in group] for group in sorted(groups)])


def _first(group: list[Copy], split: str) -> Copy:
    return next(copy for copy in group if copy.split == split)


def _other_class(group: list[Copy]) -> Copy:
    return next(copy for copy in group if copy.label != group[0].label)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _named(pairs: list[tuple[Copy, Copy]], class_names: Sequence[str]) -> list[str]:
    lines = []
    for a, b in pairs:
        of_a, of_b = (f" ({class_names[copy.label]})" if a.label != b.label else "" for copy in (a, b))
        lines.append(one_line(f"{a.sample_id}{of_a} is {b.sample_id}{of_b}"))
    return [f"    {line}" for line in shortened(lines)]
