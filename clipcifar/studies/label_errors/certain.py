"""Labels that contradict each other: copies of one image under two classes, of which one must be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clipcifar.core.counts import count_of
from clipcifar.datasets import twins
from clipcifar.datasets.twins import Copy, Twins
from clipcifar.render.pictures import Card, Pictures
from clipcifar.render.study import Gallery, Section
from clipcifar.store.dataset import Prepared


def find(dataset: Prepared) -> Twins:
    """The images that are there more than once; val counts as train here."""
    return twins.find(dataset.train, dataset.test, val=np.zeros(0, dtype=np.int64))


def as_metrics(copies: Twins) -> dict[str, int]:
    """Images under two classes, their labels that must be wrong, and how many of them lie in each split."""
    contradicting = [copy for group in copies.of_two_classes for copy in group]
    return {
        "n": len(copies.of_two_classes),
        "n_wrong": copies.wrong_labels,
        **{f"n_{name}": sum(copy.split == name for copy in contradicting) for name in ("train", "test")},
    }


def rows(copies: Twins, *, class_names: list[str]) -> list[dict[str, Any]]:
    """A row for every copy of an image that lies under two classes; `image` numbers the images."""
    return [
        {"image": number, "split": copy.split, "id": copy.sample_id, "label": class_names[copy.label]}
        for number, group in enumerate(copies.of_two_classes, start=1)
        for copy in group
    ]


def sentence(copies: Twins) -> str:
    """What is certain, in a sentence."""
    if not copies.of_two_classes:
        return "Certain: nothing. No image lies, byte for byte, under two classes."
    images = count_of(len(copies.of_two_classes), "image lies", "images lie")
    labels = count_of(copies.wrong_labels, "label")
    return f"Certain: {images}, byte for byte, under two classes, so that at least {labels} must be wrong."


def section(copies: Twins, dataset: Prepared, *, folder: Path, shown: int) -> Section:
    """The copies side by side.

    Args:
        copies: under two classes, at least one image of them.
        dataset: that they are of.
        folder: where its files are, if it is of files.
        shown: most images.
    """
    parts = {"train": dataset.train, "test": dataset.test}
    pictures = {name: Pictures(part, folder) for name, part in parts.items()}
    wanted = {copy.sample_id for group in copies.of_two_classes[:shown] for copy in group}
    row_of = {
        (name, sample_id): row
        for name, part in parts.items()
        for row, sample_id in enumerate(part.ids)
        if sample_id in wanted
    }

    def card(copy: Copy) -> Card:
        label = dataset.class_names[copy.label]
        return Card(
            source=pictures[copy.split].data_uri(row_of[copy.split, copy.sample_id]),
            alt=f"{copy.split} image {copy.sample_id}, labelled {label}",
            title=label,
            lines=[copy.split],
            file=copy.sample_id,
        )

    cards = [
        card(copy)
        for group in copies.of_two_classes[:shown]
        for copy in {copy.label: copy for copy in reversed(group)}.values()  # the first of every class
    ]
    return Section(
        "certain",
        "Certain errors",
        paragraphs=[sentence(copies), "The first copy under each class; two_classes.csv has all of them."],
        galleries=[Gallery("Under two classes", cards, pictures["train"].small)],
    )
