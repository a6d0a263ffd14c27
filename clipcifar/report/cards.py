"""The galleries of the page: what changed between prompt sets image by image, and the hardest images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clipcifar.evaluation import compare
from clipcifar.evaluation.verdict import verdict
from clipcifar.render.pictures import Card, Pictures
from clipcifar.report import gallery
from clipcifar.report.facts import Facts
from clipcifar.report.gallery import Flip, Hard
from clipcifar.report.verdicts import sentence

FLIPS_SHOWN, HARD_SHOWN, SETS_SHOWN = 8, 5, 6


def changes(facts: Facts, pictures: Pictures) -> list[dict[str, Any]]:
    """Every other prompt set against the active one, the largest number of changed images first."""
    names, labels, sets = facts.dataset.class_names, facts.sets.labels, facts.sets
    differences = sorted(facts.set_differences, key=lambda d: -(d.paired.only_a + d.paired.only_b))
    set_changes = []
    for item in differences[:SETS_SHOWN]:
        won, lost = gallery.flips(
            sets.scores[facts.active], sets.scores[item.name], labels, limit=FLIPS_SHOWN
        )
        comparison = compare.compare(
            sets.predicted[facts.active],
            sets.predicted[item.name],
            labels,
            class_names=names,
            copies=sets.copies,
        )
        said = verdict(comparison, name_a=facts.active, name_b=item.name, p_value=item.p_holm)
        num_won, num_lost = item.paired.only_b, item.paired.only_a
        set_changes.append(
            {
                "name": item.name,
                "title": f"{item.name} instead of {facts.active}: {num_won:,} won, {num_lost:,} lost",
                "verdict": sentence(said),
                "won": [_flip_card(facts, pictures, flip, item.name) for flip in won],
                "lost": [_flip_card(facts, pictures, flip, item.name) for flip in lost],
                "num_won": f"{num_won:,}",
                "num_lost": f"{num_lost:,}",
            }
        )
    return set_changes


def _flip_card(facts: Facts, pictures: Pictures, flip: Flip, other: str) -> Card:
    names = facts.dataset.class_names
    return Card(
        source=pictures.data_uri(flip.row),
        alt=f"test image {facts.dataset.test.ids[flip.row]}, {names[flip.label]}",
        title=names[flip.label],
        lines=[
            f"{facts.active}: {names[flip.said_a]} {flip.sure_a:.2f}",
            f"{other}: {names[flip.said_b]} {flip.sure_b:.2f}",
        ],
        file=facts.dataset.test.ids[flip.row],
    )


def hardest(facts: Facts, pictures: Pictures) -> list[tuple[str, Sequence[Card]]]:
    """By class: its name, and its hardest images."""
    names = facts.dataset.class_names
    hard_images = gallery.hardest(
        {method: predictions.scores for method, predictions in facts.predictions.items()},
        facts.sets.labels,
        per_class=HARD_SHOWN,
        num_classes=len(names),
    )
    return [
        (names[label], [_hard_card(facts, pictures, hard) for hard in hard_images[label]])
        for label in facts.shown_classes()
    ]


def _hard_card(facts: Facts, pictures: Pictures, hard: Hard) -> Card:
    names = facts.dataset.class_names
    said = f"called {names[hard.mistaken_for]}" if hard.num_wrong else "(all are right)"
    return Card(
        source=pictures.data_uri(hard.row),
        alt=f"test image {facts.dataset.test.ids[hard.row]}, {names[hard.label]}",
        title=said,
        lines=[
            f"{hard.num_wrong} of {len(facts.predictions)} wrong",
            f"p({names[hard.label]}) {hard.probability:.2f}",
        ],
        file=facts.dataset.test.ids[hard.row],
    )
