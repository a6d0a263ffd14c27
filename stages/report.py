"""All methods and prompt sets for a person: a page to look at, and the tables as markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar.core import files, params
from clipcifar.datasets.params import DatasetParams, photograph_folder
from clipcifar.prompts.params import PromptsParams
from clipcifar.render import table
from clipcifar.render.page_file import write_page
from clipcifar.render.pictures import Pictures
from clipcifar.report import facts, page
from clipcifar.report.params import ReportParams
from clipcifar.store.prompt_set import words_of_left_out
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
    title = params.read(settings, "report", ReportParams).title
    folder = photograph_folder(params.read(settings, "dataset", DatasetParams), raw)
    run_facts = facts.read(metrics, predictions, ranking, dataset, model, active=active)
    share = f"{100 * split.val_fraction:g} % of the train images of each class are val, seed {split.seed}"
    html = page.render(run_facts, Pictures(run_facts.dataset.test, folder), split=share, title=title)
    stale = write_page(page_path, html)
    text = table.report(
        run_facts.metrics,
        run_facts.set_metrics,
        run_facts.set_differences,
        active=active,
        images=run_facts.images_by_class(),
        dataset=run_facts.dataset.name,
        model=run_facts.model.label,
        left_out=words_of_left_out(run_facts.left_out) if run_facts.left_out else "",
    )
    text = "".join(f"> {table.escape(line)}\n\n" for line in stale) + text
    files.write_atomically(tables_path, text.encode())
    print("\n".join(table.methods_table(run_facts.metrics)))


if __name__ == "__main__":
    run(main)
