"""What was found on few images, in a sentence for each method."""

from __future__ import annotations

from collections.abc import Mapping

from clipcifar.evaluation.words import p_said, points as signed, with_interval
from clipcifar.studies.few_shot.methods import WEIGHTED
from clipcifar.studies.few_shot.points import Point


def first_better(points: list[Point]) -> str | None:
    """The smallest number of images from which on a method is shown to be better at every larger one too."""
    start = None
    for point in reversed(points):
        if point.outcome != "better":
            break
        start = point.shots
    return start


def of_weighted(point: Point) -> str:
    """Whether zero-shot with weighted prompts differs from the active set."""
    said = "no difference from" if point.outcome == "no difference shown" else f"{point.outcome} than"
    by, sure = with_interval(point.versus, unit=" points"), p_said(point.p_holm)
    return (
        f"{WEIGHTED[0].upper()}{WEIGHTED[1:]}, which need no label: {said} the active set"
        f"{' shown' if said.startswith('no') else ''} ({by}, {sure} after Holm's correction)."
    )


def of_method(title: str, points: list[Point]) -> str:
    """From how many images per class on a method beats zero-shot, and where not; points by rising number."""
    start, shots = first_better(points), [point.shots for point in points]
    untold = points if start is None else points[: shots.index(start)]
    by_outcome: Mapping[str, list[str]] = {
        outcome: [point.shots for point in untold if point.outcome == outcome]
        for outcome in ("better", "no difference shown", "worse")
    }
    if by_outcome["worse"] == shots:
        head, by_outcome = f"{title}: worse than zero-shot at every number of images", {}
    elif by_outcome["no difference shown"] == shots:
        head, by_outcome = f"{title}: nowhere shown to differ from zero-shot", {}
    elif start is None:
        some = "beats zero-shot at some numbers of images per class, but not from one on"
        head = f"{title}: {some if by_outcome['better'] else 'nowhere shown to beat zero-shot'}"
    else:
        versus = next(point for point in points if point.shots == start)
        by = with_interval(versus.versus, unit=" points")
        sure = f"{p_said(versus.p_holm)} after Holm's correction"
        head = f"{title}: beats zero-shot {_from(start)} ({by} there, {sure})"
    parts = [f"{head[0].upper()}{head[1:]}"]
    parts += [f"{outcome} at {', '.join(where)}" for outcome, where in by_outcome.items() if where]
    if fallen := [point for point in points if point.loses_balance]:
        falls = ", ".join(f"{point.shots} ({signed(point.balanced_difference)} points)" for point in fallen)
        parts.append(f"balanced accuracy falls at {falls}")
    return "; ".join(parts) + "."


def _from(shots: str) -> str:
    if shots == "all":
        return "with all images"
    return f"from {shots} image{'s' if shots != '1' else ''} per class on"
