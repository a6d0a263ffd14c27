"""Resolve the weights once, into open_clip's folder format, and describe them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from clipcifar import files, params, provenance, weights
from clipcifar.backbone import Backbone
from clipcifar.errors import DataError
from clipcifar.model import WEIGHTS_FILE, ModelDescription, ModelParams, pretrained_label
from stages import run


def main(settings: dict[str, Any], weights_folder: Path, model_path: Path) -> None:
    model = params.read(settings, "model", ModelParams)
    resolved = weights.resolve(model, weights_folder)
    try:
        backbone = Backbone.load(weights_folder, torch.device("cpu"))
    except DataError as error:
        error.where = "params.yaml: model"
        error.fix = f"check that the weights of {resolved.source} are whole and were made for {model.name}"
        raise
    ModelDescription(
        model=model.name,
        pretrained=pretrained_label(model.pretrained),
        source=resolved.source,
        revision=resolved.revision,
        weights_sha256=files.file_sha256(weights_folder / WEIGHTS_FILE),
        config_sha256=provenance.config_sha256(weights_folder),
        preprocess=asdict(backbone.preprocess),
        context_length=backbone.context_length,
        logit_scale=backbone.logit_scale,
    ).write(model_path)
    print(f"{model.name}: {resolved.source}")


if __name__ == "__main__":
    run(main)
