"""A comparison as tables in markdown, which read well in a terminal too, or as plain data or rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from clipcifar.api.comparing import Compared
from clipcifar.evaluation.compare import Paired
from clipcifar.evaluation.signs import LEVEL, mcnemar_exact
from clipcifar.evaluation.words import interval, p_text, points
from clipcifar.render.table import escape, markdown_table

_NAMED = 6  # classes in a note
_BALANCED = (
    "balanced: the mean of the classes' accuracies, each class counting alike; its interval is normal, and",
    "takes no class for certain: it is wide where classes are small, even where nothing differs.",
)
_SEEDS = (
    "seeds: the mean of each side's seeds, not the seed that val chose; interval and p cover other seeds",
    "and other test images alike (crossed, by Cochran and Cox).",
)


def _row(name: str, paired: Paired, p_value: float) -> list[str]:
    return [
        name,
        str(paired.n),
        f"{paired.accuracy_a:.4f}",
        f"{paired.accuracy_b:.4f}",
        points(paired.difference, 2),
        interval(paired),
        str(paired.only_a),
        str(paired.only_b),
        p_text(p_value),
    ]


def as_table(comparison: Compared, *, shown: Callable[[str], str] = escape) -> str:
    """Verdict, the difference overall and per class, and the largest flows between classes.

    Args:
        comparison: of B with A.
        shown: how a name is written; `escape` for markdown, `str` for a terminal.
    """
    a, b = shown(comparison.name_a), shown(comparison.name_b)
    header = ["", "images", "A", "B", "B - A (points)", "95 % interval", "only A right", "only B right", "p"]
    rows = [_row("all", comparison.overall, comparison.overall.p_value)]
    if balanced := comparison.overall.balanced:
        values = [f"{balanced.accuracy_a:.4f}", f"{balanced.accuracy_b:.4f}", points(balanced.difference, 2)]
        rows.append(["balanced", "–", *values, interval(balanced), "–", "–", "–"])
    if over := comparison.seeds and comparison.seeds.crossed:
        values = [f"{over.accuracy_a:.4f}", f"{over.accuracy_b:.4f}", points(over.difference, 2)]
        rows.append(["seeds", "–", *values, interval(over), "–", "–", p_text(over.p_value)])
    rows += [_row(shown(item.name), item.paired, item.p_holm) for item in comparison.per_class]
    lines = [
        f"A = {a}, B = {b}",
        "",
        *(line for note in comparison.notes for line in (f"Note: {shown(note)}", "")),
        comparison.said(shown),
        "",
        *markdown_table(header, rows),
        "",
    ]
    lines += [
        "The row all is the primary claim; the classes are a second family, Holm-corrected among themselves.",
        "p: exact McNemar, by flipping signs. An interval is Bonett and Price's, of one comparison alone: it",
        "holds 0 where its own p is 0.05 or more, and may leave 0 out where the corrected one is.",
        *(_BALANCED if balanced else []),
        *(_SEEDS if over else []),
    ]
    if small := [item for item in comparison.per_class if mcnemar_exact(item.paired.n, 0) >= LEVEL]:
        named = ", ".join(f"{shown(item.name)} ({item.paired.n})" for item in small[:_NAMED])
        more = f" and {len(small) - _NAMED} more" if len(small) > _NAMED else ""
        lines.append(f"Too few images to show any difference, were all of them lost: {named}{more}.")
    if comparison.flows:
        flows = [[shown(f.label), shown(f.from_a), shown(f.to_b), str(f.n)] for f in comparison.flows]
        lines += ["", *markdown_table(["images of", "A says", "B says", "images"], flows, text_columns=3)]
    return "\n".join(lines)


def as_data(comparison: Compared) -> dict[str, Any]:
    """Everything in plain dicts and lists."""
    numbers = asdict(comparison)
    return {
        "a": numbers.pop("name_a"),
        "b": numbers.pop("name_b"),
        "origin_a": numbers.pop("origin_a"),
        "origin_b": numbers.pop("origin_b"),
        "notes": list(numbers.pop("notes")),
        "verdict": comparison.verdict,
        **numbers,
    }


def as_rows(comparison: Compared) -> list[dict[str, Any]]:
    """The difference in accuracy, in balanced accuracy where that is another thing, over seeds, and by class.

    Returns:
        Rows of a, b and `of`: all, balanced, seeds or class; then the class, if one, and its numbers.
    """
    sides = {"a": comparison.name_a, "b": comparison.name_b}
    rows = [{"of": "all", "class": None, **asdict(comparison.overall), "p_holm": None}]
    if balanced := comparison.overall.balanced:
        rows.append({"of": "balanced", **asdict(balanced)})
    if over := comparison.seeds and comparison.seeds.crossed:
        rows.append({"of": "seeds", **asdict(over)})
    rows += [
        {"of": "class", "class": item.name, **asdict(item.paired), "p_holm": item.p_holm}
        for item in comparison.per_class
    ]
    nested = ("balanced", "mover")
    return [{**sides, **{key: row[key] for key in row if key not in nested}} for row in rows]
