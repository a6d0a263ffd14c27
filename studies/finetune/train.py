"""The image tower and the MLP probe's head trained together; resumable, without any test label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar.backbone import device
from clipcifar.backbone.params import EmbedParams
from clipcifar.core import files, params
from clipcifar.datasets.params import DatasetParams, photograph_folder
from clipcifar.methods.trained.training import best
from clipcifar.store import model
from clipcifar.studies.finetune.params import FinetuneParams
from clipcifar.studies.finetune.train import (
    inputs as finetune_inputs,
    pixels,
    run as finetune_run,
)
from clipcifar.studies.finetune.train.checkpoint import Checkpoints
from clipcifar.studies.finetune.train.tower import checkpoint_activations, load_image_tower
from stages import nobody_waits, run


def main(
    settings: dict[str, Any],
    raw: Path,
    dataset_path: Path,
    weights: Path,
    model_path: Path,
    images_path: Path,
    splits_path: Path,
    head_path: Path,
    folder: Path,
) -> None:
    tuning = params.read(settings, "finetune", FinetuneParams)
    workers = params.read(settings, "embed", EmbedParams).worker_count
    root = photograph_folder(params.read(settings, "dataset", DatasetParams), raw)
    target = device.choose(tuning.device, key="finetune.device")
    device.autocast(target, tuning.precision, key="finetune.precision")  # refused before anything is loaded
    files.require_writable(folder)
    given = finetune_inputs.read(dataset_path, weights, model_path, images_path, splits_path)
    dataset, images, rows = given.dataset, given.images, given.rows
    model.check_requested(images.attributes, params.read(settings, "model", model.ModelParams))
    head, digest = finetune_inputs.read_head(head_path, images, dropout=tuning.dropout)
    mark = finetune_inputs.fingerprint(images, rows, digest, params=tuning, device=target.type)
    tower = load_image_tower(weights, target, precision=tuning.precision)
    if tuning.checkpoint_activations:
        checkpoint_activations(tower)
    train, test = (
        pixels.of_split(split, root=root, preprocess=tower.preprocess, workers=workers, device=target)
        for split in (dataset.train, dataset.test)
    )
    checkpoints = Checkpoints(files.cache_folder("finetune"), mark)
    with checkpoints.locked():
        curve = finetune_run.run(
            tower,
            head.to(target),
            train,
            test,
            images,
            rows,
            params=tuning,
            checkpoints=checkpoints,
            device=target,
            folder=folder,
        )
        if not nobody_waits():
            checkpoints.remove()
    start, chosen = curve[0], best(curve)
    print(f"val accuracy {start.val_accuracy:.4f} frozen, {chosen.val_accuracy:.4f} at epoch {chosen.epoch}")


if __name__ == "__main__":
    run(main)
