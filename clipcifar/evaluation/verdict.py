"""Paired statistics in one sentence for a person."""

from __future__ import annotations

from clipcifar.evaluation.compare import LEVEL, Comparison, NamedDifference, Paired
from clipcifar.evaluation.words import p_said, points, with_interval


def verdict(comparison: Comparison, *, name_a: str, name_b: str, p_value: float | None = None) -> str:
    """One sentence for a person: who is better, by how much, how sure, and in which classes.

    Args:
        comparison: of B with A.
        name_a, name_b: what the two are called.
        p_value: corrected, where this is one of several comparisons; else the comparison's own.
    """
    overall = comparison.overall
    if not overall.only_a and not overall.only_b:
        return f"{name_b} and {name_a} are right on exactly the same images."
    shown_p = overall.p_value if p_value is None else p_value
    head = statement(overall, shown_p, name_a=name_a, name_b=name_b)
    moved = [item for item in comparison.per_class if item.p_holm < LEVEL]
    worse = [item for item in moved if item.paired.difference < 0]
    better = [item for item in moved if item.paired.difference > 0]
    return f"{head}; {_listed(worse, 'worse')}; {_listed(better, 'better')}."


def statement(paired: Paired, p_value: float, *, name_a: str, name_b: str) -> str:
    """Whether B is better than A, by how much and how sure, without a full stop.

    Args:
        paired: B minus A.
        p_value: of `paired`, or corrected where it is one of several.
    """
    corrected = " after Holm's correction" if p_value != paired.p_value else ""
    said = f"{with_interval(paired, unit=' points')}, {p_said(p_value)}{corrected}"
    if p_value < LEVEL:
        return f"{name_b} is {'better' if paired.difference > 0 else 'worse'} than {name_a}: {said}"
    return f"no difference shown between {name_b} and {name_a}: {said}"


def _listed(classes: list[NamedDifference], word: str) -> str:
    """The classes that are shown to be worse or better, the largest difference first."""
    ordered = sorted(classes, key=lambda item: -abs(item.paired.difference))
    return (
        ", ".join(f"{item.name} {points(item.paired.difference)}" for item in ordered)
        or f"no class is {word}"
    )
