"""What the page says first: which method to use, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from clipcifar.evaluation import compare
from clipcifar.evaluation.compare import NamedDifference
from clipcifar.evaluation.names import METHODS
from clipcifar.evaluation.seeds import covers_said
from clipcifar.evaluation.signs import LEVEL
from clipcifar.evaluation.verdict import statement
from clipcifar.evaluation.words import p_said, points, with_interval
from clipcifar.report.facts import Facts
from clipcifar.report.verdicts import MOST_NAMED, sentence

REFERENCE = "zero_shot"
HOW = (
    "Another method takes the place of zero-shot where the verdicts below show that it is better: in top-1 "
    "accuracy, Holm-corrected over all methods together. Of several such methods it is the plainest that "
    "none of them is shown to beat, Holm-corrected over their pairs. The choice was made on the same test "
    "images that its accuracy is given on: where they are few, that number is optimistic."
)


@dataclass(frozen=True)
class Headline:
    """What to use, in a sentence, and how sure that is, in some more."""

    use: str
    sure: list[str]


def headline(facts: Facts) -> Headline:
    """The plainest of the methods that are shown to be better than zero-shot; zero-shot where none is."""
    differences = facts.method_differences
    better = [item.name for item in differences if _is_better(item)]
    if not better:
        return Headline(_use(REFERENCE, facts), [*_none_better(facts), *_better_sets(facts)])
    pairs = _pairs(facts, better)
    beaten = {a if item.paired.difference > 0 else b for (a, b), item in pairs.items() if item.p_holm < LEVEL}
    chosen = next(method for method in better if method not in beaten)
    said = [
        sentence(statement(item.paired, item.p_holm, name_a=METHODS[REFERENCE], name_b=METHODS[chosen]))
        for item in differences
        if item.name == chosen
    ]
    others = [b if a == chosen else a for a, b in pairs if chosen in (a, b)]
    equals = [METHODS[name] for name in others if name not in beaten]
    if equals:
        said.append(f"No difference is shown between it and {', '.join(equals)}.")
    said += [*covers_said([chosen]), f"Without images to learn from: {_of(REFERENCE, facts)}."]
    return Headline(_use(chosen, facts), [*said, *_better_sets(facts)])


def _is_better(item: NamedDifference) -> bool:
    return item.p_holm < LEVEL and item.paired.difference > 0


def _better_sets(facts: Facts) -> list[str]:
    """The prompt sets that are shown to be better than the active one, with which all methods were made."""
    better = sorted(filter(_is_better, facts.set_differences), key=lambda item: -item.paired.difference)
    if not better:
        return []
    named = ", ".join(f"{item.name} {points(item.paired.difference)} points" for item in better[:MOST_NAMED])
    more = f" and {len(better) - MOST_NAMED} more" if len(better) > MOST_NAMED else ""
    return [
        f"Other prompts are shown to be better than {facts.active}, Holm-corrected over the sets: {named}"
        f"{more}. prompts.active in params.yaml takes such a set; choose it by its accuracy on train."
    ]


def _none_better(facts: Facts) -> list[str]:
    """That no method is shown to be better, and which is ahead nevertheless."""
    said = [f"None of the other methods is shown to be better than zero-shot with {facts.active}."]
    ahead = max(facts.method_differences, key=lambda item: item.paired.difference)
    if ahead.paired.difference > 0:
        by = f"{with_interval(ahead.paired, unit=' points')}, {p_said(ahead.p_holm)} after Holm's correction"
        said.append(f"Ahead on these images, which may be chance: {METHODS[ahead.name]}, {by}.")
    return said


def _pairs(facts: Facts, methods: list[str]) -> dict[tuple[str, str], NamedDifference]:
    """Every pair of these methods, the second against the first, Holm-corrected over the pairs."""
    labels = facts.sets.labels
    right = {method: facts.predictions[method].predicted == labels for method in methods}
    pairs = list(combinations(methods, 2))
    compared = [(b, compare.paired(right[a], right[b], facts.sets.copies)) for a, b in pairs]
    return dict(zip(pairs, compare.corrected(compared), strict=True))


def _use(method: str, facts: Facts) -> str:
    return f"Use {_of(method, facts)}."


def _of(method: str, facts: Facts) -> str:
    """A method with its accuracy and its 95 % interval."""
    name = f"{METHODS[method]} with {facts.active}" if method == REFERENCE else METHODS[method]
    metrics = facts.metrics[method]
    low, high = metrics["accuracy_ci95"]["low"], metrics["accuracy_ci95"]["high"]
    return (
        f"{name}: {100 * metrics['accuracy']:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of test images right"
    )
