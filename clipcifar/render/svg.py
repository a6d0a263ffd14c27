"""Figures of matplotlib as SVG elements of a page: its colours, two widths, and what a hovered mark says.

Every colour below is a stand-in that `_drawn` replaces by a variable of page.css, so that one drawing
serves the light and the dark theme. Text stays text, and is never read as mathematics. No element has a style
of its own: presentation attributes say it, which a page may have whose policy forbids inline styles.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG  # `savefig` draws twice, once for the layout
from matplotlib.figure import Figure

from clipcifar.core.terminal import harmless

INK, MUTED, LINE, ACCENT = "#010101", "#020202", "#030303", "#040404"
SERIES = ("#111111", "#121212", "#131313", "#141414", "#151515", "#161616", "#171717")
VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    LINE: "line",
    ACCENT: "accent",
    **{colour: f"series-{i}" for i, colour in enumerate(SERIES, start=1)},
}
_STYLE: Any = {  # matplotlib names every key in the type it wants
    "svg.fonttype": "none",
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": INK,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.pad": 6,
    "legend.frameon": False,
    "legend.borderpad": 0,
    "legend.labelspacing": 0.35,
}
_UNITS = 72  # of an SVG by matplotlib in an inch of its figure
_HOVERED = "hover:"
_TAG = re.compile(r"<[^>]*>")
_LEFT_OUT = re.compile(r"<metadata>.*?</metadata>|<style.*?</style>", re.DOTALL)
_OWN_STYLE = re.compile(r' style="([^"]*)"')
_PART = re.compile(r'<g id="(?:matplotlib\.)?(axes|axis|legend)_\d+"')
_OTHER_PART = re.compile(r'<g id="[^"]*"')
_DIGITS = re.compile(r"(\.\d\d)\d+")
_STAND_IN = re.compile("|".join(VARIABLES))


class Size(NamedTuple):
    """How wide a chart is drawn and how high its letters are, in pixels where it is shown at its own size.

    Attributes:
        name: the class by which page.css knows it.
        above: whether labels stand above their marks, as beside them they would leave no room.
    """

    name: str
    width: int
    letters: float
    above: bool


# page.css shows a wide or half drawing from a window of 960 pixels on, at 0.8 to 1.12 times its own size, and
# the narrow one below; narrow and small ones fit a window of 390 pixels at their own size.
_NARROW = Size("narrow", 332, 12.0, above=True)
ALONE = (Size("wide", 1060, 13.5, above=False), _NARROW)
PAIRED = (Size("half", 520, 14.0, above=False), _NARROW)  # two side by side
BESIDE = (Size("small", 332, 12.0, above=True),)  # of many, side by side in any window


def figure(size: Size, height: float) -> tuple[Figure, Axes]:
    """A figure of that size, `height` in pixels, and the axes that it has; what it says stays within it."""
    made = Figure(figsize=(size.width / _UNITS, height / _UNITS), layout="constrained", facecolor="none")
    return made, made.add_subplot()


def grown(made: Figure, height: float) -> None:
    """Make a figure higher by so many pixels."""
    made.set_figheight(made.get_figheight() + height / _UNITS)


def hovered(text: str) -> str:
    """The `gid` of what a browser tells the text of, when it is pointed at."""
    return _HOVERED + " ".join(harmless(text).split())


def drawn(
    draw: Callable[[Size], Figure], *, name: str, description: str, sizes: tuple[Size, ...] = ALONE
) -> Markup:
    """A drawing as elements to put into the page, one for each size; page.css shows the one that fits.

    Args:
        draw: makes the figure, inside of the style of all charts.
        name: keeps its ids apart from other charts'.
        description: for those who do not see it.
    """
    elements = []
    for size in sizes:
        letters: Any = {"font.size": size.letters, "legend.fontsize": size.letters}
        with matplotlib.rc_context({**_STYLE, **letters, "svg.hashsalt": f"{name} {size.name}"}):
            elements.append(_element(draw(size), size, description))
    return Markup("").join(elements)


def _element(made: Figure, size: Size, description: str) -> Markup:
    stream, canvas = io.StringIO(), cast(Any, FigureCanvasSVG(made))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a glyph that matplotlib's font lacks is drawn by the browser's
        canvas.print_svg(stream, metadata={"Date": None, "Creator": None})
    body = _TAG.sub(_as_the_page_has_it, _LEFT_OUT.sub("", stream.getvalue()).partition("<svg")[2])
    label = escape(harmless(description))
    return Markup(f'<svg class="{size.name}" role="img" aria-label="{label}"{body}')  # noqa: S704  matplotlib escapes its text


def _as_the_page_has_it(match: re.Match[str]) -> str:
    """A tag without a style and without ids that are the same in every chart; what is hovered has a title."""
    tag = match[0]
    if tag.startswith(f'<g id="{_HOVERED}'):
        return f'<g class="hover"><title>{tag[len(_HOVERED) + 7 : -2]}</title>'
    tag = _PART.sub(r'<g data-part="\1"', tag)
    tag = _OTHER_PART.sub("<g", tag)
    return _OWN_STYLE.sub(_attributes, _DIGITS.sub(r"\1", tag))


def _attributes(style: re.Match[str]) -> str:
    declared = [each.partition(":") for each in style[1].split(";")]
    pairs = {key.strip(): value.strip() for key, _, value in declared}
    pairs.pop("font-family", None)  # the page's own
    return "".join(f' {key}="{_STAND_IN.sub(_variable, value)}"' for key, value in pairs.items())


def _variable(stand_in: re.Match[str]) -> str:
    return f"var(--{VARIABLES[stand_in[0]]})"
