"""What a backbone costs: images per second on this machine, numbers, bytes and pixels."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import safe_open

from clipcifar.backbone import device
from clipcifar.backbone.params import EmbedParams
from clipcifar.backbone.towers import Backbone
from clipcifar.core import files
from clipcifar.core.errors import DataError
from clipcifar.embeddings import provenance
from clipcifar.store.container import fingerprint_of
from clipcifar.store.model import WEIGHTS_FILE, ModelDescription

MEASURED_S = 1.0  # at least so long, and one batch


def images_per_second(model: ModelDescription, folder: Path, *, embed: EmbedParams) -> float:
    """How fast the image tower is here: whole batches at its input size, decoding left out.

    Of at least a second of batches the fastest counts, because other work on the machine only ever
    slows them. Measured once per model, device and batch size, and then remembered.
    """
    target = device.choose(embed.device, key="embed.device")
    determined = {
        **provenance.embedding_attributes(model, [], target.type),
        "precision": embed.precision,
        "batch_size": embed.batch_size,
        "threads": torch.get_num_threads(),
    }
    known = files.cache_folder("speeds") / f"{fingerprint_of(determined)[:32]}.json"
    with suppress(DataError, KeyError, TypeError, ValueError):
        return float(files.read_json(known)["images_per_s"])
    backbone = Backbone.load(folder, target, embed.precision)
    height, width = backbone.preprocess.size
    images = torch.zeros((embed.batch_size, 3, height, width), dtype=torch.uint8)
    with device.out_of_memory_explained("embed.batch_size"):
        backbone.encode_images(images).cpu()  # the first batch also warms up
        fastest, spent = float("inf"), 0.0
        while spent < MEASURED_S:
            start = time.perf_counter()
            backbone.encode_images(images).cpu()
            took = time.perf_counter() - start
            fastest, spent = min(fastest, took), spent + took
    rate = float(f"{embed.batch_size / fastest:.3g}")
    files.write_json(known, {"images_per_s": rate})
    return rate


def size(model: ModelDescription, folder: Path, *, dimension: int) -> dict[str, int]:
    """What a model takes.

    Returns:
        n_parameters (numbers in its file, batch statistics among them), n_image_parameters (those of
        the image tower), n_bytes, input_height and input_width in pixels, and dimension as given.
    """
    path = folder / WEIGHTS_FILE
    counts = {}
    with safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118  it is no mapping
            shape = file.get_slice(name).get_shape()
            counts[name] = int(torch.Size(shape).numel())
    height, width = model.preprocess["size"]
    return {
        "n_parameters": sum(counts.values()),
        "n_image_parameters": sum(n for name, n in counts.items() if name.startswith("visual.")),
        "n_bytes": path.stat().st_size,
        "input_height": int(height),
        "input_width": int(width),
        "dimension": dimension,
    }
