"""What the numbers amount to, in sentences for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clipcifar.evaluation.balance import Balanced
from clipcifar.evaluation.compare import NamedDifference
from clipcifar.evaluation.headline import of_images
from clipcifar.evaluation.names import METHODS
from clipcifar.evaluation.seeds import covers_said
from clipcifar.evaluation.signs import LEVEL
from clipcifar.evaluation.verdict import balanced_said, copies_said, statement, tells_otherwise
from clipcifar.report.ranking import gains_text, is_kept

MOST_NAMED = 6  # prompt sets named in one sentence


def sentence(text: str) -> str:
    """Text as a sentence; one that begins with a name, as most do, keeps that as it is."""
    begun = "N" + text[1:] if text.startswith("no difference shown") else text
    return begun.removesuffix(".") + "."


def of_methods(differences: Sequence[NamedDifference], *, reference: str) -> list[str]:
    """One sentence per method against a reference, p values corrected over them, and what those cover."""
    sentences = [
        sentence(statement(item.paired, item.p_holm, name_a=METHODS[reference], name_b=METHODS[item.name]))
        for item in differences
    ]
    return sentences + covers_said([item.name for item in differences])


def of_draws(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One sentence per method that learned from a draw of the images."""
    said = [METHODS[name] + of_images(numbers).replace(",", "", 1) for name, numbers in metrics.items()]
    return [sentence(text) for text in said if text not in METHODS.values()]


def of_sets(differences: Sequence[NamedDifference], *, active: str) -> list[str]:
    """The prompt sets that differ from the active one beyond chance, and how many do not."""
    shown = [item for item in differences if item.p_holm < LEVEL]
    ordered = sorted(shown, key=lambda item: -item.paired.difference)
    sentences = [
        sentence(statement(item.paired, item.p_holm, name_a=active, name_b=item.name)) for item in ordered
    ]
    others = [item.name for item in differences if item.p_holm >= LEVEL]
    if others:
        named = ", ".join(others) if len(others) <= MOST_NAMED else f"{len(others)} other sets"
        said = [f"No difference shown between {active} and {named}"]
        said += [
            f"with {name} balanced accuracy {balanced_said(balanced)}"
            for name, balanced in _unbalanced(differences)
        ]
        sentences.append("; ".join(said) + ".")
    return sentences


def _unbalanced(differences: Sequence[NamedDifference]) -> list[tuple[str, Balanced]]:
    """The sets without a shown difference whose balanced accuracy moves, the largest moves first."""
    unshown = [item for item in differences if item.p_holm >= LEVEL]
    told = [(item.name, tells_otherwise(item.paired)) for item in unshown]
    moved = [(name, balanced) for name, balanced in told if balanced]
    return sorted(moved, key=lambda item: -abs(item[1].difference))[:MOST_NAMED]


def of_ranking(ranking: Mapping[str, Any]) -> str:
    """What the search for prompts found, by a test of its own, and how much of it was luck."""
    if is_kept(ranking):
        return str(ranking["verdict"])
    return (
        f"Best prompts, chosen on train and val, compared alone: {ranking['verdict']} {gains_text(ranking)}"
    )


def of_copies(differences: Sequence[NamedDifference]) -> list[str]:
    """What exact copies among the test images mean for all tests and intervals here, if there are any."""
    lines = sorted({said for item in differences if (said := copies_said(item.paired))})
    return [
        f"{said} The interval of an accuracy alone counts every copy, and is too narrow." for said in lines
    ]


def of_calibration(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """How far the confidences of the methods can be believed, before and after their temperature."""
    parts = [
        f"{METHODS[method]} {entry['ece']:.3f} → {entry['calibrated']['ece']:.3f}"
        for method, entry in metrics.items()
    ]
    return f"Calibration error, raw → after a temperature fitted on val: {', '.join(parts)}."
