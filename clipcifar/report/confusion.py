"""Confusion matrices for the page: a table of shaded cells, or a picture where classes are many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from clipcifar.evaluation.names import METHODS
from clipcifar.render import charts
from clipcifar.render.cells import Cell, shade
from clipcifar.report.facts import Facts

NUMBERED = 12  # most classes whose cells have room for numbers
NAMED = 30  # most classes whose cells have room at all
SAID = 3  # largest confusions told in words
PAIRS = 20  # largest confusions in a table, where cells do not tell them
PAIRS_HEADER = ["actual", "called", "share", "images"]


@dataclass(frozen=True)
class Confusion:
    """One method's confusion matrix, normalised by row.

    Attributes:
        title: what a person calls the method.
        names: C class names, shortened.
        rows: its cells by actual class, and in it by predicted class.
        picture: stands for the rows where classes are many.
        pairs: rows of a table of its largest confusions, where cells have no room for numbers: actual class,
            what it was called, and how often.
        caption: its largest confusions in words.
    """

    title: str
    names: list[str]
    rows: list[list[Cell]]
    picture: Markup | None
    pairs: list[list[str]]
    caption: str


def confusions(facts: Facts) -> list[Confusion]:
    """The confusion matrix of every method."""
    names, labels = facts.dataset.class_names, facts.sets.labels
    matrices = []
    for method, predictions in facts.predictions.items():
        matrix = counted(labels, predictions.predicted, len(names))
        shares = of_class(matrix)
        title, shown = METHODS[method], len(names) <= NAMED
        matrices.append(
            Confusion(
                title,
                [charts.shortened(name, 14) for name in names],
                cells(shares, names) if shown else [],
                None if shown else charts.confusion(shares, name=f"confusion-{method}", method=title),
                [] if len(names) <= NUMBERED else pair_rows(matrix, names),
                largest(shares, names),
            )
        )
    return matrices


def counted(labels: NDArray[np.int64], predicted: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """(C, C) images of each true class, a row, that are called each class; labels and answers are (N,)."""
    pairs = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return np.asarray(pairs.reshape(num_classes, num_classes))


def of_class(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """The (C, C) counts as shares of their rows; a class without images has none."""
    return np.asarray(matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1))


def cells(shares: NDArray[np.float64], names: list[str]) -> list[list[Cell]]:
    """A (C, C) matrix normalised by row as cells, which say what class was called what."""
    return [
        [cell(float(share), actual, called, len(names)) for called, share in zip(names, row, strict=True)]
        for actual, row in zip(names, shares, strict=True)
    ]


def cell(share: float, actual: str, called: str, num_classes: int) -> Cell:
    """The shade of a share, and what the cell says where there is room for numbers."""
    said = f"{100 * share:.0f}" if share >= 0.005 and num_classes <= NUMBERED else ""
    return Cell(shade(share), said, f"{actual} called {called}: {100 * share:.1f} %" if share else "")


def pair_rows(matrix: NDArray[np.int64], names: list[str]) -> list[list[str]]:
    """The largest confusions of a (C, C) matrix of counts, the largest share of a class first."""
    of_class = matrix.sum(axis=1)
    shares = matrix / np.maximum(of_class[:, None], 1)
    return [
        [
            names[actual],
            names[called],
            f"{100 * shares[actual, called]:.0f} %",
            f"{matrix[actual, called]:,} of {of_class[actual]:,}",
        ]
        for actual, called in largest_pairs(matrix, PAIRS)
    ]


def largest_pairs(matrix: NDArray[np.int64], number: int) -> list[tuple[int, int]]:
    """Actual and called class of the largest confusions of a (C, C) matrix of counts, those that there are.

    The largest share of its class comes first.
    """
    return _largest(of_class(matrix), number)


def _largest(shares: NDArray[np.float64], number: int) -> list[tuple[int, int]]:
    """The same of a matrix normalised by row."""
    off_diagonal = np.where(np.eye(len(shares), dtype=bool), 0, shares)
    order = np.argsort(-off_diagonal, axis=None, kind="stable")[:number]
    pairs = [divmod(int(pair), len(shares)) for pair in order]
    return [pair for pair in pairs if off_diagonal[pair] > 0]


def largest(shares: NDArray[np.float64], names: list[str]) -> str:
    """The largest confusions of a (C, C) matrix normalised by row, in words."""
    said = [
        f"{names[actual]} called {names[called]} {100 * shares[actual, called]:.0f} %"
        for actual, called in _largest(shares, SAID)
    ]
    return f"Most often: {', '.join(said)}." if said else "No image is confused."
