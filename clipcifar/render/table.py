"""The table of all methods, as markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clipcifar.core import terminal
from clipcifar.evaluation.headline import of_images
from clipcifar.evaluation.names import METHODS
from clipcifar.evaluation.words import interval, p_text, points

if TYPE_CHECKING:
    from clipcifar.evaluation.compare import NamedDifference


_BORDER = re.compile(r"(?<!\\)\|")  # which no backslash protects


def escape(text: str) -> str:
    """Text as it is in a markdown table cell: no markup, no cell border."""
    for character in "\\`*{}[]<>()#+!|~":
        text = text.replace(character, "\\" + character)
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)  # within a word it is no markup
    return " ".join(text.split())


def markdown_table(header: list[str], rows: list[list[str]], *, text_columns: int = 1) -> list[str]:
    """A markdown table whose columns line up in a terminal too; the first columns left, numbers right.

    No cell, whatever names it holds, ends early, breaks the line or steers the terminal.
    """
    shown = [[_BORDER.sub(r"\\|", terminal.one_line(cell)) for cell in row] for row in (header, *rows)]
    widths = [max(map(terminal.width, column)) for column in zip(*shown, strict=True)]

    def line(cells: list[str]) -> str:
        padded = [
            terminal.left(cell, width) if i < text_columns else terminal.right(cell, width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * (width + 1) + ("-" if i < text_columns else ":") for i, width in enumerate(widths)]
    return [line(shown[0]), "|" + "|".join(rule) + "|", *map(line, shown[1:])]


def interval_text(metrics: Mapping[str, Any]) -> str:
    """The 95 % interval of an accuracy."""
    return f"{metrics['accuracy_ci95']['low']:.4f}–{metrics['accuracy_ci95']['high']:.4f}"


def seeds_text(metrics: Mapping[str, Any]) -> str:
    """Mean and standard deviation over seeds, empty for a method without; a single seed has no deviation."""
    if not (seeds := metrics.get("seeds")):
        return ""
    spread = f" ± {seeds['accuracy_std']:.4f}" if seeds["n"] > 1 else ""
    return f"{seeds['accuracy_mean']:.4f}{spread} ({seeds['n']})"


def top5_column(metrics: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The head of a column and each method's cell in it; nothing where no method has so many classes."""
    measured = [entry.get("top5_accuracy") for entry in metrics.values()]
    if measured == [None] * len(measured):
        return [], [[] for _ in measured]
    return ["top-5"], [["–" if value is None else f"{value:.4f}"] for value in measured]


def _images(metrics: Mapping[str, Any]) -> str:
    """The number of test images, and the subset that was asked for, if one was."""
    limit = metrics["max_per_class"]
    return f"{metrics['n']} (at most {limit} per class)" if limit else str(metrics["n"])


def methods_table(
    metrics: Mapping[str, Mapping[str, Any]], *, names: Mapping[str, str] = METHODS
) -> list[str]:
    """One row per method: accuracy with its interval, top-5 of many classes, seeds, mean over classes,
    calibration, test images.

    Args:
        metrics: each method's metrics file.
        names: what the methods are called.
    """
    rows = []
    top5_head, top5_cells = top5_column(metrics)
    for (method, entry), top5 in zip(metrics.items(), top5_cells, strict=True):
        rows.append(
            [
                names[method] + of_images(entry),
                f"{entry['accuracy']:.4f}",
                interval_text(entry),
                *top5,
                seeds_text(entry),
                f"{entry['balanced_accuracy']:.4f}",
                f"{entry['ece']:.4f}",
                f"{entry['nll']:.4f}",
                _images(entry),
            ]
        )
    header = ["method", "top-1", "95 % interval", *top5_head, "mean ± sd (seeds)", "balanced", "ECE", "NLL"]
    return markdown_table([*header, "images"], rows)


def per_class_table(
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    images: Mapping[str, int] | None = None,
    shown: Callable[[str], str] = escape,
    names: Mapping[str, str] = METHODS,
) -> list[str]:
    """One row per class, one column per method: top-1 accuracy within the class.

    Args:
        metrics: each method's numbers.
        images: test images by class, where they are known.
        shown: how a class is written; `escape` for markdown, `str` for a terminal.
        names: what the methods are called.

    Methods may be of other classes than the first, where the dataset changed and not all ran since; what one
    has no images of is a dash.
    """
    classes = dict.fromkeys(name for entry in metrics.values() for name in entry["per_class"])
    rows = [
        [
            shown(name),
            *([str(images[name])] if images else []),
            *(
                f"{entry['per_class'][name]:.4f}" if name in entry["per_class"] else "–"
                for entry in metrics.values()
            ),
        ]
        for name in classes
    ]
    return markdown_table(
        ["class", *(["images"] if images else []), *(names[method] for method in metrics)], rows
    )


def prompt_sets_table(prompt_sets: Mapping[str, Mapping[str, Any]], active: str) -> list[str]:
    """One row per prompt set, the best on the train images first; the active one is marked."""
    ranked = sorted(prompt_sets.items(), key=lambda item: -item[1]["train"]["accuracy"])
    rows = [
        [
            escape(name) + (" (active)" if name == active else ""),
            str(entry["n_sentences"]),
            f"{entry['train']['accuracy']:.4f}",
            f"{entry['accuracy']:.4f}",
            interval_text(entry["test"]),
            f"{entry['test']['balanced_accuracy']:.4f}",
        ]
        for name, entry in ranked
    ]
    return markdown_table(
        ["prompt set", "sentences", "train (choose by)", "test (report)", "95 % interval", "balanced"], rows
    )


def differences_table(differences: Sequence[NamedDifference]) -> list[str]:
    """One row per prompt set: points better than the active one, interval, discordant images, p."""
    rows = [
        [
            escape(item.name),
            points(item.paired.difference, 2),
            interval(item.paired),
            str(item.paired.only_b),
            str(item.paired.only_a),
            p_text(item.p_holm),
        ]
        for item in sorted(differences, key=lambda item: -item.paired.difference)
    ]
    header = ["prompt set", "points", "95 % interval", "won", "lost", "p"]
    return markdown_table(header, rows)


def report(
    metrics: Mapping[str, Mapping[str, Any]],
    prompt_sets: Mapping[str, Mapping[str, Any]],
    differences: Sequence[NamedDifference],
    *,
    active: str,
    images: Mapping[str, int],
    dataset: str,
    model: str,
    left_out: str = "",
) -> str:
    """The whole report as markdown.

    Args:
        metrics: each method's numbers by stage name, in the order to show.
        prompt_sets: the numbers of every prompt set.
        differences: every other prompt set against the active one, on the test images.
        active: the active prompt set.
        images: test images by class, under the keys of `per_class`.
        dataset, model: one line each on what the numbers are of.
        left_out: one on the prompt sets that are none of these, or nothing.
    """
    lines = [
        "# Methods",
        "",
        f"Dataset: {escape(dataset)}",
        f"Model: {escape(model)}",
        f"Prompt set: {escape(active)}",
        "",
        *methods_table(metrics),
        "",
        "## Per class (top-1)",
        "",
        *per_class_table(metrics, images=images),
        "",
        "## Prompt sets (zero-shot top-1)",
        "",
        *prompt_sets_table(prompt_sets, active),
        "",
        *([escape(left_out), ""] if left_out else []),
    ]
    if differences:
        how = "image by image on test (exact McNemar, Holm-corrected over the sets)"
        lines += [f"Against {escape(active)}, {how}:", "", *differences_table(differences)]
    return "\n".join(lines) + "\n"
