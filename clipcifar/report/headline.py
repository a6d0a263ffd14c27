"""What the page says first: which method to use, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from clipcifar.core.counts import count_of
from clipcifar.evaluation import compare
from clipcifar.evaluation.compare import Paired
from clipcifar.evaluation.names import METHODS
from clipcifar.evaluation.signs import LEVEL
from clipcifar.evaluation.verdict import statement
from clipcifar.evaluation.words import p_said, with_interval
from clipcifar.report.facts import Facts
from clipcifar.report.verdicts import sentence


@dataclass(frozen=True)
class Headline:
    """What to use in a sentence, how sure that is in some more, and how it was found out."""

    use: str
    sure: list[str]
    how: str


def headline(facts: Facts) -> Headline:
    """The plainest method that none is shown to beat, all pairs of methods held against each other.

    `METHODS` begins with the plainest. All pairs are corrected together, so sentences may pick among them.
    """
    labels, right = facts.sets.labels, {}
    for method, predictions in facts.predictions.items():
        right[method] = predictions.predicted == labels
    pairs = list(combinations(right, 2))
    compared = compare.corrected(
        [
            (
                b,
                compare.paired_by_class(
                    right[a],
                    right[b],
                    labels,
                    class_names=facts.dataset.class_names,
                    copies=facts.sets.copies,
                ),
            )
            for a, b in pairs
        ]
    )
    outcomes = {pair: (item.paired, item.p_holm) for pair, item in zip(pairs, compared, strict=True)}
    beaten = {a if paired.difference > 0 else b for (a, b), (paired, p) in outcomes.items() if p < LEVEL}
    plainest = next(method for method in right if method not in beaten)
    leader = max(right, key=lambda method: right[method].sum())
    return Headline(
        f"Use {_named(plainest, facts)}: right on {_accuracy(plainest, facts)} of the test images.",
        _how_sure(plainest, leader, outcomes, facts),
        f"The plainest method that none is shown to beat, on {count_of(len(labels), 'test image')}: exact "
        f"McNemar tests of all pairs of methods, Holm-corrected over the {len(pairs)}.",
    )


def _how_sure(
    plainest: str, leader: str, outcomes: dict[tuple[str, str], tuple[Paired, float]], facts: Facts
) -> list[str]:
    names = {method: _named(method, facts) for method in METHODS}
    said = []
    if plainest == "zero_shot":
        said.append("No method that learns from train images is shown to be better.")
    else:
        paired, p = outcomes["zero_shot", plainest]
        said.append(sentence(statement(paired, p, name_a=names["zero_shot"], name_b=names[plainest])))
    if leader != plainest:
        paired, p = outcomes[plainest, leader]
        ahead = with_interval(paired, unit=" points")
        said.append(f"Most accurate here, which may be chance, is {names[leader]}: {ahead}, {p_said(p)}.")
    if plainest != "zero_shot":
        said.append(
            f"Without train images to learn from: {names['zero_shot']}, {_accuracy('zero_shot', facts)}."
        )
    return said


def _named(method: str, facts: Facts) -> str:
    return f"zero-shot with {facts.active}" if method == "zero_shot" else METHODS[method]


def _accuracy(method: str, facts: Facts) -> str:
    """An accuracy with its 95 % interval, in per cent."""
    metrics = facts.metrics[method]
    low, high = metrics["accuracy_ci95"]["low"], metrics["accuracy_ci95"]["high"]
    return f"{100 * metrics['accuracy']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
