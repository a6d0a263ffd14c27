"""All methods and prompt sets for a person: a page to look at, and the tables as markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar.core import files, params
from clipcifar.datasets.params import DatasetParams, photograph_folder
from clipcifar.prompts.params import PromptsParams
from clipcifar.render import table
from clipcifar.render.pictures import Pictures
from clipcifar.report import facts, page
from clipcifar.store.splits import SplitParams
from stages import run


def main(
    settings: dict[str, Any],
    metrics: Path,
    predictions: Path,
    ranking: Path,
    raw: Path,
    dataset: Path,
    model: Path,
    page_path: Path,
    tables_path: Path,
) -> None:
    active = params.read(settings, "prompts", PromptsParams).active
    split = params.read(settings, "split", SplitParams)
    folder = photograph_folder(params.read(settings, "dataset", DatasetParams), raw)
    found = facts.read(metrics, predictions, ranking, dataset, model, active=active)
    share = f"{100 * split.val_fraction:g} % of the official train images are val, seed {split.seed}"
    html = page.render(found, Pictures(found.dataset.test, folder), split=share)
    files.write_atomically(page_path, html.encode())
    text = table.report(
        found.metrics,
        found.set_metrics,
        found.set_differences,
        active=active,
        images=found.images_by_class(),
        dataset=found.dataset.name,
        model=found.model.label,
    )
    files.write_atomically(tables_path, text.encode())
    print("\n".join(table.methods_table(found.metrics)))


if __name__ == "__main__":
    run(main)
