"""The page of the study `models`: which backbone should I use?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipcifar.core.files import Attribute
from clipcifar.evaluation.compare import NamedDifference
from clipcifar.render import charts, study
from clipcifar.render.study import Chart, Section, Table
from clipcifar.studies.models import table
from clipcifar.studies.models.findings import (
    CHOSEN_ON,
    NOTHING_TO_CHOOSE_BY,
    TITLES,
    Findings,
    as_metrics,
    verdicts,
)
from clipcifar.studies.models.params import OWN

_HEADERS = {"zero_shot": table.ACCURACY, "linear_probe": table.PROBE}
_NOTE = "Points and p against the project's own model on test; p exact McNemar over images, Holm-corrected."


def render(
    findings: Findings,
    timing: Mapping[str, Any],
    *,
    descriptions: Mapping[str, str],
    active: str,
    attributes: Mapping[str, Attribute],
) -> str:
    """The page as HTML.

    Args:
        timing: of `Study`.
        descriptions: by label, one line on what the model is.
        active: the prompt set.
        attributes: of the own image embeddings.
    """
    entries = as_metrics(findings)
    sections = [_accuracy(entries, items, method) for method, items in findings.differences.items()]
    probed = (
        ", and each linear probe chooses its own C on val" if "linear_probe" in findings.differences else ""
    )
    return study.render(
        name="models",
        title="Backbones",
        question=f"Which backbone should I use? All see the same images; zero-shot uses the set {active}"
        f"{probed}.",
        verdicts=verdicts(findings, timing["images_per_s"]),
        sections=[*sections, _cost(entries, timing), _models(descriptions)],
        attributes=attributes,
        commands=["clipcifar study models", "clipcifar models"],
    )


def _accuracy(entries: Mapping[str, Any], differences: list[NamedDifference], method: str) -> Section:
    rows, split = table.accuracy_rows(entries, method=method), table.chosen_on(entries, method=method)
    paragraph = (
        f"T{NOTHING_TO_CHOOSE_BY[1:]}"
        if split == "test"
        else f"Choose by the accuracy on {CHOSEN_ON[split]}; report the one on test."
    )
    chart = charts.accuracies(
        {label: entries[label][method]["test"] for label, *_ in rows},
        name=f"models-{method}",
        description=f"Top-1 accuracy of every backbone on test, {TITLES[method]}",
        x_label="top-1 accuracy on test",
    )
    shift = charts.differences(
        {item.name: item.paired for item in differences},
        name=f"models-{method}-difference",
        description=f"Points of every other backbone over the own one on test, {TITLES[method]}",
        x_label=f"points over {OWN}, on test",
    )
    return Section(
        method.replace("_", "-"),
        TITLES[method],
        paragraphs=[paragraph],
        tables=[Table(f"{TITLES[method]} by backbone", _HEADERS[method], rows, note=_NOTE)],
        charts=[
            Chart("Accuracy", chart, "With 95 % intervals (Wilson)."),
            Chart("Difference", shift, "Paired, with 95 % intervals, not corrected."),
        ],
    )


def _cost(entries: Mapping[str, Any], timing: Mapping[str, Any]) -> Section:
    how = f"{timing['device']}, {timing['precision']}, batches of {timing['batch_size']}"
    note = (
        f"Images per second of the image tower alone, measured once on this machine ({how}); numbers in "
        "millions, those of the file, batch statistics among them."
    )
    rows = table.cost_rows(entries, timing["images_per_s"])
    return Section("cost", "Cost", tables=[Table("Cost by backbone", table.COST, rows, note=note)])


def _models(descriptions: Mapping[str, str]) -> Section:
    rows = [[label, text] for label, text in descriptions.items()]
    return Section("models", "Models", tables=[Table("Models", ["label", "model"], rows, text_columns=2)])
