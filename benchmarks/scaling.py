"""Time and peak memory as the number of images grows: `python scaling.py` prints one JSON line a cell.

`python scaling.py 100000 2000000` for other sizes. The rows are made and written as the pipeline writes
them; every step then reads them from its parts in a process of its own, one tenth of them as test.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import CLASSES, WORK, call, peak_mb, row, unit_rows
from numpy.typing import NDArray

from clipcifar.store.embeddings import SHARED_FIELDS, ImageEmbeddings
from clipcifar.store.fields import INHERITED, class_names_attribute
from clipcifar.store.images import Listed, listing, read_images, write_manifest
from clipcifar.store.parts import write_parts

SIZES = (1_000, 10_000, 100_000, 1_000_000)
DIM, TWINS, CHUNK = 512, 1000, 8192  # every thousandth row has a twin some rows before


def _chunks(n: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """n unit rows around ten centres with their labels, a chunk at a time."""
    centres = np.random.default_rng(0).standard_normal((10, DIM), dtype=np.float32)
    for start in range(0, n, CHUNK):
        rng, count = np.random.default_rng((1, start)), min(CHUNK, n - start)
        labels = rng.integers(0, 10, count)
        rows = rng.standard_normal((count, DIM), dtype=np.float32) + 0.2 * centres[labels]
        rows[TWINS::TWINS] = rows[TWINS - 500 : -500 : TWINS][: len(rows[TWINS::TWINS])] + 0.05
        yield unit_rows(rows), labels


def write(n: int, folder: Path) -> dict[str, float]:
    """Make and write n rows; without the time that the making takes."""
    labels, making = [], 0.0

    def rows() -> Iterator[NDArray[np.float32]]:
        nonlocal making
        chunks, start = _chunks(n), time.process_time()
        for made, of_chunk in chunks:
            labels.append(of_chunk)
            making += time.process_time() - start
            yield made
            start = time.process_time()

    begun = time.process_time()
    parts = write_parts(folder, rows())
    at, every = n - n // 10, np.concatenate(labels)
    names = [f"{i:08d}.jpg" for i in range(n)]
    listed = [Listed(every[part], names[part], None) for part in (slice(at), slice(at, None))]
    attributes: dict[str, Any] = {
        **dict.fromkeys((*SHARED_FIELDS, *INHERITED), "made"),
        "max_per_class": 0,
        "class_names": class_names_attribute(CLASSES),
        "logit_scale": 100.0,
    }
    write_manifest(folder, listing(*listed), parts, attributes=attributes)
    return {"write": time.process_time() - begun - making}


def _templates(count: int) -> NDArray[np.float32]:
    """(count, 10, D) unit rows near the centres."""
    centres = np.random.default_rng(0).standard_normal((10, DIM), dtype=np.float32)
    noise = np.random.default_rng(1).standard_normal((count, 10, DIM), dtype=np.float32)
    return np.asarray(unit_rows(centres + 0.3 * noise))


def verify(images: ImageEmbeddings) -> None:
    """Digests, finite unit rows, the manifest."""
    images.verify()


def zero_shot(images: ImageEmbeddings) -> None:
    """Scores and metrics of all rows."""
    from clipcifar.evaluation import metrics
    from clipcifar.methods.zero_shot import logits

    for split in (images.train, images.test):
        scores = logits(split.embeddings, _templates(1)[0], logit_scale=100.0)
        metrics.summarise(scores, split.labels, class_names=CLASSES)


def ranking(images: ImageEmbeddings) -> None:
    """300 templates on train."""
    from clipcifar.search.counting import tally

    weights = _templates(300)
    tally(images.train.embeddings, images.train.labels, weights, reference=weights[0])


def linear_probe(images: ImageEmbeddings) -> None:
    """C = 1 and then 10 on train, as the grid goes on from one to the next."""
    from clipcifar.methods.linear_probe import LinearProbeParams, validation_curve

    validation_curve(
        images.train.embeddings,
        images.train.labels,
        images.test.embeddings,
        images.test.labels,
        params=LinearProbeParams((1.0, 10.0), max_iter=2000),
        class_names=CLASSES,
    )


def near_duplicates(images: ImageEmbeddings) -> None:
    """Test against train, and train against itself."""
    from clipcifar.studies.near_duplicates.indexed import search_in

    search = search_in(images.train.embeddings, num_queries=len(images.test.labels))
    search.nearest(images.test.embeddings, on_rows=lambda count: None)
    search.nearest_other(on_rows=lambda count: None)


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
    start = time.process_time()
    with shards.locked():
        for _ in extract(Images(), encode, ids=[str(i) for i in range(n)], batch_size=256, shards=shards):
            pass
    return {"extraction besides the tower": time.process_time() - start}


READERS: dict[str, Callable[[ImageEmbeddings], None]] = {
    "verify": verify,
    "zero-shot": zero_shot,
    "ranking, 300 templates": ranking,
    "linear probe, two C": linear_probe,
    "near-duplicates": near_duplicates,
}
WRITERS = {"write": write, "extraction besides the tower": extraction}


def measured(step: str, n: int) -> dict[str, Any]:
    """Seconds of processor time of one step, and the peak memory of this process."""
    folder = WORK / "scaling" / str(n)
    if step in WRITERS:
        timings = WRITERS[step](n, folder if step == "write" else folder / "shards")
    else:
        start = time.process_time()
        images = read_images(folder)  # one part is verified here
        start = start if step == "verify" else time.process_time()
        READERS[step](images)
        timings = {step: time.process_time() - start}
    return {**timings, "peak_mb": peak_mb()}


def main() -> None:
    if len(sys.argv) == 3 and sys.argv[1] in {*WRITERS, *READERS}:
        print(json.dumps(measured(sys.argv[1], int(sys.argv[2]))))
        return
    for n in map(int, sys.argv[1:] or SIZES):
        for step in (*WRITERS, *READERS):
            seconds, memory = call(step, str(n), script="scaling.py").values()
            size = f"peak {memory:,.0f} MB, the rows {n * DIM / 2**18:,.0f} MB"
            note = f"{1e6 * seconds / n:,.1f} µs a row; {size}"
            row(f"{step}, {n:,} rows", seconds, None, unit="s of cpu", note=note)
        shutil.rmtree(WORK / "scaling" / str(n))


if __name__ == "__main__":
    main()
