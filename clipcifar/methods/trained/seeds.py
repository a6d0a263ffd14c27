"""Several seeds of one trained head: train all, choose one on val, report that one and the spread.

The reported accuracy is that of one model, the seed that is best on val. Mean and deviation over
seeds stand beside it and are never mistaken for it. What every seed says of every test image is kept, so
that two such methods can be compared over seeds and images (`evaluation/seeds.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipcifar.backbone import device
from clipcifar.core.files import Attribute
from clipcifar.core.progress import progress
from clipcifar.evaluation import plots, results
from clipcifar.evaluation.calibration import fit_temperature
from clipcifar.evaluation.headline import learned_from
from clipcifar.evaluation.metrics import accuracy
from clipcifar.methods.trained.training import (
    Labelled,
    Run,
    TrainingParams,
    arrays_of,
    merit,
    scores,
    scores_of,
    train,
)
from clipcifar.store import heads
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.predictions import inherited
from clipcifar.store.splits import TrainVal, drawn

Build = Callable[[Labelled], torch.nn.Module]


@dataclass(frozen=True)
class Outputs:
    """Where a trained method's files go."""

    head: Path
    predictions: Path
    metrics: Path
    details: Path
    plots: Path


def best_run(runs: list[Run]) -> Run:
    """The seed that is best on val; of equals, the first."""
    return max(runs, key=lambda run: merit(run.best))


def curve_rows(runs: list[Run]) -> list[dict[str, Any]]:
    """The training curves of all seeds as plot rows."""
    return [{"seed": run.seed, **asdict(point)} for run in runs for point in run.curve]


def seed_metrics(accuracies: list[float], chosen: Run) -> dict[str, Any]:
    """Mean and deviation over seeds, and which seed and epoch the reported numbers are of.

    Args:
        accuracies: test accuracy of every seed's own selected epoch.
        chosen: the run whose predictions are reported.
    """
    deviation = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0
    return {
        "seeds": {
            "n": len(accuracies),
            "accuracy_mean": float(np.mean(accuracies)),
            "accuracy_std": deviation,
        },
        "selected": {"seed": chosen.seed, "epoch": chosen.best.epoch},
    }


def train_and_report(
    method: str,
    build: Build,
    images: ImageEmbeddings,
    rows: TrainVal,
    *,
    params: TrainingParams,
    outputs: Outputs,
    attributes: dict[str, Attribute],
) -> dict[str, Any]:
    """Train every seed, write the chosen head, its predictions, metrics and plots.

    Args:
        method: its stage name.
        build: makes an untrained head from the train rows, on their device.
        images: the embeddings; test is read after all training.
        rows: train and val among the official train rows.
        attributes: what else than the images determined the head.

    Returns:
        All numbers as written.
    """
    target = device.choose(params.device, key=f"{method}.device")
    embeddings, labels = images.train.embeddings, images.train.labels
    learned = drawn(rows.train, labels, max_rows=params.max_rows)
    train_data = Labelled.on(target, embeddings[learned], labels[learned])
    judged = drawn(rows.val, labels, max_rows=params.max_rows)
    val_data = Labelled.on(target, embeddings[judged], labels[judged])
    with (
        device.out_of_memory_explained(f"{method}.batch_size"),
        progress(total=len(params.seeds) * params.max_epochs, unit="epochs", what=method) as bar,
    ):
        runs = []
        for i, seed in enumerate(params.seeds, start=1):
            runs.append(
                train(
                    lambda: build(train_data),
                    train_data,
                    val_data,
                    params=params,
                    seed=seed,
                    on_epoch=bar.update,
                )
            )
            bar.update(i * params.max_epochs - bar.n)  # epochs that early stopping saved

    head, chosen = build(train_data), best_run(runs)
    test_scores = {}
    for run in runs:
        head.load_state_dict(run.state)
        test_scores[run.seed] = scores_of(head, images.test.embeddings, target)
    head.load_state_dict(chosen.state)
    val_scores = scores(head, val_data.embeddings).cpu().numpy()
    temperature = fit_temperature(val_scores, labels[judged])
    accuracies = [accuracy(logits, images.test.labels) for logits in test_scores.values()]
    origin = {**inherited(images.attributes), **attributes}
    heads.write(
        outputs.head,
        method,
        arrays_of(chosen.state),
        {**origin, "hidden": params.hidden, "seed": chosen.seed},
    )
    plots.write_csv(outputs.plots / "training.csv", curve_rows(runs))
    return results.write(
        method,
        test_scores[chosen.seed],
        images,
        temperature=temperature,
        predictions_path=outputs.predictions,
        metrics_path=outputs.metrics,
        details_path=outputs.details,
        plots_folder=outputs.plots,
        extra_metrics={**seed_metrics(accuracies, chosen), **learned_from(len(learned), len(rows.train))},
        extra_attributes=attributes,
        by_seed=np.stack([test_scores[seed].argmax(axis=1) for seed in sorted(test_scores)]),
    )
