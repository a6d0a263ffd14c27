"""Twins within one split: in train they count twice, in test they make intervals narrower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.counts import count_of
from clipcifar.render.pictures import Card, Pictures
from clipcifar.render.study import Gallery, Section
from clipcifar.store.dataset import Prepared, PreparedSplit
from clipcifar.studies.near_duplicates.pictures import MOST_CORRELATED, SAME_PICTURE, correlations


@dataclass(frozen=True)
class Within:
    """The twins of one split.

    Attributes:
        name: of the split, train (val among it) or test.
        n: its images.
        n_with_twin: those that have another one at or above the threshold.
        pairs: (P, 2) int64 rows, each pair of an image and its nearest once, the closest first.
        cosines: (P,) float32.
        correlation: of the pictures of the first of them.
        same_label, identical: (P,) bool, whether both are labelled alike, and are the same byte for byte.
    """

    name: str
    n: int
    n_with_twin: int
    pairs: NDArray[np.int64]
    cosines: NDArray[np.float32]
    correlation: list[float]
    same_label: NDArray[np.bool_]
    identical: NDArray[np.bool_]


def measure(
    name: str,
    part: PreparedSplit,
    twins: NDArray[np.int64],
    cosines: NDArray[np.float32],
    *,
    folder: Path,
    threshold: float,
) -> Within:
    """The pairs of a split that count.

    Args:
        name: train or test.
        part: its N images.
        twins, cosines: (N,) of every image the most similar other one.
        folder: where its files are, if it is of files.
        threshold: the cosine from which a pair counts.
    """
    rows = np.flatnonzero(cosines >= threshold)
    both = np.sort(np.stack([rows, twins[rows]], axis=1), axis=1)
    pairs, first = np.unique(both, axis=0, return_index=True)
    own = cosines[rows][first]
    order = np.argsort(-own, kind="stable")
    pairs = pairs[order]
    left, right = pairs[:, 0], pairs[:, 1]
    pictures = Pictures(part, folder)
    same = part.content[left] == part.content[right]
    return Within(
        name=name,
        n=len(part.ids),
        n_with_twin=len(rows),
        pairs=pairs,
        cosines=own[order],
        correlation=correlations(pictures, pictures, [(a, b) for a, b in pairs[:MOST_CORRELATED].tolist()]),
        same_label=part.labels[left] == part.labels[right],
        identical=same.all(axis=tuple(range(1, same.ndim))),
    )


def as_metrics(within: Within) -> dict[str, Any]:
    """Counts, and of the pairs the shares that are labelled alike and are the same picture."""
    shares = {}
    if len(within.pairs):
        shares = {
            "same_label": float(within.same_label.mean()),
            "same_picture": float(np.mean(np.array(within.correlation) >= SAME_PICTURE)),
        }
    return {
        "n": within.n,
        "n_duplicates": within.n_with_twin,
        "duplicates": within.n_with_twin / within.n,
        "n_pairs": len(within.pairs),
        "n_identical": int(within.identical.sum()),
        "n_other_label": int((~within.same_label).sum()),
        **shares,
    }


def rows(splits: Sequence[Within], dataset: Prepared) -> list[dict[str, Any]]:
    """Every pair of either split, the closest first; no correlation where pictures were not compared."""
    table = []
    for within in splits:
        part = _part(within, dataset)
        correlation: list[float | str] = [*within.correlation]
        correlation += [""] * (len(within.pairs) - len(correlation))
        for i, (a, b) in enumerate(within.pairs.tolist()):
            table.append(
                {
                    "split": within.name,
                    "image": part.ids[a],
                    "twin": part.ids[b],
                    "cosine": float(within.cosines[i]),
                    "picture_correlation": correlation[i],
                    "identical": int(within.identical[i]),
                    "label": dataset.class_names[part.labels[a]],
                    "twin_label": dataset.class_names[part.labels[b]],
                }
            )
    return table


def sentence(within: Within) -> str:
    """What was found in the split."""
    pairs, identical, other = len(within.pairs), within.identical.sum(), (~within.same_label).sum()
    if not pairs:
        return f"Within {within.name} no image has such a twin."
    return (
        f"Within {within.name}: {within.n_with_twin:,} of {within.n:,} images have such a twin there, in "
        f"{count_of(pairs, 'pair')}: the same byte for byte {identical:,}, with different labels {other:,}."
    )


def section(within: Within, dataset: Prepared, *, folder: Path, shown: int) -> Section:
    """The closest pairs of a split, and those with different labels.

    Args:
        within: with one pair at least.
        dataset: that it is of.
        folder: where its files are, if it is of files.
        shown: most pairs of either.
    """
    part = _part(within, dataset)
    pictures = Pictures(part, folder)

    def cards(chosen: NDArray[np.int64]) -> list[Card]:
        return [
            Card(
                source=pictures.data_uri(row),
                alt=f"{within.name} image {part.ids[row]}",
                title=dataset.class_names[part.labels[row]],
                lines=[f"cosine {within.cosines[i]:.3f}"],
                file=part.ids[row],
            )
            for i in chosen.tolist()
            for row in within.pairs[i].tolist()
        ]

    every = np.arange(len(within.pairs))
    titled = (("The most similar", every), ("Twins with different labels", every[~within.same_label]))
    return Section(
        f"within-{within.name}",
        f"Within {within.name}",
        paragraphs=[sentence(within)],
        galleries=[
            Gallery(title, cards(chosen[:shown]), pictures.small) for title, chosen in titled if len(chosen)
        ],
    )


def _part(within: Within, dataset: Prepared) -> PreparedSplit:
    return {"train": dataset.train, "test": dataset.test}[within.name]
