"""The fine-tuned tower against the frozen MLP probe on test: metrics, predictions and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar.evaluation import metrics
from clipcifar.render.page_file import write_page
from clipcifar.store import inputs
from clipcifar.store.predictions import read_predictions
from clipcifar.studies.finetune.judge import findings, page
from clipcifar.studies.finetune.scores import FinetuneScores
from stages import run


def main(
    settings: dict[str, Any], images_path: Path, frozen_path: Path, folder: Path, page_path: Path
) -> None:
    images = inputs.requested_images(images_path, settings)
    tuned = FinetuneScores.read(folder / "scores.h5")
    results = findings.measure(tuned, read_predictions(frozen_path), images)
    written = findings.write(folder, results, tuned, images)
    frozen = metrics.summarise(results.frozen, images.test.labels, class_names=images.class_names)
    curve, layers = (findings.read_rows(folder / name) for name in ("training.csv", "layers.csv"))
    html = page.render(results, tuned, written, frozen, curve, layers)
    write_page(page_path, html)
    difference = 100 * written["vs_frozen"]["difference"]
    print(f"fine-tuned: top-1 {written['accuracy']:.4f}, {difference:+.1f} points against the frozen probe")


if __name__ == "__main__":
    run(main)
