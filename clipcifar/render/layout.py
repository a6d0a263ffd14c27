"""Where the words of a chart stand, so that they cover nothing.

A label stands beside its mark in a wide chart, and above it in a narrow one; a legend stands above the axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from clipcifar.core.terminal import cut, harmless, width
from clipcifar.render.svg import MUTED, Size, figure, grown, hovered

_LONGEST = 52  # characters of a label in a chart
_LETTER = 0.62  # of the height of letters, their mean width


def shortened(text: str, length: int = _LONGEST) -> str:
    """Text cut to a width, that of a Latin letter being 1, with an ellipsis where something was cut."""
    return cut(harmless(text), length)


def name_rows(axes: Axes, labels: Sequence[str], size: Size) -> None:
    """Name horizontal rows, the first on top: at the left of a wide chart, else above what is at each."""
    axes.grid(visible=False, axis="both" if size.above else "y")
    axes.set_ylim(len(labels) - 0.5, -0.75 if size.above else -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(4 if size.above else 9, steps=[1, 2, 2.5, 5, 10]))
    axes.set_yticks(range(len(labels)), [] if size.above else [shortened(text) for text in labels])
    for row, text in enumerate(labels if size.above else ()):
        axes.text(0, row - 0.36, shortened(text, 42), transform=axes.get_yaxis_transform(), va="center")


def rows_figure(labels: Sequence[str], size: Size) -> tuple[Figure, Axes]:
    """A chart of named rows."""
    return figure(size, 58 + len(labels) * (46 if size.above else 30))


def answering_row(axes: Axes, row: int, text: str) -> None:
    """Let a row say something wherever it is pointed at."""
    axes.axhspan(row - 0.5, row + 0.5, facecolor="none", edgecolor="none", zorder=9, gid=hovered(text))


def line_at_zero(axes: Axes, rows: int, size: Size) -> None:
    """A line at nought through all rows, which spares the labels in them."""
    at = np.arange(rows)
    axes.vlines(np.zeros(rows), at - (0.15 if size.above else 0.5), at + 0.5, color=MUTED, linewidth=1)


def legend(made: Figure, labels: Sequence[str], size: Size) -> None:
    """Put a legend above the axes, in as many columns as its labels have room for, and make room for it."""
    widest = max(width(harmless(text)) for text in labels) * size.letters * _LETTER + 50
    columns = max(1, min(len(labels), int(size.width / widest)))
    made.legend(loc="outside upper left", ncols=columns)
    grown(made, -(-len(labels) // columns) * size.letters * 1.6 + 6)
