"""What a search for prompts found, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipcifar.core.counts import count_of
from clipcifar.core.errors import DataError
from clipcifar.core.files import canonical_json, read_json
from clipcifar.evaluation.words import p_text, points
from clipcifar.render.table import markdown_table

_KEYS = (
    *("active", "kind", "chosen", "by", "verdict", "shown", "n", "gain", "val_accuracy", "set", "best"),
    "candidates",
)
_MEMBERS_SHOWN = 12
_AVERAGES = {"average": "a plain average", "weighted": "a weighted average"}


def read(path: Path) -> dict[str, Any]:
    """Read `data/ranking.json`; DataError when it is missing or not what the search wrote."""
    ranking: dict[str, Any] = read_json(path)
    try:
        if missing := sorted(set(_KEYS) - set(ranking)):
            raise KeyError(", ".join(missing))
        if is_kept(ranking) != (ranking["set"] is None):
            raise ValueError("the set does not fit its kind")
        doubt(ranking)
        summary(ranking, top=len(ranking["candidates"]))  # whoever can tell it all has all
        canonical_json(ranking)  # a number may be none
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"not a ranking of prompts: {error}", where=str(path), fix="run `dvc repro rank_prompts`"
        ) from error
    return ranking


def _is_balanced(ranking: Mapping[str, Any]) -> bool:
    return bool(ranking["by"] == "balanced_accuracy")


def tested_how(ranking: Mapping[str, Any]) -> str:
    """What the p values of the single templates are."""
    test = "at most, by Hoeffding's bound on flipped signs" if _is_balanced(ranking) else "exact McNemar"
    return f"p: {test}, against {ranking['active']}, Holm-corrected over all of them."


def train_header(ranking: Mapping[str, Any]) -> str:
    """What the accuracies on train are called at the head of their column."""
    return "train, balanced" if _is_balanced(ranking) else "train"


def gains_text(ranking: Mapping[str, Any]) -> str:
    """What was gained on train and what is left of it on test."""
    if is_kept(ranking):
        return "Test was asked about no other prompts."
    gain, n = {name: 100 * share for name, share in ranking["gain"].items()}, ranking["n"]
    on_test = f"{gain['test']:+.2f} on the {count_of(n['test'], 'test image')}"
    what = "Gain in balanced accuracy" if _is_balanced(ranking) else "Gain"
    train_images = count_of(n["train"], "train image")
    train = f"{what} over {ranking['active']}: {gain['train']:+.2f} points on the {train_images}"
    if ranking["kind"] in _AVERAGES:
        return f"{train}, to whose labels {_AVERAGES[ranking['kind']]} is not fitted, {on_test}."
    return f"{train} that chose it, {on_test}; optimism {gain['optimism']:+.2f}."


def is_kept(ranking: Mapping[str, Any]) -> bool:
    """Whether the active set is kept: val prefers nothing that was offered to it."""
    return bool(ranking["kind"] == "active")


def doubt(ranking: Mapping[str, Any]) -> str:
    """Where what replaces the active set is not shown to be better; empty where on both, or none does."""
    if is_kept(ranking):
        return ""
    where = " and ".join(f"on {split}" for split in ("val", "test") if not ranking["shown"][split])
    return f"no difference for the better was shown {where}" if where else ""


def on_val_text(ranking: Mapping[str, Any]) -> str:
    """One sentence on what val weighed, the active set for comparison."""
    on_val, where = ranking["val_accuracy"], "Balanced accuracy on val" if _is_balanced(ranking) else "On val"
    return (
        f"{where}: the greedy ensemble {on_val['ensemble']:.4f}, the plain average {on_val['average']:.4f}, "
        f"the weighted average {on_val['weighted']:.4f}, {ranking['active']} {on_val['active']:.4f}."
    )


def chosen_templates(ranking: Mapping[str, Any]) -> list[str]:
    """The templates of the chosen set, the heaviest first, or its sentences class by class; none if kept."""
    values = {"templates": []} if is_kept(ranking) else ranking["set"]
    if "weights" in values:
        weighted = zip(values["templates"], values["weights"], strict=True)
        return [f"{weight:.2f} × {text}" for text, weight in sorted(weighted, key=lambda item: -item[1])]
    if "templates" in values:
        return list(values["templates"])
    return [f"{name}: {' / '.join(own)}" for name, own in values["sentences"].items()]


def template_cells(ranking: Mapping[str, Any], top: int) -> list[list[str]]:
    """The best single templates: text, sets, accuracy, points over the active set, corrected p."""
    return [
        [
            row["template"],
            ", ".join(row["sets"]),
            f"{row['accuracy']:.4f}",
            points(row["difference"], 2),
            p_text(row["p_holm"]),
        ]
        for row in ranking["candidates"][: max(top, 0)]
    ]


def as_data(ranking: Mapping[str, Any], *, top: int | None) -> dict[str, Any]:
    """Everything about the search for a program, in the order in which a person reads it.

    Args:
        top: how many single templates, None for all; `n_candidates` is always how many there were.
    """
    drawn = "best"  # the candidates once more, for a plot
    told = {key: value for key, value in ranking.items() if key not in (drawn, "candidates")}
    candidates = ranking["candidates"]
    return {**told, "doubt": doubt(ranking), "n_candidates": len(candidates), "candidates": candidates[:top]}


def summary(ranking: Mapping[str, Any], *, top: int) -> list[str]:
    """The best single templates, what was chosen, and what test says of it.

    Args:
        ranking: `data/ranking.json`.
        top: how many single templates to show.
    """
    header = ["template", "sets", train_header(ranking), f"points over {ranking['active']}", "p"]
    members = chosen_templates(ranking)
    more = [f"  … and {len(members) - _MEMBERS_SHOWN} more"] if len(members) > _MEMBERS_SHOWN else []
    return [
        f"{count_of(len(ranking['candidates']), 'single template')} on "
        f"{count_of(ranking['n']['train'], 'train image')}:",
        "",
        *markdown_table(header, template_cells(ranking, top), text_columns=2),
        "",
        tested_how(ranking),
        "",
        ranking["verdict"] if is_kept(ranking) else f"Chosen: {ranking['chosen']}",
        *(f"  {member}" for member in members[:_MEMBERS_SHOWN]),
        *more,
        "",
        on_val_text(ranking),
        *([] if is_kept(ranking) else [f"On test, asked once: {ranking['verdict']}"]),
        gains_text(ranking),
    ]
