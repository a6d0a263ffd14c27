"""The page of the study `models`: which backbone should I use?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipcifar.core.files import Attribute
from clipcifar.evaluation.compare import NamedDifference
from clipcifar.evaluation.verdict import statement
from clipcifar.render import charts, study
from clipcifar.render.study import Chart, Section, Table
from clipcifar.report.verdicts import sentence
from clipcifar.studies.models import table as model_table
from clipcifar.studies.models.params import OWN

_TITLES = {"zero_shot": "Zero-shot", "linear_probe": "Linear probe"}
_CHOSEN_ON = {"zero_shot": "the train images", "linear_probe": "val"}
_HEADERS = {"zero_shot": model_table.ACCURACY, "linear_probe": model_table.PROBE}
_NOTE = "Points and p against the project's own model on test; p exact McNemar, Holm-corrected."


def render(
    found: Mapping[str, Any],
    timing: Mapping[str, Any],
    differences: Mapping[str, list[NamedDifference]],
    *,
    descriptions: Mapping[str, str],
    active: str,
    attributes: Mapping[str, Attribute],
) -> str:
    """The page as HTML.

    Args:
        found: the metrics file.
        timing: the timing file.
        differences: by method, every other backbone against the own one.
        descriptions: by label, one line on what the model is.
        active: the prompt set.
        attributes: of the own image embeddings.
    """
    sections = [_accuracy(found, differences[method], method) for method in _TITLES]
    return study.render(
        title="Backbones",
        question=f"Which backbone should I use? All see the same images; zero-shot uses the set {active}, "
        "and each linear probe chooses its own C on val.",
        verdicts=_verdicts(found, timing["images_per_s"], differences),
        sections=[*sections, _cost(found, timing), _models(descriptions)],
        attributes=attributes,
        commands=["clipcifar study models", "clipcifar models"],
    )


def _verdicts(
    found: Mapping[str, Any],
    speeds: Mapping[str, float],
    differences: Mapping[str, list[NamedDifference]],
) -> list[str]:
    said = []
    for method, title in _TITLES.items():
        chosen = model_table.best(found, method=method)
        test = found[chosen][method]["test"]["accuracy"]
        said.append(f"{title}: on {_CHOSEN_ON[method]} {chosen} is best; on test it has {100 * test:.1f} %.")
        said += [
            sentence(f"{title}: {statement(item.paired, item.p_holm, name_a=OWN, name_b=item.name)}")
            for item in differences[method]
        ]
        kept = ", ".join(model_table.undominated(found, speeds, method=method))
        said.append(f"{title}: no other is both faster here and better on {_CHOSEN_ON[method]} than {kept}.")
    return said


def _accuracy(found: Mapping[str, Any], differences: list[NamedDifference], method: str) -> Section:
    rows = model_table.accuracy_rows(found, method=method)
    tests = [found[row[0]][method]["test"] for row in rows]
    chart = charts.intervals(
        [row[0] for row in rows],
        [test["accuracy"] for test in tests],
        [test["accuracy_ci95"]["low"] for test in tests],
        [test["accuracy_ci95"]["high"] for test in tests],
        name=f"models-{method}",
        description=f"Top-1 accuracy of every backbone on test, {_TITLES[method]}",
        x_label="top-1 accuracy on test",
    )
    shift = charts.differences(
        {item.name: item.paired for item in differences},
        name=f"models-{method}-difference",
        description=f"Points of every other backbone over the own one on test, {_TITLES[method]}",
        x_label=f"points over {OWN}, on test",
    )
    return Section(
        method.replace("_", "-"),
        _TITLES[method],
        paragraphs=[f"Choose by the accuracy on {_CHOSEN_ON[method]}; report the one on test."],
        tables=[Table(f"{_TITLES[method]} by backbone", _HEADERS[method], rows, note=_NOTE)],
        charts=[
            Chart("Accuracy", chart, "With 95 % intervals (Wilson)."),
            Chart("Difference", shift, "Paired, with 95 % intervals, not corrected."),
        ],
    )


def _cost(found: Mapping[str, Any], timing: Mapping[str, Any]) -> Section:
    how = f"{timing['device']}, {timing['precision']}, batches of {timing['batch_size']}"
    note = (
        f"Images per second of the image tower alone, measured once on this machine ({how}); numbers in "
        "millions, those of the file, batch statistics among them."
    )
    rows = model_table.cost_rows(found, timing["images_per_s"])
    return Section("cost", "Cost", tables=[Table("Cost by backbone", model_table.COST, rows, note=note)])


def _models(descriptions: Mapping[str, str]) -> Section:
    rows = [[label, text] for label, text in descriptions.items()]
    table = Table("Models", ["label", "model"], rows, text_columns=2)
    return Section("models", "Models", tables=[table])
