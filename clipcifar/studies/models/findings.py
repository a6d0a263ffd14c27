"""What several backbones are worth on the same test images, each against the project's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.files import write_json
from clipcifar.evaluation import compare, metrics
from clipcifar.evaluation.compare import NamedDifference
from clipcifar.evaluation.plots import write_csv
from clipcifar.evaluation.verdict import statement
from clipcifar.report.verdicts import sentence
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.predictions import write_answers
from clipcifar.studies.models import table
from clipcifar.studies.models.params import OWN
from clipcifar.studies.models.study import Outcome

NOTHING_TO_CHOOSE_BY = (
    "there are no train images to choose by, and what is chosen on test looks better there than it is."
)
TITLES = {"zero_shot": "Zero-shot", "linear_probe": "Linear probe"}
CHOSEN_ON = {"train": "the train images", "val": "val", "test": "the test images"}


@dataclass(frozen=True)
class Findings:
    """All backbones.

    Attributes:
        outcomes, sizes: by label, the project's own among them.
        differences: by method every other backbone against the own one on test, Holm-corrected over them.
    """

    outcomes: Mapping[str, Outcome]
    sizes: Mapping[str, Mapping[str, int]]
    differences: Mapping[str, list[NamedDifference]]


def measure(
    outcomes: Mapping[str, Outcome],
    sizes: Mapping[str, Mapping[str, int]],
    labels: NDArray[np.int64],
    *,
    class_names: list[str],
    copies: NDArray[np.int64] | None = None,
) -> Findings:
    """Compare the backbones on test, whose (N,) labels and copies these are."""
    differences = {}
    for method in outcomes[OWN].predicted:
        others = {label: outcome.predicted[method] for label, outcome in outcomes.items() if label != OWN}
        own = outcomes[OWN].predicted[method]
        differences[method] = compare.against(own, others, labels, class_names=class_names, copies=copies)
    return Findings(outcomes, sizes, differences)


def as_metrics(findings: Findings) -> dict[str, Any]:
    """By label and method, with the difference from the own model, and the sizes; rounded as written."""
    entries = {
        label: {**outcome.metrics, "size": dict(findings.sizes[label])}
        for label, outcome in findings.outcomes.items()
    }
    for method, items in findings.differences.items():
        for item in items:
            entries[item.name][method] = {**entries[item.name][method], "vs_own": item.as_metrics()}
    return metrics.rounded(entries)


def verdicts(findings: Findings, speeds: Mapping[str, float]) -> list[str]:
    """Which backbone is best by what one chooses by, each against the own one, and which pay for their time.

    Args:
        speeds: by label, images per second.
    """
    said, entries = [], as_metrics(findings)
    for method in findings.differences:
        title, split = TITLES[method], table.chosen_on(entries, method=method)
        chosen = table.best(entries, method=method)
        test = f"{100 * entries[chosen][method]['test']['accuracy']:.1f} %"
        said.append(
            f"{title}: {NOTHING_TO_CHOOSE_BY} On test {chosen} has the most, {test}."
            if split == "test"
            else f"{title}: on {CHOSEN_ON[split]} {chosen} is best; on test it has {test}."
        )
        said += [
            sentence(f"{title}: {statement(item.paired, item.p_holm, name_a=OWN, name_b=item.name)}")
            for item in findings.differences[method]
        ]
        kept = table.undominated(entries, speeds, method=method)
        than = "another" if len(kept) == len(entries) else ", ".join(kept)
        none = "none" if len(kept) == len(entries) else "no other"
        said.append(f"{title}: {none} is both faster here and better on {CHOSEN_ON[split]} than {than}.")
    return said


def write(folder: Path, findings: Findings, timing: Mapping[str, Any], images: ImageEmbeddings) -> None:
    """Write metrics.json, timing.json, accuracy.csv, and what every backbone says as predictions.h5.

    Args:
        timing: of `Study`.
        images: the embeddings of the own model.
    """
    entries = as_metrics(findings)
    write_json(folder / "metrics.json", entries)
    write_json(folder / "timing.json", timing)
    write_csv(folder / "accuracy.csv", rows_for_plots(entries))
    answers = {
        f"{method}/{label}": outcome.predicted[method]
        for label, outcome in findings.outcomes.items()
        for method in outcome.predicted
    }
    write_answers(folder / "predictions.h5", answers, images, kind="model predictions")


def rows_for_plots(entries: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The metrics as rows of model, method, accuracy on test, and its interval."""
    return [
        {
            "model": label,
            "method": method,
            "accuracy": entry[method]["test"]["accuracy"],
            **entry[method]["test"]["accuracy_ci95"],
        }
        for label, entry in entries.items()
        for method in TITLES
        if method in entry
    ]
