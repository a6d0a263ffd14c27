"""Confusion matrices for the page: a table of shaded cells, or a picture where classes are many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from clipcifar.evaluation.names import METHODS
from clipcifar.render import charts
from clipcifar.report.facts import Facts

NUMBERED = 12  # most classes whose cells have room for numbers
NAMED = 30  # most classes whose cells have room at all
SAID = 3  # largest confusions told in words


@dataclass(frozen=True)
class Confusion:
    """One method's confusion matrix, normalised by row.

    Attributes:
        title: what a person calls the method.
        names: C class names, shortened.
        rows: by actual class, and in it by predicted class, the share and what the cell says.
        picture: stands for the rows where classes are many.
        caption: its largest confusions in words.
    """

    title: str
    names: list[str]
    rows: list[list[tuple[str, str]]]
    picture: Markup | None
    caption: str


def confusions(facts: Facts) -> list[Confusion]:
    """The confusion matrix of every method."""
    names, labels = facts.dataset.class_names, facts.sets.labels
    matrices = []
    for method, predictions in facts.predictions.items():
        pairs = labels * len(names) + predictions.predicted
        matrix = np.bincount(pairs, minlength=len(names) ** 2).reshape(len(names), len(names))
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        title, shown = METHODS[method], len(names) <= NAMED
        matrices.append(
            Confusion(
                title,
                [charts.shortened(name, 14) for name in names],
                [[cell(float(share), len(names)) for share in row] for row in shares] if shown else [],
                None if shown else charts.confusion(shares, name=f"confusion-{method}", method=title),
                largest(shares, names),
            )
        )
    return matrices


def cell(share: float, num_classes: int) -> tuple[str, str]:
    """The shade of a share, and what the cell says where there is room for numbers."""
    shade = f"{max(share, 0.03) if share else 0:.2f}"
    return shade, f"{100 * share:.0f}" if share >= 0.005 and num_classes <= NUMBERED else ""


def largest(shares: NDArray[np.float64], names: list[str]) -> str:
    """The largest confusions of a (C, C) matrix normalised by row, in words."""
    off_diagonal = np.where(np.eye(len(shares), dtype=bool), 0, shares)
    order = np.argsort(-off_diagonal, axis=None, kind="stable")[:SAID]
    pairs = [divmod(int(pair), len(names)) for pair in order]
    said = [
        f"{names[actual]} called {names[called]} {100 * shares[actual, called]:.0f} %"
        for actual, called in pairs
        if off_diagonal[actual, called] > 0
    ]
    return f"Most often: {', '.join(said)}." if said else "No image is confused."
