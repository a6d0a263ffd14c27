"""Cells of a heat map that is a table: how dark each is, what it says, and what it says when pointed at."""

from __future__ import annotations

from typing import NamedTuple

DARKEST = 20  # page.css has a class for each shade up to it


class Cell(NamedTuple):
    """A cell of a heat map; `shade` is 0 to `DARKEST`, and `hover` may be empty."""

    shade: int
    said: str
    hover: str = ""


def shade(share: float) -> int:
    """How dark a share, in [0, 1], is shown; what is more than nothing is never blank."""
    return max(round(DARKEST * share), 1 if share > 0 else 0)
