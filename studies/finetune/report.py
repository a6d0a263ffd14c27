"""The fine-tuned tower against the frozen MLP probe on test: metrics, predictions and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar.core import files
from clipcifar.evaluation import metrics, results
from clipcifar.store import inputs
from clipcifar.store.predictions import read_predictions
from clipcifar.studies.finetune.report import page as finetune, result as finetune_result
from clipcifar.studies.finetune.scores import FinetuneScores
from stages import run


def main(
    settings: dict[str, Any], images_path: Path, frozen_path: Path, folder: Path, page_path: Path
) -> None:
    images = inputs.requested_images(images_path, settings)
    tuned = FinetuneScores.read(folder / "scores.h5")
    result = finetune_result.judge(tuned, read_predictions(frozen_path), images)
    written = results.write(
        "finetune",
        result.scores,
        images,
        temperature=result.temperature,
        predictions_path=folder / "predictions.h5",
        metrics_path=folder / "metrics.json",
        plots_folder=folder,
        extra_metrics=finetune_result.extra_metrics(result, tuned),
        extra_attributes={"params": tuned.attributes["params"]},
    )
    frozen = metrics.summarise(result.frozen, images.test.labels, class_names=images.class_names)
    page = finetune.render(
        result,
        tuned,
        written,
        frozen,
        finetune_result.read_rows(folder / "training.csv"),
        finetune_result.read_rows(folder / "layers.csv"),
    )
    files.write_atomically(page_path, page.encode())
    difference = 100 * written["vs_frozen"]["difference"]
    print(f"fine-tuned: top-1 {written['accuracy']:.4f}, {difference:+.1f} points against the frozen probe")


if __name__ == "__main__":
    run(main)
