"""What was resolved, in the words of `data/model.json`; the model is loaded to be sure that it can be."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from pathlib import Path

import torch

from clipcifar.backbone.towers import Backbone
from clipcifar.core import files
from clipcifar.core.errors import DataError
from clipcifar.store.model import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    ModelDescription,
    ModelParams,
    config_sha256,
    pretrained_label,
)
from clipcifar.weights import proof
from clipcifar.weights.config import libraries, read_config
from clipcifar.weights.resolve import Resolved

_LONGEST = 600  # characters of an error; torch's names hundreds of tensors


def describe(model: ModelParams, resolved: Resolved, folder: Path) -> ModelDescription:
    """Describe the model that `fetch_model` has put into `folder`.

    Raises:
        DataError: its weights are damaged or do not fit the architecture, or its tokenizer or one of its
            towers does not work.
    """
    try:
        backbone = Backbone.load(folder, torch.device("cpu"))
    except DataError as error:
        error.what = textwrap.shorten(error.what, _LONGEST)
        error.where = "params.yaml: model"
        error.fix = f"check that the weights of {resolved.source} are whole and were made for {model.name}"
        raise
    proof.towers_work(backbone, folder)
    return ModelDescription(
        model=model.name,
        pretrained=pretrained_label(model.pretrained),
        source=resolved.source,
        revision=resolved.revision,
        weights_sha256=files.file_sha256(folder / WEIGHTS_FILE),
        config_sha256=config_sha256(folder),
        preprocess=asdict(backbone.preprocess),
        context_length=backbone.context_length,
        logit_scale=backbone.logit_scale,
        libraries=libraries(read_config(folder / CONFIG_FILE)),
        remarks=list(resolved.remarks),
    )
