"""The tables of the study `models`, for a terminal and for its page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipcifar.evaluation.words import p_text, points
from clipcifar.render.table import escape, interval_text, markdown_table

ACCURACY = ["model", "train (choose by)", "test", "95 % interval", "points", "p"]
PROBE = ["model", "val (choose by)", "test", "95 % interval", "points", "p"]
COST = ["model", "images/s", "image tower, M", "whole, M", "file, MB", "input", "dimension"]
_CHOSEN_ON = {"zero_shot": "train", "linear_probe": "val"}


def chosen_on(entries: Mapping[str, Any], *, method: str) -> str:
    """The split whose accuracy one chooses by; "test" where there is no other, which only ranks then."""
    split = _CHOSEN_ON[method]
    return split if all(split in entry[method] for entry in entries.values()) else "test"


def accuracy_rows(entries: Mapping[str, Any], *, method: str) -> list[list[str]]:
    """One row per backbone, the best on what one chooses by first."""
    split = chosen_on(entries, method=method)
    ranked = sorted(entries.items(), key=lambda item: -item[1][method][split]["accuracy"])
    rows = []
    for label, entry in ranked:
        against = entry[method].get("vs_own")
        rows.append(
            [
                label,
                f"{entry[method][split]['accuracy']:.4f}" if split != "test" else "–",
                f"{entry[method]['test']['accuracy']:.4f}",
                interval_text(entry[method]["test"]),
                points(against["difference"], 2) if against else "–",
                p_text(against["p_holm"]) if against else "–",
            ]
        )
    return rows


def cost_rows(entries: Mapping[str, Any], speeds: Mapping[str, float]) -> list[list[str]]:
    """One row per backbone, the fastest first: speed of its image tower here, and size."""
    ranked = sorted(entries.items(), key=lambda item: -speeds[item[0]])
    return [
        [
            label,
            f"{speeds[label]:,.3g}" if speeds[label] < 1000 else f"{speeds[label]:,.0f}",
            f"{entry['size']['n_image_parameters'] / 1e6:,.2f}",
            f"{entry['size']['n_parameters'] / 1e6:,.2f}",
            f"{entry['size']['n_bytes'] / 1e6:,.1f}",
            f"{entry['size']['input_height']} × {entry['size']['input_width']}",
            str(entry["size"]["dimension"]),
        ]
        for label, entry in ranked
    ]


def as_text(entries: Mapping[str, Any], timing: Mapping[str, Any]) -> str:
    """All tables as markdown that lines up in a terminal."""
    methods = [("zero_shot", "zero-shot", ACCURACY), ("linear_probe", "linear probe", PROBE)]
    measured = next(iter(entries.values()))
    tables = [
        *(
            (title, header, accuracy_rows(entries, method=method))
            for method, title, header in methods
            if method in measured
        ),
        (f"cost, on {timing['device']}", COST, cost_rows(entries, timing["images_per_s"])),
    ]
    parts = []
    for title, header, rows in tables:
        shown = [[escape(row[0]), *row[1:]] for row in rows]
        parts.append("\n".join([f"{title}:", "", *markdown_table(header, shown)]))
    return "\n\n".join(parts)


def undominated(entries: Mapping[str, Any], speeds: Mapping[str, float], *, method: str) -> list[str]:
    """The labels than which no other is both at least as fast and as accurate, and better in one.

    Accuracy is that on what one chooses by, so that test plays no part where there is another split.
    """
    split = chosen_on(entries, method=method)
    score = {label: entry[method][split]["accuracy"] for label, entry in entries.items()}

    def beats(a: str, b: str) -> bool:
        both = score[a] >= score[b] and speeds[a] >= speeds[b]
        return both and (score[a] > score[b] or speeds[a] > speeds[b])

    return [label for label in entries if not any(beats(other, label) for other in entries)]


def best(entries: Mapping[str, Any], *, method: str) -> str:
    """The label of the best backbone on what one chooses by, the first of equals."""
    split = chosen_on(entries, method=method)
    return max(entries, key=lambda label: entries[label][method][split]["accuracy"])
