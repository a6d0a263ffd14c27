"""Paired statistics in one sentence for a person."""

from __future__ import annotations

from collections.abc import Sequence

from clipcifar.core.counts import count_of
from clipcifar.evaluation.balance import Balanced, Measure
from clipcifar.evaluation.compare import Comparison, NamedDifference, Paired
from clipcifar.evaluation.signs import LEVEL
from clipcifar.evaluation.words import p_said, points, with_interval

APART = 0.005  # half a point: from here on balanced accuracy tells something else than the accuracy


def verdict(comparison: Comparison, *, name_a: str, name_b: str, p_value: float | None = None) -> str:
    """One sentence for a person: who is better, by how much, how sure, and in which classes.

    The head is the primary claim. What is said of classes is a second family of claims, and called so.

    Args:
        comparison: of B with A.
        name_a, name_b: what the two are called.
        p_value: corrected, where this is one of several comparisons; else the comparison's own.
    """
    overall, by = comparison.overall, comparison.by
    shown_p = overall.p_value if p_value is None else p_value
    head = statement(overall, shown_p, name_a=name_a, name_b=name_b, by=by)
    moved = [item for item in comparison.per_class if item.p_holm < LEVEL]
    family = f"second family, {len(comparison.per_class)} classes (Holm)"
    if len(comparison.per_class) < 2:
        return f"{head}."
    if moved:
        return f"{head}; {family}: {_listed(moved)}."
    if shown_p < LEVEL:
        return f"{head}; {family}: none shown to differ."
    return f"{head}."


def statement(paired: Paired, p_value: float, *, name_a: str, name_b: str, by: Measure = "accuracy") -> str:
    """`difference_said`, or that the two are right on the same images, without a full stop."""
    if not paired.only_a and not paired.only_b:
        return f"{name_b} and {name_a} are right on exactly the same images"
    return difference_said(paired, p_value, name_a=name_a, name_b=name_b, by=by)


def difference_said(
    paired: Paired, p_value: float, *, name_a: str, name_b: str, by: Measure = "accuracy"
) -> str:
    """Whether B is better than A, by how much and how sure, without a full stop.

    What the other measure says is added where it is something else: on data whose classes differ in size,
    accuracy may rise and balanced accuracy fall.

    Args:
        paired: B minus A, in the measure `by`.
        p_value: of `paired`, or corrected where it is one of several.
    """
    corrected = " after Holm's correction" if p_value != paired.p_value else ""
    said = f"{with_interval(paired, unit=' points')}, {p_said(p_value)}{corrected}"
    measure = " in balanced accuracy" if by != "accuracy" and paired.balanced else ""
    if p_value < LEVEL:
        word = "better" if paired.difference > 0 else "worse"
        head = f"{name_b} is {word} than {name_a}{measure}: {said}"
    else:
        head = f"no difference shown between {name_b} and {name_a}{measure}: {said}"
    return "; ".join([head, *_otherwise(paired, by)])


def tells_otherwise(paired: Paired, by: Measure = "accuracy") -> Balanced | None:
    """The balanced accuracy, where it moves the other way than the accuracy or half a point apart from it."""
    balanced, difference = paired.balanced, _in_accuracy(paired, by)
    if balanced is None or f"{balanced.accuracy_a:.3f}" == f"{balanced.accuracy_b:.3f}":
        return None
    along = balanced.difference * difference > 0 and abs(balanced.difference - difference) < APART
    return None if along else balanced


def balanced_said(balanced: Balanced) -> str:
    """How balanced accuracy moves and which class moves it most.

    "falls from 0.758 to 0.658, -10.0 points [-33.1, +13.1] (cat 0.60 → 0.00, 5 images)".
    """
    verb = "falls" if balanced.difference < 0 else "rises"
    said = f"{verb} from {balanced.accuracy_a:.3f} to {balanced.accuracy_b:.3f}"
    said += f", {with_interval(balanced, unit=' points')}"
    if mover := balanced.mover:
        images = count_of(mover.n, "image")
        said += f" ({mover.name} {mover.accuracy_a:.2f} → {mover.accuracy_b:.2f}, {images})"
    return said


def _otherwise(paired: Paired, by: Measure) -> list[str]:
    """What the measure that was not asked for has to add, if anything."""
    balanced = tells_otherwise(paired, by)
    if balanced is None:
        return []
    if by == "accuracy":
        return [f"balanced accuracy {balanced_said(balanced)}"]
    return [f"in accuracy {points(_in_accuracy(paired, by))} points"]


def _in_accuracy(paired: Paired, by: Measure) -> float:
    return paired.difference if by == "accuracy" else (paired.only_b - paired.only_a) / paired.n


def _listed(classes: Sequence[NamedDifference]) -> str:
    """Classes that are shown to be worse, then those shown to be better, the largest difference first."""
    ordered = sorted(classes, key=lambda item: -abs(item.paired.difference))
    worse = [item for item in ordered if item.paired.difference < 0]
    better = [item for item in ordered if item.paired.difference > 0]
    said = [f"{item.name} {points(item.paired.difference)}" for item in [*worse, *better]]
    return ", ".join(said if worse else ["none worse", *said])


def copies_said(paired: Paired) -> str:
    """One line where images are exact copies of others, which are no further evidence; else nothing."""
    if not paired.n_copies:
        return ""
    are = count_of(paired.n_copies, "image is an exact copy", "images are exact copies")
    return (
        f"{are} of others among the {paired.n:,}: the test takes an image and its copies for one, and flips "
        "the signs of groups."
    )
