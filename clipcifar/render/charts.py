"""The page's charts: what is drawn where. How a drawing becomes part of a page is told in `svg`.

A mark that is pointed at says its values. Where words stand is told in `layout`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from clipcifar.evaluation.calibration import Bin
from clipcifar.evaluation.words import Difference
from clipcifar.render.layout import (
    answering_row,
    legend,
    line_at_zero,
    name_rows,
    rows_figure,
    shortened as shortened,
)
from clipcifar.render.svg import (
    ACCENT,
    ALONE,
    BESIDE,
    INK,
    MUTED,
    SERIES,
    Size,
    drawn,
    figure,
    hovered,
)

_STYLES = (("-", "o"), ("--", "s"), (":", "^"))  # of lines and their marks, as colours come again
_REACH = 14  # pixels across, in which a point on a line answers


def intervals(
    estimates: Mapping[str, tuple[float, float, float]],
    *,
    name: str,
    description: str,
    x_label: str,
    zero: bool,
) -> Markup:
    """Values with the bounds of their intervals, from top to bottom; with `zero`, a line at no difference."""
    digits = "{:+.2f}" if zero else "{:.4f}"

    def draw(size: Size) -> Figure:
        made, axes = rows_figure(list(estimates), size)
        for row, (label, estimate) in enumerate(estimates.items()):
            value, low, high = map(digits.format, estimate)
            answering_row(axes, row, f"{label}: {value} [{low}, {high}]")
            axes.hlines(row, estimate[1], estimate[2], color=ACCENT, linewidth=2.5)
            axes.scatter(estimate[0], row, color=ACCENT, s=50, zorder=3)
        if zero:
            line_at_zero(axes, len(estimates), size)
        name_rows(axes, list(estimates), size)
        axes.set_xlabel(x_label)
        return made

    return drawn(draw, name=name, description=description)


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
    labels = [row["template"] for row in rows]

    def draw(size: Size) -> Figure:
        made, axes = rows_figure(labels, size)
        for i, row in enumerate(rows):
            bounds = f"[{row['low']:+.2f}, {row['high']:+.2f}]"
            answering_row(axes, i, f"{row['template']}: {row['points']:+.2f} {bounds}")
            axes.barh(i + 0.1 * size.above, row["points"], height=0.36, color=ACCENT, alpha=0.75)
            axes.hlines(i + 0.1 * size.above, row["low"], row["high"], color=INK, linewidth=1.2)
        line_at_zero(axes, len(rows), size)
        name_rows(axes, labels, size)
        axes.set_xlabel(f"points over {shortened(active, 20)}, on train")
        return made

    description = f"Bars: the {len(rows)} best single templates by their gain over {active}"
    return drawn(draw, name=name, description=description)


def class_bars(class_names: Sequence[str], accuracies: Mapping[str, Sequence[float]], *, name: str) -> Markup:
    """Accuracy within each class, one bar per method.

    Args:
        class_names: the classes to show.
        accuracies: by method, one value for each of them.
    """

    def draw(size: Size) -> Figure:
        made, axes = figure(size, 48 + (7.5 * len(accuracies) + 5) * len(class_names))
        rows, thickness = np.arange(len(class_names)), 0.8 / len(accuracies)
        for i, (method, values) in enumerate(accuracies.items()):
            offset = (i - (len(accuracies) - 1) / 2) * thickness
            colour = SERIES[i % len(SERIES)]
            bars = axes.barh(rows + offset, values, height=thickness * 0.9, color=colour, label=method)
            for bar, label, value in zip(bars, class_names, values, strict=True):
                bar.set_gid(hovered(f"{label}, {method}: {value:.3f}"))
        axes.set_yticks(rows, [shortened(text, 18 if size.above else 40) for text in class_names])
        axes.set_ylim(len(class_names) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xlabel("accuracy within the class")
        axes.grid(visible=False, axis="y")
        legend(made, list(accuracies), size)
        return made

    return drawn(draw, name=name, description="Bars: accuracy within each class, by method")


def confusion(shares: NDArray[np.float64], *, name: str, method: str) -> Markup:
    """A confusion matrix as a picture, since a drawing of every cell would weigh megabytes.

    Args:
        shares: (C, C) of each actual class, by predicted class.
        method: for the description.
    """

    def draw(size: Size) -> Figure:
        made, axes = figure(size, size.width)
        blue = np.broadcast_to(np.array([0.25, 0.53, 0.85]), (*shares.shape, 3))
        axes.imshow(np.concatenate([blue, shares[..., None] ** 0.5], axis=2), interpolation="nearest")
        axes.grid(visible=False)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel("predicted")
        axes.set_ylabel("actual")
        return made

    description = f"Confusion matrix of {method}, per cent of each actual class"
    return drawn(draw, name=name, description=description, sizes=BESIDE)


class Line(NamedTuple):
    """A curve: x values, and at each a value and, for a band, its bounds."""

    xs: Sequence[float]
    ys: Sequence[float]
    lows: Sequence[float] = ()
    highs: Sequence[float] = ()


def _points(axes: Axes, xs: Sequence[float], ys: Sequence[float], texts: Sequence[str]) -> None:
    """What each point of a line says, in reach of a pointer."""
    for x, y, text in zip(xs, ys, texts, strict=True):
        axes.plot([x], [y], "o", color=MUTED, alpha=0, markersize=_REACH, zorder=9, gid=hovered(text))


def curves(
    series: Mapping[str, Line],
    *,
    name: str,
    description: str,
    x_label: str,
    y_label: str,
    x_ticks: Mapping[float, str] | None = None,
    levels: Mapping[str, float] | None = None,
    sizes: tuple[Size, ...] = ALONE,
) -> Markup:
    """Lines with a band around each, such as mean and spread over draws.

    Args:
        x_ticks: what to write at which x; matplotlib chooses where it is None.
        levels: one or two values to compare with, by name.
        sizes: `PAIRED` where two charts stand side by side.
    """

    def draw(size: Size) -> Figure:
        made, axes = figure(size, max(260, 0.4 * size.width))
        for i, (label, (xs, ys, lows, highs)) in enumerate(series.items()):
            colour, (style, mark) = SERIES[i % len(SERIES)], _STYLES[i // len(SERIES) % len(_STYLES)]
            axes.fill_between(xs, lows or ys, highs or ys, color=colour, alpha=0.15, linewidth=0)
            axes.plot(xs, ys, color=colour, linestyle=style, marker=mark, markersize=5, label=label)
        for style, (label, level) in zip(("--", "-."), (levels or {}).items(), strict=False):
            axes.axhline(level, color=INK, linewidth=1, linestyle=style, label=label)
        for label, (xs, ys, *_) in series.items():  # above all lines
            places = [(x_ticks or {}).get(x, f"{x:g}") for x in xs]
            _points(axes, xs, ys, [f"{label}, {at}: {y:.4f}" for at, y in zip(places, ys, strict=True)])
        if x_ticks is not None:
            axes.set_xticks(list(x_ticks), list(x_ticks.values()))
        else:
            axes.xaxis.set_major_locator(MaxNLocator(size.width // 66, steps=[1, 2, 5, 10]))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        legend(made, [*series, *(levels or {})], size)
        return made

    return drawn(draw, name=name, description=description, sizes=sizes)


def reliability(raw: Sequence[Bin], cooled: Sequence[Bin], *, name: str, method: str) -> Markup:
    """Accuracy by confidence, as it is and after the temperature; a larger dot stands for more images."""

    def draw(size: Size) -> Figure:
        made, axes = figure(size, 240)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
        lines = {"as it is": (raw, SERIES[1], "-"), "after temperature": (cooled, SERIES[0], "--")}
        for label, (bins, colour, style) in lines.items():
            xs, ys = [item.confidence for item in bins], [item.accuracy for item in bins]
            sizes = [6 + 120 * item.n / sum(other.n for other in bins) for item in bins]
            axes.plot(xs, ys, color=colour, linestyle=style, label=label)
            axes.scatter(xs, ys, color=colour, s=sizes, zorder=3)
            texts = [f"{label}, confidence {x:.2f}: {y:.2f} right" for x, y in zip(xs, ys, strict=True)]
            _points(axes, xs, ys, [f"{text}, n {item.n:,}" for text, item in zip(texts, bins, strict=True)])
        axes.set_xlim(-0.04, 1.04)
        axes.set_ylim(-0.04, 1.04)
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
        legend(made, list(lines), size)
        return made

    about = f"Reliability diagram of {method}: accuracy by confidence"
    return drawn(draw, name=name, description=about, sizes=BESIDE)
