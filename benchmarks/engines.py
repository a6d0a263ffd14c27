"""The image tower in other engines, exported once: `python engines.py ENGINE N`; one line of JSON.

Each is its tower alone on prepared input: no decoding, preprocessing, check or file. ONNX Runtime's
processor kernels know float32 alone; OpenVINO's know bfloat16, too.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import peak_mb
from sides import PAIRS, open_clip_model

BATCH = 64
TOWER = PAIRS / "tower.onnx"


def exported() -> str:
    """The path of the tower as open_clip has it, batches of 64, in ONNX; written once."""
    import torch

    if not TOWER.is_file():
        model, _, _ = open_clip_model()
        torch.onnx.export(
            model.visual, (torch.zeros(BATCH, 3, 224, 224),), str(TOWER), dynamo=True, verbose=False
        )
    return str(TOWER)


def prepared() -> Any:
    """(64, 3, 224, 224) float32, the model's input."""
    import torch

    return torch.randn((BATCH, 3, 224, 224), generator=torch.Generator().manual_seed(0)).numpy()


def eager() -> Callable[[Any], Any]:
    """open_clip itself."""
    import torch

    model, _, _ = open_clip_model()

    def tower(batch: Any) -> Any:
        with torch.inference_mode():
            return model.encode_image(torch.from_numpy(batch)).numpy()

    return tower


def onnxruntime() -> Callable[[Any], Any]:
    import onnxruntime as engine

    session = engine.InferenceSession(exported(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def openvino(precision: str) -> Callable[[Any], Any]:
    import openvino as engine

    options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    compiled = engine.Core().compile_model(exported(), "CPU", options)
    return lambda batch: compiled(batch)[0]


ENGINES: dict[str, Callable[[], Callable[[Any], Any]]] = {
    "open_clip": eager,
    "onnxruntime": onnxruntime,
    "openvino_fp32": lambda: openvino("f32"),
    "openvino_bf16": lambda: openvino("bf16"),
}


def measured(name: str, n: int) -> dict[str, float]:
    """Images a second of n images, and the smallest cosine with open_clip's vectors."""
    batch, tower = prepared(), ENGINES[name]()
    rows = np.asarray(tower(batch), dtype=np.float64)
    start = time.perf_counter()
    for _ in range(n // BATCH):
        tower(batch)
    seconds = time.perf_counter() - start
    reference = PAIRS / "engine_rows.npy"
    if name == "open_clip":
        np.save(reference, rows)
    expected = np.load(reference)
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(expected, axis=1)
    return {
        "rate": n // BATCH * BATCH / seconds,
        "cosine": float(((rows * expected).sum(axis=1) / lengths).min()),
        "peak_mb": peak_mb(),
    }


if __name__ == "__main__":
    PAIRS.mkdir(parents=True, exist_ok=True)
    print(json.dumps(measured(sys.argv[1], int(sys.argv[2]))), flush=True)
    os._exit(0)
