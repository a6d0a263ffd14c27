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
from clipcifar.evaluation.compare import Paired, paired_by_class
from clipcifar.evaluation.names import METHODS
from clipcifar.evaluation.plots import write_csv
from clipcifar.evaluation.seeds import covers_said
from clipcifar.evaluation.signs import holm
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
        metrics: its metrics, with `calibrated`.
        vs_zero_shot, vs_trained: the mix minus each end.
        p_zero_shot, p_trained: corrected.
    """

    pair: Pair
    choice: Choice
    scores: NDArray[np.float32]
    curve: list[dict[str, Any]]
    metrics: dict[str, Any]
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
    pairs: list[Pair],
    choices: list[Choice],
    labels: NDArray[np.int64],
    *,
    class_names: list[str],
    copies: NDArray[np.int64] | None = None,
) -> list[Judged]:
    """What every chosen mix is worth on test, whose (N,) labels and copies these are."""
    scored = [pair.test(choice.coefficient) for pair, choice in zip(pairs, choices, strict=True)]
    ends = []
    for pair, scores in zip(pairs, scored, strict=True):
        right = scores.argmax(axis=1) == labels
        ends += [
            paired_by_class(
                end.test.argmax(axis=1) == labels, right, labels, class_names=class_names, copies=copies
            )
            for end in (pair.zero_shot, pair.trained)
        ]
    p_values = holm([versus.p_value for versus in ends])
    judged = []
    for i, (pair, choice, scores) in enumerate(zip(pairs, choices, scored, strict=True)):
        summary = metrics.summarise(scores, labels, class_names=class_names)
        del summary["per_class"]
        summary["calibrated"] = metrics.calibrated(scores, labels, temperature=choice.temperature)
        curve = curve_rows(pair, choice, labels, title=title(pair))
        vs_zero_shot, vs_trained = ends[2 * i : 2 * i + 2]
        judged.append(
            Judged(
                pair, choice, scores, curve, summary, vs_zero_shot, vs_trained, *p_values[2 * i : 2 * i + 2]
            )
        )
    return judged


def as_metrics(judged: list[Judged], *, n_not_converged: int) -> dict[str, Any]:
    """The ends' accuracies, and by trained method and what is mixed the rest."""
    entries: dict[str, Any] = {
        "n_not_converged": n_not_converged,
        "zero_shot": {"accuracy": judged[0].vs_zero_shot.accuracy_a},
    }
    for mix in judged:
        of_method = entries.setdefault(mix.pair.method, {"accuracy": mix.vs_trained.accuracy_a})
        of_method[mix.pair.how] = {
            **mix.metrics,
            "selected": {"coefficient": mix.choice.coefficient},
            "vs_zero_shot": {**compare.as_metrics(mix.vs_zero_shot), "p_holm": mix.p_zero_shot},
            "vs_trained": {**compare.as_metrics(mix.vs_trained), "p_holm": mix.p_trained},
        }
    return entries


def verdicts(judged: list[Judged]) -> list[str]:
    """One sentence per mix: what val chose, and how it compares with both ends; then what p values cover."""
    sentences = []
    for mix in judged:
        parts = []
        for name, versus, p_value in (
            ("zero-shot", mix.vs_zero_shot, mix.p_zero_shot),
            (METHODS[mix.pair.method], mix.vs_trained, mix.p_trained),
        ):
            parts.append(statement(versus, p_value, name_a=name, name_b="the mix"))
        head = mix.title[0].upper() + mix.title[1:]
        sentences.append(f"{head}: val chose {mix.choice.coefficient:g}. On test {parts[0]}; {parts[1]}.")
    return sentences + covers_said(list(dict.fromkeys(mix.pair.method for mix in judged)))


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
    write_csv(folder / "mixing.csv", [row for mix in judged for row in mix.curve])
    write_answers(
        folder / "predictions.h5",
        {f"{mix.pair.method}/{mix.pair.how}": mix.scores for mix in judged},
        images,
        kind="ensemble predictions",
        attributes={"texts_fingerprint": texts_fingerprint},
    )
