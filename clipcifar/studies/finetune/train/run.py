"""One run of fine-tuning: the inputs checked to belong together, trained, scored and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from clipcifar.core.counts import count_of
from clipcifar.core.errors import DataError
from clipcifar.core.files import Attribute, canonical_json, write_atomically
from clipcifar.evaluation import plots
from clipcifar.methods.trained.mlp_probe import MLPProbe
from clipcifar.methods.trained.training import (
    Epoch,
    arrays_of,
    best,
    loss_and_accuracy,
    scores as head_scores,
)
from clipcifar.store import heads
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.names import Names
from clipcifar.store.predictions import inherited
from clipcifar.store.splits import TrainVal
from clipcifar.studies.finetune.params import FinetuneParams
from clipcifar.studies.finetune.scores import FinetuneScores
from clipcifar.studies.finetune.train import training
from clipcifar.studies.finetune.train.checkpoint import Checkpoints
from clipcifar.studies.finetune.train.layers import Layer, build_optimiser, unfreeze
from clipcifar.studies.finetune.train.pixels import Pixels
from clipcifar.studies.finetune.train.tower import ImageTower
from clipcifar.studies.finetune.train.training import Rows, TowerAndHead

START_TOLERANCE = 0.02  # of val images whose class may change with device and precision alone


def check_start(
    computed: NDArray[np.float32], expected: NDArray[np.float32], *, tolerance: float = START_TOLERANCE
) -> None:
    """Raise DataError where the tower and head as they begin are not the frozen probe.

    Args:
        computed, expected: (n, C) logits of the val images, by the tower and from the stored embeddings.
        tolerance: the share of images that may change class; one image may in any case.
    """
    changed = int((computed.argmax(axis=1) != expected.argmax(axis=1)).sum())
    if changed > max(1, tolerance * len(computed)):
        raise DataError(
            f"before any training, {changed} of {count_of(len(computed), 'val image')} are classified "
            "otherwise than by the MLP probe: the tower does not give the embeddings that it was trained on",
            fix="run `dvc repro mlp_probe`",
        )


def run_training(
    tower: ImageTower,
    head: MLPProbe,
    train_pixels: Pixels,
    test_pixels: Pixels,
    images: ImageEmbeddings,
    rows: TrainVal,
    *,
    params: FinetuneParams,
    checkpoints: Checkpoints,
    device: torch.device,
    folder: Path,
) -> list[Epoch]:
    """Train, score val and test, and write all of it into `folder`; no test label is read.

    Args:
        tower, head: as they begin, on the device.
        images: the embeddings that the head was trained on.
        rows: train and val among the official train rows.
        checkpoints: the caller holds their lock.

    Returns:
        The training curve.
    """
    layers = unfreeze(tower.visual, params.unfrozen_blocks)
    optimiser = build_optimiser(
        layers,
        head,
        learning_rate=params.learning_rate,
        layer_decay=params.layer_decay,
        weight_decay=params.weight_decay,
    )
    model, labels = TowerAndHead(tower, head), images.train.labels
    train_data, val_data = (Rows.of(part, labels, device) for part in (rows.train, rows.val))
    stored = [torch.from_numpy(images.train.embeddings[part]).to(device) for part in (rows.train, rows.val)]
    on_train, on_val = (head_scores(head, embeddings) for embeddings in stored)
    first = training.scores(model, train_pixels, val_data.rows, batch_size=params.batch_size)
    check_start(first.cpu().numpy(), on_val.cpu().numpy())
    train_loss, _ = loss_and_accuracy(on_train, train_data.labels)
    start = Epoch(0, train_loss, *loss_and_accuracy(first, val_data.labels))
    curve = training.train(
        model,
        optimiser,
        train_pixels,
        train_data,
        val_data,
        start=start,
        params=params,
        checkpoints=checkpoints,
    )
    val, test = (
        training.scores(model, pixels, part, batch_size=params.batch_size).cpu().numpy()
        for pixels, part in (
            (train_pixels, val_data.rows),
            (test_pixels, torch.arange(len(images.test.ids))),
        )
    )
    chosen = best(curve)
    attributes: dict[str, Attribute] = {
        **inherited(images.attributes),
        "params": canonical_json(asdict(params)),
        "device": device.type,
        "epoch": chosen.epoch,
        "epochs": len(curve) - 1,
        "n_trained": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "n_parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    val_ids = Names.of(images.train.ids)[rows.val]
    FinetuneScores(val, val_ids, test, images.test.ids, attributes).write(folder / "scores.h5")
    _write_weights(folder, layers, head, attributes)
    plots.write_csv(folder / "training.csv", [asdict(point) for point in curve])
    plots.write_csv(folder / "layers.csv", layer_rows(layers, head, params=params))
    return curve


def layer_rows(layers: list[Layer], head: MLPProbe, *, params: FinetuneParams) -> list[dict[str, Any]]:
    """What was trained, from the input on: each layer's number of parameters and full learning rate."""
    counted = [(layer.name, layer.depth, list(layer.parameters.values())) for layer in layers]
    return [
        {
            "layer": name,
            "parameters": sum(parameter.numel() for parameter in members),
            "share_of_rate": params.layer_decay**depth,
        }
        for name, depth, members in [*counted, ("head", 0, list(head.parameters()))]
    ]


def _write_weights(
    folder: Path, layers: list[Layer], head: MLPProbe, attributes: Mapping[str, Attribute]
) -> None:
    """The trained part of the tower under open_clip's names, and the head as the MLP probe's is kept."""
    trained = {
        f"visual.{name}": parameter.detach().cpu().contiguous()
        for layer in layers
        for name, parameter in layer.parameters.items()
    }
    write_atomically(folder / "tower.safetensors", safetensors.torch.save(trained))
    heads.write(folder / "head.h5", "finetune", arrays_of(head.state_dict()), attributes)
