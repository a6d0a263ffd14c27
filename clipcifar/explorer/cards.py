"""Images and classes as the explorer's pages list them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from clipcifar.evaluation.compare import Comparison
from clipcifar.evaluation.signs import LEVEL
from clipcifar.evaluation.words import p_text, with_interval
from clipcifar.explorer.answers import TRIED, Answers, Wanted
from clipcifar.explorer.results import Results
from clipcifar.render.pictures import Card

FLIPS = 12  # images of either kind beside a trial
MOVED = 10  # classes beside a trial


def card(results: Results, split: str, row: int, by: Answers | None = None, *, said: str = "") -> Card:
    """One image in a gallery, with what a classifier or a line says of it, and its own page behind it."""
    images, names = results.split(split), results.class_names
    label, sample_id = names[images.labels[row]], images.ids[row]
    lines = [said] if said else []
    if by is not None:
        called = names[by.predicted[row]]
        lines.append(
            f"called {called} {by.probability(row):.2f}"
            if called != label
            else f"right {by.probability(row):.2f}"
        )
    return Card(
        source=results.picture(split, row),
        alt=f"{split} image {sample_id}, {label}",
        title=label,
        lines=lines,
        file=sample_id,
        link=f"/image/{split}/{row}",
    )


class Flips(NamedTuple):
    """The images that a tried prompt wins from the active set, or loses to it; `more` is where all are."""

    title: str
    number: int
    cards: list[Card]
    more: str


def flips(results: Results, answers: Mapping[str, Answers], split: str) -> list[Flips]:
    """Won and lost images of the prompt tried last, where it is surest first."""
    galleries = []
    for title, outcome in (("Won", "won"), ("Lost", "lost")):
        wanted = Wanted(split=split, by=TRIED, against="zero_shot", outcome=outcome, order="sure")
        rows = wanted.rows(results.split(split).labels, answers)
        cards = [card(results, split, row, answers[TRIED]) for row in rows[:FLIPS].tolist()]
        galleries.append(Flips(title, len(rows), cards, f"/images?{wanted.query}"))
    return galleries


def moved(comparison: Comparison) -> list[list[str]]:
    """The classes whose accuracy moves most, as rows of a table; those shown to differ first."""
    changed = [item for item in comparison.per_class if item.paired.only_a or item.paired.only_b]
    order = sorted(changed, key=lambda item: (item.p_holm >= LEVEL, -abs(item.paired.difference)))
    return [
        [
            item.name,
            f"{item.paired.n:,}",
            f"{item.paired.accuracy_a:.4f}",
            f"{item.paired.accuracy_b:.4f}",
            with_interval(item.paired),
            f"{item.paired.only_b:,}",
            f"{item.paired.only_a:,}",
            p_text(item.p_holm),
        ]
        for item in order[:MOVED]
    ]
