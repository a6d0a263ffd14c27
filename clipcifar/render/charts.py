"""The page's charts, drawn by matplotlib as SVG whose colours are the page's own.

Every colour below is a stand-in that `_svg` replaces by a variable of page.css, so that one drawing
serves the light and the dark theme. Text stays text, and is never read as mathematics.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG  # `savefig` draws twice, once for the layout
from matplotlib.figure import Figure
from numpy.typing import NDArray

from clipcifar.core.terminal import cut, harmless
from clipcifar.evaluation.calibration import Bin
from clipcifar.evaluation.words import Difference

INK, MUTED, LINE, ACCENT = "#010101", "#020202", "#030303", "#040404"
SERIES = ("#111111", "#121212", "#131313", "#141414", "#151515", "#161616", "#171717")
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    LINE: "line",
    ACCENT: "accent",
    **{colour: f"series-{i}" for i, colour in enumerate(SERIES, start=1)},
}
_STYLES = (("-", "o"), ("--", "s"), (":", "^"))  # of lines and their marks, as colours come again
_STYLE_COLOUR = re.compile(f"(fill|stroke): ({'|'.join(_VARIABLES)})")
_TAG = re.compile(r"<[^>]*>")
WIDTH = 4.4  # inches of 96 px: a chart fits a narrow phone nearly at its own size
_STYLE: Any = {  # matplotlib names every key in the type it wants
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": INK,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
_LONGEST = 52  # characters of a template in a chart


def shortened(text: str, length: int = _LONGEST) -> str:
    """Text cut to a width, that of a Latin letter being 1, with an ellipsis where something was cut."""
    return cut(harmless(text), length)


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="none")
    return figure, figure.add_subplot()


def _svg(figure: Figure, *, name: str, description: str) -> Markup:
    """The drawing as an element to put into the page; `name` keeps its ids apart from other charts'."""
    stream, canvas = io.StringIO(), cast(Any, FigureCanvasSVG(figure))
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": name}):
        warnings.simplefilter("ignore")  # a glyph that matplotlib's font lacks is drawn by the browser's
        canvas.print_svg(stream, metadata={"Date": None, "Creator": None})
    body = _TAG.sub(_in_the_pages_colours, stream.getvalue()).partition("<svg")[2]
    return Markup(f'<svg role="img" aria-label="{escape(harmless(description))}"{body}')  # noqa: S704  matplotlib escapes its text


def _in_the_pages_colours(tag: re.Match[str]) -> str:
    """A tag with variables for stand-in colours, and without the ids that are the same in every chart."""
    coloured = _STYLE_COLOUR.sub(lambda match: f"{match[1]}: var(--{_VARIABLES[match[2]]})", tag[0])
    return coloured.replace("<g id=", "<g data-part=")


def intervals(
    estimates: Mapping[str, tuple[float, float, float]],
    *,
    name: str,
    description: str,
    x_label: str,
    zero: bool,
) -> Markup:
    """Values with the bounds of their intervals, from top to bottom; with `zero`, a line at no difference."""
    values, lows, highs = zip(*estimates.values(), strict=True)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(0.34 * len(estimates) + 0.75)
        rows = range(len(estimates))
        axes.hlines(rows, lows, highs, color=ACCENT, linewidth=2)
        axes.scatter(values, rows, color=ACCENT, s=34, zorder=3)
        if zero:
            axes.axvline(0, color=MUTED, linewidth=1, linestyle="--")
        axes.set_yticks(rows, [shortened(text, 31) for text in estimates])
        axes.set_ylim(len(estimates) - 0.5, -0.5)
        axes.set_xlabel(x_label)
        axes.grid(visible=False, axis="y")
        return _svg(figure, name=name, description=description)


def differences(deltas: Mapping[str, Difference], **about: str) -> Markup:
    """Differences in points with their intervals, beside a line at none; `about` as for `intervals`."""
    rows = {name: (100 * d.difference, 100 * d.low, 100 * d.high) for name, d in deltas.items()}
    return intervals(rows, zero=True, **about)


def accuracies(metrics_of: Mapping[str, Mapping[str, Any]], **about: str) -> Markup:
    """Accuracies with their intervals, of metrics by name; `about` as for `intervals`."""
    bounds = {name: metrics["accuracy_ci95"] for name, metrics in metrics_of.items()}
    rows = {name: (metrics_of[name]["accuracy"], ci["low"], ci["high"]) for name, ci in bounds.items()}
    return intervals(rows, zero=False, **about)


def ranking_bars(rows: Sequence[dict[str, Any]], *, active: str, name: str) -> Markup:
    """One horizontal bar per template: points gained over the active set, with the interval."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(0.4 * len(rows) + 0.7)
        y = np.arange(len(rows))
        axes.barh(y + 0.18, [row["points"] for row in rows], height=0.3, color=ACCENT, alpha=0.75)
        lows, highs = ([row[bound] for row in rows] for bound in ("low", "high"))
        axes.hlines(y + 0.18, lows, highs, color=INK, linewidth=1)
        at_the_left: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 8}
        for i, row in enumerate(rows):
            axes.text(0, i - 0.2, shortened(row["template"]), **at_the_left)
        axes.axvline(0, color=MUTED, linewidth=1)
        axes.set_yticks([])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(f"points over {shortened(active, 20)}, on train")
        axes.grid(visible=False, axis="y")
        description = f"Bars: the {len(rows)} best single templates by their gain over {active}"
        return _svg(figure, name=name, description=description)


def class_bars(class_names: Sequence[str], accuracies: Mapping[str, Sequence[float]], *, name: str) -> Markup:
    """Accuracy within each class, one bar per method.

    Args:
        class_names: the classes to show.
        accuracies: by method, one value for each of them.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(0.11 * len(accuracies) * len(class_names) + 0.9)
        rows, thickness = np.arange(len(class_names)), 0.8 / len(accuracies)
        for i, (method, values) in enumerate(accuracies.items()):
            offset = (i - (len(accuracies) - 1) / 2) * thickness
            colour = SERIES[i % len(SERIES)]
            axes.barh(rows + offset, values, height=thickness * 0.9, color=colour, label=method)
        axes.set_yticks(rows, [shortened(text, 18) for text in class_names])
        axes.set_ylim(len(class_names) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xlabel("accuracy within the class")
        axes.grid(visible=False, axis="y")
        figure.legend(loc="outside upper left", ncols=2)
        return _svg(figure, name=name, description="Bars: accuracy within each class, by method")


def confusion(shares: NDArray[np.float64], *, name: str, method: str) -> Markup:
    """A confusion matrix as a picture, since a drawing of every cell would weigh megabytes.

    Args:
        shares: (C, C) of each actual class, by predicted class.
        method: for the description.
    """
    with matplotlib.rc_context({**_STYLE, "axes.grid": False}):
        figure, axes = _figure(WIDTH)
        blue = np.broadcast_to(np.array([0.25, 0.53, 0.85]), (*shares.shape, 3))
        axes.imshow(np.concatenate([blue, shares[..., None] ** 0.5], axis=2), interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel("predicted")
        axes.set_ylabel("actual")
        description = f"Confusion matrix of {method}, per cent of each actual class"
        return _svg(figure, name=name, description=description)


class Line(NamedTuple):
    """A curve: x values, and at each a value and, for a band, its bounds."""

    xs: Sequence[float]
    ys: Sequence[float]
    lows: Sequence[float] = ()
    highs: Sequence[float] = ()


def curves(
    series: Mapping[str, Line],
    *,
    name: str,
    description: str,
    x_label: str,
    y_label: str,
    x_ticks: Mapping[float, str] | None = None,
    levels: Mapping[str, float] | None = None,
) -> Markup:
    """Lines with a band around each, such as mean and spread over draws.

    Args:
        x_ticks: what to write at which x; matplotlib chooses where it is None.
        levels: one or two values to compare with, by name.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(3.2 + 0.09 * len(series))  # the legend is part of the height
        for i, (label, (xs, ys, lows, highs)) in enumerate(series.items()):
            colour, (style, mark) = SERIES[i % len(SERIES)], _STYLES[i // len(SERIES) % len(_STYLES)]
            axes.fill_between(xs, lows or ys, highs or ys, color=colour, alpha=0.15, linewidth=0)
            axes.plot(xs, ys, color=colour, linestyle=style, marker=mark, markersize=4, label=label)
        for style, (label, level) in zip(("--", "-."), (levels or {}).items(), strict=False):
            axes.axhline(level, color=INK, linewidth=1, linestyle=style, label=label)
        if x_ticks is not None:
            axes.set_xticks(list(x_ticks), list(x_ticks.values()))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        figure.legend(loc="outside upper left", ncols=2)
        return _svg(figure, name=name, description=description)


def reliability(raw: Sequence[Bin], cooled: Sequence[Bin], *, name: str, method: str) -> Markup:
    """Accuracy by confidence, as it is and after the temperature; a larger dot stands for more images."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(3.0)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
        for bins, colour, style, label in (
            (raw, SERIES[1], "-", "as it is"),
            (cooled, SERIES[0], "--", "after temperature"),
        ):
            xs, ys = [item.confidence for item in bins], [item.accuracy for item in bins]
            sizes = [6 + 120 * item.n / sum(other.n for other in bins) for item in bins]
            axes.plot(xs, ys, color=colour, linestyle=style, label=label)
            axes.scatter(xs, ys, color=colour, s=sizes, zorder=3)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
        axes.legend(loc="upper left")
        return _svg(figure, name=name, description=f"Reliability diagram of {method}: accuracy by confidence")
