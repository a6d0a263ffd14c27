"""A run of embeddings that a test of the cluster starts, here or as a process of its own, and can hold up.

Run as a script: `python -m tests.support.on_cluster FOLDER WEIGHTS ADDRESS KIND`, with the gate shut until
FOLDER/gate/open is there.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from clipcifar.backbone.params import EmbedParams
from clipcifar.core.errors import ClipcifarError, exit_with_message
from clipcifar.datasets.source import collect
from clipcifar.datasets.tarfolder import tar_folder
from clipcifar.embeddings import compute
from clipcifar.embeddings.sources import ImageSource
from clipcifar.store import parts
from clipcifar.store.dataset import Prepared, PreparedSplit, digest_of
from clipcifar.store.model import ModelDescription, ModelParams
from clipcifar.weights.describe import describe
from clipcifar.weights.resolve import fetch_model
from tests.support import shards
from tests.support.waiting import wait_for

T = TypeVar("T")
OUTPUT = Path("data/embeddings/images")
NAMES = ["cat", "dog"]
# Rows of a part: of arrays two shards each and the last one short, of photographs one.
PART_ROWS = {"arrays": 1500, "photographs": 60, "shards": 40}
COUNTS = {"arrays": (3000, 700), "photographs": (110, 40), "shards": (70, 40)}


def dataset_of(kind: str, folder: Path) -> Prepared:
    """Random images, 8 pixels wide; photographs are files of several sizes in `folder`/photographs.

    Those of shards are the first photographs, two tar files a split.
    """
    if kind == "shards":
        return _in_shards(folder)
    rng = np.random.default_rng(0)
    splits = []
    for name, n in zip(("train", "test"), COUNTS[kind], strict=True):
        if kind == "arrays":
            content: Any = rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
        else:
            digests = []
            (folder / "photographs" / name).mkdir(parents=True, exist_ok=True)
            for i in range(n):
                pixels = rng.integers(0, 256, (30 + i % 7, 40, 3), dtype=np.uint8)
                path = folder / "photographs" / name / f"{i}.png"
                Image.fromarray(pixels).save(path)
                digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
            content = np.array(digests, dtype="S64")
        splits.append(PreparedSplit(content, np.arange(n) % 2, [f"{name}/{i}.png" for i in range(n)]))
    train, test = splits
    return Prepared(train, test, NAMES, name="made", max_per_class=0, digest=digest_of(train, test, NAMES))


def _in_shards(folder: Path) -> Prepared:
    dataset_of("photographs", folder / "files")
    tars = {}
    for name, n in zip(("train", "test"), COUNTS["shards"], strict=True):
        read = [(folder / "files/photographs" / name / f"{i}.png").read_bytes() for i in range(n)]
        for half in range(2):
            members = {f"{NAMES[i % 2]}/{i}.png": read[i] for i in range(n) if i * 2 // n == half}
            tars[f"photographs/{name}/{half}.tar"] = shards.tar_of(members)
    splits = collect(
        tar_folder(shards.write(folder, tars) / "photographs", max_megapixels=250), on_bad_image="error"
    ).splits
    train, test = splits["train"], splits["test"]
    return Prepared(train, test, NAMES, name="made", max_per_class=0, digest=digest_of(train, test, NAMES))


def fetch(source: Path, folder: Path) -> Path:
    """A copy of a model that lies in a folder, described beside it; returns the folder of its weights."""
    asked, weights = ModelParams(f"local-dir:{source}", None, str(source), 0, False), folder / "weights"
    describe(asked, fetch_model(asked, weights), weights).write(folder / "model.json")
    return weights


def embed_of(address: str | None, scratch: Path, **more: Any) -> EmbedParams:
    """How to embed on a cluster, or without one."""
    common = EmbedParams(device="cpu", precision="fp32", batch_size=64, workers=None, storage="float32")
    if address is None:
        return replace(common, **more)
    return replace(
        common, **{"engine": "ray", "address": address, "scratch": str(scratch), "worker_cpus": 1, **more}
    )


NODE = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}


@contextmanager
def started() -> Iterator[Any]:
    """A cluster of a head that takes no task."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0})
    try:
        yield cluster
    finally:
        cluster.shutdown()


def run(folder: Path, weights: Path, kind: str, embed: EmbedParams, *, gate: Path | None = None) -> Path:
    """Embed into the project `folder`; returns the folder of the embeddings."""
    dataset, model = dataset_of(kind, folder), ModelDescription.read(weights.parent / "model.json")
    photographs = folder / "photographs"
    wanted = compute.dataset_images(
        folder / OUTPUT, dataset, model, recorded=OUTPUT, photographs=photographs, embed=embed
    )
    if gate is not None:
        images = wanted.images

        def gated(rows: Any) -> Any:  # those of parts; some images that are embedded again go through
            return Gated(images(rows), rows, gate) if isinstance(rows, range) else images(rows)

        wanted = replace(wanted, images=gated)
    compute.obtain([wanted], repository=folder, model=model, weights=weights, embed=embed)
    return wanted.path


def digests(folder: Path) -> dict[str, str]:
    """The sha256 of every file in a folder of embeddings."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@contextmanager
def beside(work: Callable[[], T], gate: Path) -> Iterator[Future[T]]:
    """A run in a thread, which is ended when the test is: the gate opens, and nothing waits for it any more.

    The nodes belong to the thread that has started them, so the test keeps that one.
    """
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(work)
        try:
            yield running
        finally:
            (gate / "open").touch()


def noted(gate: Path, number: int) -> list[Path]:
    """The notes of tasks at the gate, once there are so many."""
    wait_for(lambda: len(list(gate.glob("*-*"))) >= number, what=f"{number} tasks at the gate")
    return sorted(gate.glob("*-*"))


@dataclass
class Gated:
    """Images of a task that notes before its last batch how many it was asked for, and waits for the gate."""

    images: Callable[[Any, int], ImageSource]
    rows: range
    gate: Path

    def __call__(self, preprocess: Any, workers: int) -> ImageSource:
        return _GatedSource(self.images(preprocess, workers), self)


@dataclass
class _GatedSource:
    source: ImageSource
    at: Gated

    def __len__(self) -> int:
        return len(self.source)

    def batches(self, rows: Sequence[range]) -> Iterator[torch.Tensor]:
        for number, batch in enumerate(self.source.batches(rows)):
            if number == len(rows) - 1:
                note = self.at.gate / f"{self.at.rows.start}-{os.getpid()}"
                (draft := note.with_name(f"draft.{os.getpid()}")).write_text(str(len(rows)))
                draft.rename(note)  # whoever sees it may kill this process at once
                while not (self.at.gate / "open").exists():
                    time.sleep(0.05)
            yield batch


if __name__ == "__main__":
    place, model_folder, where, which = sys.argv[1:]
    parts.PART_ROWS = PART_ROWS[which]
    shared = Path(place)
    try:
        run(shared, Path(model_folder), which, embed_of(where, shared / "scratch"), gate=shared / "gate")
    except ClipcifarError as error:
        exit_with_message(error)
