"""What the chosen mixes are worth on test, against both of their ends.

Test labels are read here, after every coefficient is chosen. P values are Holm-corrected over all mixes
and both ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.files import Attribute, write_json
from clipcifar.evaluation import compare, metrics
from clipcifar.evaluation.compare import Paired, holm, paired
from clipcifar.evaluation.names import METHODS
from clipcifar.evaluation.plots import write_csv
from clipcifar.evaluation.verdict import statement
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.predictions import write_answers
from clipcifar.studies.ensemble.mix import Choice, Pair, curve_rows


@dataclass(frozen=True)
class Judged:
    """One chosen mix on test.

    Attributes:
        scores: (N, C) float32 logits of the mix.
        curve: every coefficient that was tried, as rows of a CSV file.
        found: its metrics, with `calibrated`.
        vs_zero_shot, vs_trained: the mix minus each end.
        p_zero_shot, p_trained: corrected.
    """

    pair: Pair
    choice: Choice
    scores: NDArray[np.float32]
    curve: list[dict[str, Any]]
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


def measure(
    pairs: list[Pair], choices: list[Choice], labels: NDArray[np.int64], *, class_names: list[str]
) -> list[Judged]:
    """What every chosen mix is worth on test, whose (N,) labels these are."""
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
        curve = curve_rows(pair, choice, labels, title=title(pair))
        vs_zero_shot, vs_trained = ends[2 * i : 2 * i + 2]
        judged.append(
            Judged(pair, choice, scores, curve, found, vs_zero_shot, vs_trained, *p_values[2 * i : 2 * i + 2])
        )
    return judged


def as_metrics(judged: list[Judged], *, n_not_converged: int) -> dict[str, Any]:
    """The ends' accuracies, and by trained method and what is mixed the rest."""
    found: dict[str, Any] = {
        "n_not_converged": n_not_converged,
        "zero_shot": {"accuracy": judged[0].vs_zero_shot.accuracy_a},
    }
    for one in judged:
        of_method = found.setdefault(one.pair.method, {"accuracy": one.vs_trained.accuracy_a})
        of_method[one.pair.how] = {
            **one.found,
            "selected": {"coefficient": one.choice.coefficient},
            "vs_zero_shot": {**compare.as_metrics(one.vs_zero_shot), "p_holm": one.p_zero_shot},
            "vs_trained": {**compare.as_metrics(one.vs_trained), "p_holm": one.p_trained},
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


def write(
    folder: Path,
    judged: list[Judged],
    images: ImageEmbeddings,
    *,
    texts_fingerprint: Attribute,
    n_not_converged: int,
) -> None:
    """Write metrics.json, every mix's curve as mixing.csv, and its test logits as predictions.h5.

    Args:
        images: the embeddings of the images.
        texts_fingerprint: of the prompt set that zero-shot uses.
        n_not_converged: fits that did not.
    """
    write_json(folder / "metrics.json", metrics.rounded(as_metrics(judged, n_not_converged=n_not_converged)))
    write_csv(folder / "mixing.csv", [row for one in judged for row in one.curve])
    write_answers(
        folder / "predictions.h5",
        {f"{one.pair.method}/{one.pair.how}": one.scores for one in judged},
        images,
        kind="ensemble predictions",
        attributes={"texts_fingerprint": texts_fingerprint},
    )
