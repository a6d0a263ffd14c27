"""What the benchmarks share: paired timing, processes of their own, rows, and work to do.

A row script prints its rows as JSON lines; `run.py` gathers them. Timings of two sides alternate in
one run, so that both meet the same machine, and each side's median counts.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "bench"
PEERS = WORK / "peers"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
GFLOP_IMAGE = 8.8  # ViT-B/32 at 224 pixels, multiplications and additions
GFLOP_COMPUTED = 8.2  # of them, where the last block is computed for the class token alone


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_mb() -> float:
    """Peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def paired(*sides: Callable[[], object], rounds: int = 5) -> list[float]:
    """The median seconds of each side after one call of each, their calls alternating."""
    for side in sides:
        side()
    times = [[timed(side) for side in sides] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def call(*words: str, script: str = "sides.py", peers: bool = False) -> dict[str, Any]:
    """Run a script of this folder in a process of its own; its last line is JSON.

    With `peers` the competitors' packages can be imported there.
    """
    path = os.pathsep.join([str(ROOT), *([str(PEERS)] if peers else [])])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(ROOT / "benchmarks" / script), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
    printed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return printed


def alternated(calls: list[Callable[[], dict[str, Any]]], *, rounds: int) -> list[dict[str, Any]]:
    """Processes that alternate: for each, the median of every number it printed."""
    printed = [[process() for process in calls] for _ in range(rounds)]
    return [
        {key: statistics.median(run[key] for run in column) for key in column[0]}
        for column in zip(*printed, strict=True)
    ]


def row(
    name: str,
    ours: float | None,
    theirs: float | None,
    *,
    unit: str,
    target: str = "",
    reached: bool | None = None,
    ratio: float | None = None,
    note: str = "",
) -> None:
    """Print one row of the table; `reached` is None where nothing was asked or nothing measured."""
    entry = {
        "name": name,
        "ours": None if ours is None else float(f"{ours:.4g}"),
        "theirs": None if theirs is None else float(f"{theirs:.4g}"),
        "ratio": None if ratio is None else float(f"{ratio:.3g}"),
        "target": target,
        "reached": reached,
        "unit": unit,
        "note": note,
    }
    print(json.dumps(entry), flush=True)


def ahead(
    name: str,
    ours: float,
    theirs: float,
    *,
    unit: str,
    least: float,
    besides: str = "",
    holds: bool = True,
    note: str = "",
) -> None:
    """Print the row of a race: so many times less time, or for a unit per second, so many times more.

    Args:
        least: the ratio asked for.
        besides, holds: what else was asked for, and whether it holds.
    """
    ratio = ours / theirs if unit.endswith("/s") else theirs / ours
    target = f"≥ {least:g}×{besides}"
    reached = bool(ratio >= least and holds)
    row(name, ours, theirs, unit=unit, ratio=ratio, target=target, reached=reached, note=note)


def offers(device: Any, precision: Any) -> bool:
    """Whether `embed.precision` may be this on a device; bf16 and fp16 only where they are faster there."""
    from clipcifar.backbone.device import dtype_of
    from clipcifar.core.errors import ConfigError

    try:
        dtype_of(device, precision)
    except ConfigError:
        return False
    return True


def matrix_product_rates(precision: str) -> dict[str, float]:
    """GFLOP/s of a product of two 4,096 x 4,096 matrices by each library at hand, on all cores.

    Args:
        precision: float32 or bfloat16; NumPy's OpenBLAS knows the first alone.
    """
    import torch

    square = np.random.default_rng(0).standard_normal((4096, 4096)).astype(np.float32)
    tensor = torch.from_numpy(square).to(getattr(torch, precision))
    onednn = torch.ops.mkldnn._linear_pointwise
    kernels: dict[str, Callable[[], object]] = {
        "oneDNN": lambda: onednn(tensor, tensor, None, "none", [], ""),
        "torch": lambda: tensor @ tensor,  # MKL in float32, where this torch has it
    }
    if precision == "float32":
        kernels["NumPy"] = lambda: square @ square
    with torch.inference_mode():
        seconds = paired(*kernels.values(), rounds=5)
    return {name: 2 * 4096**3 / taken / 1e9 for name, taken in zip(kernels, seconds, strict=True)}


def matrix_product_rate(precision: str = "float32") -> float:
    """The best of `matrix_product_rates`: what a tower of matrix products can reach at most."""
    return max(matrix_product_rates(precision).values())


def unit_rows(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Rows scaled to unit length."""
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), dtype=np.float32)


def clip_like(
    n: int, *, dim: int = 512, noise: float = 2.2, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit rows as CLIP's are: a large common mean, variances that fall as 1 / axis, ten classes."""
    rng, shape = np.random.default_rng(seed), np.random.default_rng(1)
    spectrum = (1 + np.arange(dim)) ** -0.5
    rotation = np.linalg.qr(shape.standard_normal((dim, dim)))[0].astype(np.float32)
    common = unit_rows(shape.standard_normal(dim))
    means = unit_rows(shape.standard_normal((len(CLASSES), dim)) * spectrum)
    labels = rng.integers(0, len(CLASSES), n)
    scattered = rng.standard_normal((n, dim), dtype=np.float32) * (spectrum / np.linalg.norm(spectrum))
    rows = 1.2 * common + (0.3 * means[labels] + noise * scattered).astype(np.float32) @ rotation
    return unit_rows(rows), labels


def photographs(n: int, size: int = 32) -> NDArray[np.uint8]:
    """(n, size, size, 3) uint8: smooth random shapes with a little noise, image i the same for every n."""
    import torch
    import torch.nn.functional as F

    blocks = []
    for start in range(0, n, 256):
        generator = torch.Generator().manual_seed(start)
        coarse = torch.rand((256, 3, 6, 6), generator=generator)
        smooth = F.interpolate(coarse, size=(size, size), mode="bicubic") * 255
        noisy = smooth + 6 * torch.randn(smooth.shape, generator=generator)
        blocks.append(noisy.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy())
    return np.concatenate(blocks)[:n]
