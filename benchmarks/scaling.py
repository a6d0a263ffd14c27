"""Time and peak memory as the number of rows grows: `python scaling.py` prints one JSON line a cell."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import CLASSES, WORK, call, peak_mb, row, unit_rows

from clipcifar.store.embeddings import SHARED_FIELDS, Split
from clipcifar.store.fields import INHERITED, class_names_attribute
from clipcifar.store.images import read_images, write_images

SIZES = (1_000, 10_000, 100_000, 1_000_000)
LARGEST = {"linear probe": 100_000}


def made(n: int) -> tuple[Any, Any]:
    """n unit rows of 512 numbers with labels of ten classes, made without a second copy."""
    rng = np.random.default_rng(0)
    centres, labels = rng.standard_normal((10, 512), dtype=np.float32), rng.integers(0, 10, n)
    rows = rng.standard_normal((n, 512), dtype=np.float32)
    for start in range(0, n, 10_000):
        part = slice(start, start + 10_000)
        rows[part] += 0.2 * centres[labels[part]]
        rows[part] = unit_rows(rows[part])
    return rows, labels


def store_round(n: int, folder: Path) -> dict[str, float]:
    """Write n test rows, then read and verify them."""

    rows, labels = made(n)
    attributes = {
        **dict.fromkeys((*SHARED_FIELDS, *INHERITED), "made"),
        "max_per_class": 0,
        "class_names": class_names_attribute(CLASSES),
        "logit_scale": 100.0,
    }
    split = Split(rows, labels, [f"{i:08d}" for i in range(n)])
    few = Split(rows[:100], labels[:100], [f"t{i}" for i in range(100)])
    start = time.perf_counter()
    write_images(folder / "images", train=few, test=split, attributes=attributes)
    written = time.perf_counter() - start
    start = time.perf_counter()
    read_images(folder / "images").verify()
    return {"write": written, "read and verify": time.perf_counter() - start}


def zero_shot(n: int, folder: Path) -> dict[str, float]:
    """Scores and metrics of n rows."""
    from clipcifar.evaluation import metrics
    from clipcifar.methods.zero_shot import logits

    rows, labels = made(n)
    weights = unit_rows(np.random.default_rng(1).standard_normal((10, 512)))
    start = time.perf_counter()
    metrics.summarise(logits(rows, weights, logit_scale=100.0), labels, class_names=CLASSES)
    return {"zero-shot": time.perf_counter() - start}


def ranking(n: int, folder: Path) -> dict[str, float]:
    """300 templates on n rows."""
    from clipcifar.search.counting import tally

    rows, labels = made(n)
    weights = unit_rows(np.random.default_rng(1).standard_normal((300, 10, 512), dtype=np.float32))
    start = time.perf_counter()
    tally(rows, labels, weights, reference=weights[0])
    return {"ranking, 300 templates": time.perf_counter() - start}


def linear_probe(n: int, folder: Path) -> dict[str, float]:
    """One fit at C = 10."""
    from clipcifar.methods.linear_probe import fit

    rows, labels = made(n)
    start = time.perf_counter()
    fit(rows, labels, c=10.0, max_iter=2000, class_names=CLASSES)
    return {"linear probe": time.perf_counter() - start}


def extraction(n: int, folder: Path) -> dict[str, float]:
    """n images through a stub that costs nothing, so that only our part is seen."""
    import torch

    from clipcifar.embeddings.extract import extract
    from clipcifar.embeddings.shards import ShardFolder

    class Images:
        def __len__(self) -> int:
            return n

        def batches(self, rows: Any) -> Any:
            for batch in rows:
                yield torch.zeros((len(batch), 3, 32, 32), dtype=torch.uint8)

    def encode(images: torch.Tensor) -> torch.Tensor:
        return torch.full((len(images), 512), 512**-0.5)

    shards = ShardFolder(folder, "0" * 64)
    start = time.perf_counter()
    with shards.locked():
        for _ in extract(Images(), encode, ids=[str(i) for i in range(n)], batch_size=256, shards=shards):
            pass
    return {"extraction besides the tower": time.perf_counter() - start}


PARTS = {
    "store": store_round,
    "zero-shot": zero_shot,
    "ranking": ranking,
    "linear probe": linear_probe,
    "extraction": extraction,
}


def main() -> None:
    if len(sys.argv) == 3:
        with tempfile.TemporaryDirectory(dir=WORK) as folder:
            timings = PARTS[sys.argv[1]](int(sys.argv[2]), Path(folder))
        print(json.dumps({**timings, "peak_mb": peak_mb()}))
        return
    for part in PARTS:
        for n in SIZES:
            if n > LARGEST.get(part, n):
                continue
            timings = call(part, str(n), script="scaling.py")
            memory = timings.pop("peak_mb")
            for name, seconds in timings.items():
                row(
                    f"{name}, {n:,} rows",
                    seconds,
                    None,
                    unit="s",
                    note=f"peak {memory:,.0f} MB, of which the rows {n * 2048 / 2**20:,.0f} MB",
                )


if __name__ == "__main__":
    main()
