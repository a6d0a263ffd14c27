"""What the chosen mixes are worth on test, against both of their ends.

Test labels are read here, after every coefficient is chosen. P values are Holm-corrected over all mixes
and both ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.evaluation import metrics
from clipcifar.evaluation.compare import Paired, as_metrics, holm, paired
from clipcifar.evaluation.names import METHODS
from clipcifar.evaluation.verdict import statement
from clipcifar.studies.ensemble.mix import Choice, Pair


@dataclass(frozen=True)
class Judged:
    """One chosen mix on test.

    Attributes:
        scores: (N, C) float32 logits of the mix.
        found: its metrics, with `calibrated`.
        vs_zero_shot, vs_trained: the mix minus each end.
        p_zero_shot, p_trained: corrected.
    """

    pair: Pair
    choice: Choice
    scores: NDArray[np.float32]
    found: dict[str, Any]
    vs_zero_shot: Paired
    vs_trained: Paired
    p_zero_shot: float
    p_trained: float

    @property
    def title(self) -> str:
        """What a person calls the mix."""
        return title(self.pair)


def title(pair: Pair) -> str:
    """The trained method and what is mixed."""
    return f"{METHODS[pair.method]}, {pair.how}"


def judge(
    pairs: list[Pair], choices: list[Choice], labels: NDArray[np.int64], *, class_names: list[str]
) -> list[Judged]:
    """Score every chosen mix on (N,) test labels."""
    scored = [pair.test(choice.coefficient) for pair, choice in zip(pairs, choices, strict=True)]
    ends = []
    for pair, scores in zip(pairs, scored, strict=True):
        right = scores.argmax(axis=1) == labels
        ends += [paired(end.test.argmax(axis=1) == labels, right) for end in (pair.zero_shot, pair.trained)]
    p_values = holm([found.p_value for found in ends])
    judged = []
    for i, (pair, choice, scores) in enumerate(zip(pairs, choices, scored, strict=True)):
        found = metrics.summarise(scores, labels, class_names=class_names)
        del found["per_class"]
        found["calibrated"] = metrics.calibrated(scores, labels, temperature=choice.temperature)
        first, second = 2 * i, 2 * i + 1
        judged.append(
            Judged(pair, choice, scores, found, ends[first], ends[second], p_values[first], p_values[second])
        )
    return judged


def arrays(judged: list[Judged]) -> dict[str, NDArray[np.float32]]:
    """The (N, C) test logits of every chosen mix, by method and what is mixed."""
    return {f"{one.pair.method}/{one.pair.how}": one.scores for one in judged}


def as_study_metrics(
    judged: list[Judged], labels: NDArray[np.int64], *, n_not_converged: int
) -> dict[str, Any]:
    """The metrics file: the ends' accuracies, and by trained method and what is mixed the rest."""
    found: dict[str, Any] = {
        "n_not_converged": n_not_converged,
        "zero_shot": {"accuracy": metrics.accuracy(judged[0].pair.zero_shot.test, labels)},
    }
    for one in judged:
        of_method = found.setdefault(
            one.pair.method, {"accuracy": metrics.accuracy(one.pair.trained.test, labels)}
        )
        of_method[one.pair.how] = {
            **one.found,
            "selected": {"coefficient": one.choice.coefficient},
            "vs_zero_shot": {**as_metrics(one.vs_zero_shot), "p_holm": one.p_zero_shot},
            "vs_trained": {**as_metrics(one.vs_trained), "p_holm": one.p_trained},
        }
    return found


def verdicts(judged: list[Judged]) -> list[str]:
    """One sentence per mix: what val chose, and how it compares with both ends on test."""
    found = []
    for one in judged:
        parts = []
        for name, versus, p_value in (
            ("zero-shot", one.vs_zero_shot, one.p_zero_shot),
            (METHODS[one.pair.method], one.vs_trained, one.p_trained),
        ):
            same = not versus.only_a and not versus.only_b
            said = statement(versus, p_value, name_a=name, name_b="the mix")
            parts.append(f"the mix and {name} are right on exactly the same images" if same else said)
        head = one.title[0].upper() + one.title[1:]
        found.append(f"{head}: val chose {one.choice.coefficient:g}. On test {parts[0]}; {parts[1]}.")
    return found
