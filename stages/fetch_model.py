"""Resolve the weights once, into open_clip's folder format, and describe them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar.backbone.uncompiled import uncompiled
from clipcifar.core import files, params
from clipcifar.store.model import ModelParams
from stages import run

with uncompiled():
    from clipcifar.weights.describe import describe
    from clipcifar.weights.resolve import fetch_model


def main(settings: dict[str, Any], weights_folder: Path, model_path: Path) -> None:
    model = params.read(settings, "model", ModelParams)
    files.require_writable(weights_folder)
    files.require_writable(model_path.parent)
    resolved = fetch_model(model, weights_folder)
    describe(model, resolved, weights_folder).write(model_path)
    print("; ".join((f"{model.name}: {resolved.source}", *resolved.remarks)))


if __name__ == "__main__":
    run(main)
