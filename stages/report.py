"""One table of all methods, per class, and of all prompt sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar import compare, files, params, set_predictions
from clipcifar.model import ModelDescription
from clipcifar.prompts import PromptsParams
from clipcifar.report import table
from stages import run


def main(
    settings: dict[str, Any], metrics: Path, sets_path: Path, model_path: Path, classes: Path, report: Path
) -> None:
    found = {method: files.read_json(metrics / f"{method}.json") for method in table.METHODS}
    model = ModelDescription.read(model_path)
    active = params.read(settings, "prompts", PromptsParams).active
    sets = set_predictions.read(sets_path)
    others = {name: predicted for name, predicted in sets.predicted.items() if name != active}
    differences = compare.against(sets.predicted[active], others, sets.labels)
    text = table.report(
        found,
        files.read_json(metrics / "prompt_sets.json"),
        differences,
        active=active,
        dataset=files.read_json(classes)["dataset"],
        model=model.label,
    )
    files.write_atomically(report, text.encode())
    print("\n".join(table.methods_table(found)))


if __name__ == "__main__":
    run(main)
