"""The headline and the details of a result: what lies where, and that nothing is lost between the two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipcifar.core import files
from clipcifar.core.errors import DataError
from clipcifar.evaluation import headline, metrics, plots
from tests.support import finished_run

METHOD: dict[str, Any] = {
    "headline": {"accuracy": 0.5, "accuracy_ci95": {"low": 0.4, "high": 0.6}, "n": 4},
    "details": {"max_per_class": 0, "per_class": {"cat": 0.25, "dog": 0.75}},
    "rows": [{"confidence": 0.5, "accuracy": 0.25}],
}
SETS: dict[str, Any] = {
    "headline": {"photo": {"accuracy": 0.5}, "per_class": {"accuracy": 0.25}},
    "details": {"photo": {"n_sentences": 3}, "per_class": {"n_sentences": 2}},  # a set may have any name
    "rows": [{"set": "photo", "accuracy": 0.5}],
}


def write(folder: Path, name: str, what: dict[str, Any]) -> None:
    headline.write(folder / f"{name}.json", folder / "details" / f"{name}.json", **what)


def leaves(numbers: dict[str, Any]) -> int:
    """How many rows `dvc metrics diff` has of a file in which everything changed."""
    parts = numbers.values()
    return sum(leaves(part) if isinstance(part, dict) else not isinstance(part, list) for part in parts)


def test_read_gives_both_files_together_without_what_is_drawn(tmp_path: Path) -> None:
    write(tmp_path, "zero_shot", METHOD)
    write(tmp_path, "prompt_sets", SETS)
    assert headline.read(tmp_path, "zero_shot") == {**METHOD["headline"], **METHOD["details"]}
    assert headline.read(tmp_path, "prompt_sets") == {
        "photo": {"accuracy": 0.5, "n_sentences": 3},
        "per_class": {"accuracy": 0.25, "n_sentences": 2},
    }
    details = files.read_json(tmp_path / "details/zero_shot.json")
    assert METHOD["rows"] in details.values(), "without rows DVC's page has an empty panel"


@pytest.mark.parametrize("num_classes", [3, 1200])
def test_the_headline_is_as_long_for_many_classes_and_together_nothing_is_lost(
    tmp_path: Path, num_classes: int
) -> None:
    names = [f"class {i}" for i in range(num_classes)]
    finished_run.write(tmp_path, class_names=names, n=num_classes)
    facts = finished_run.read(tmp_path)
    for method, found in facts.predictions.items():
        written = files.read_json(tmp_path / "metrics" / f"{method}.json")
        assert list(written) == list(headline.HEADLINE)
        assert leaves(written) == 8
        details = files.read_json(tmp_path / "metrics" / "details" / f"{method}.json")
        assert leaves(details) >= num_classes
        summary = metrics.rounded(metrics.summarise(found.scores, found.labels, class_names=names))
        summary["calibrated"] = metrics.rounded(
            metrics.calibrated(found.scores, found.labels, temperature=1.5)
        )
        assert {key: facts.metrics[method][key] for key in summary} == summary
        assert set(facts.metrics[method]) - set(summary) <= {"max_per_class", "seeds"}


def test_the_rows_are_those_of_the_reliability_diagram(tmp_path: Path) -> None:
    finished_run.write(tmp_path)
    found = finished_run.read(tmp_path).predictions["mlp_probe"]
    details = files.read_json(tmp_path / "metrics" / "details" / "mlp_probe.json")
    (rows,) = (value for value in details.values() if isinstance(value, list))
    expected = plots.reliability_rows(found.scores, found.labels, temperature=1.5)
    assert rows == [metrics.rounded(row) for row in expected]
    assert np.sum([row["n"] for row in rows if row["calibration"] == "raw"]) == len(found.labels)


@pytest.mark.parametrize(
    ("name", "old"),
    [
        ("zero_shot", {**METHOD["headline"], **METHOD["details"]}),
        ("prompt_sets", {"photo": {"n_sentences": 3, "test": {"accuracy": 0.5}}}),
    ],
)
@pytest.mark.parametrize("beside", [True, False])
def test_metrics_of_an_earlier_version_are_named_with_what_makes_them_anew(
    tmp_path: Path, name: str, old: dict[str, Any], beside: bool
) -> None:
    if beside:  # a pull brought the new details
        write(tmp_path, name, SETS if name == "prompt_sets" else METHOD)
    files.write_json(tmp_path / f"{name}.json", old)
    with pytest.raises(DataError, match="earlier ones kept all numbers in this one file") as caught:
        headline.read(tmp_path, name)
    assert (caught.value.where, caught.value.fix) == (str(tmp_path / f"{name}.json"), "run `dvc repro`")


@pytest.mark.parametrize("content", [None, "{", "[]", "3"])
@pytest.mark.parametrize("path", ["zero_shot.json", "details/zero_shot.json"])
def test_a_file_that_is_missing_or_something_else_is_named(
    tmp_path: Path, path: str, content: str | None
) -> None:
    write(tmp_path, "zero_shot", METHOD)
    (tmp_path / path).unlink()
    if content is not None:
        (tmp_path / path).write_text(content)
    with pytest.raises(DataError) as caught:
        headline.read(tmp_path, "zero_shot")
    assert caught.value.where == str(tmp_path / path)
    assert "dvc repro" in caught.value.fix


@pytest.mark.parametrize(
    "details", [{"photo": {}}, {"photo": {}, "per_class": 3}, {**SETS["details"], "c": {}}]
)
def test_details_of_other_prompt_sets_are_refused(tmp_path: Path, details: dict[str, Any]) -> None:
    write(tmp_path, "prompt_sets", SETS)
    (tmp_path / "details" / "prompt_sets.json").write_text(json.dumps(details))
    with pytest.raises(DataError, match="not of the same prompt sets as") as caught:
        headline.read(tmp_path, "prompt_sets")
    assert caught.value.where == str(tmp_path / "details" / "prompt_sets.json")
