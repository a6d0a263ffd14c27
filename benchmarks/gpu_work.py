"""What the parts of gpu.py share: how much each does, the model, and the project's own embedding."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpu_device as gpu
import numpy as np
import sides
import torch
from common import CLASSES, ROOT, row

from clipcifar.backbone.params import EmbedParams
from clipcifar.backbone.towers import Backbone
from clipcifar.core.params import NO_PATH
from clipcifar.embeddings import compute, extract
from clipcifar.store.dataset import Prepared, PreparedSplit, digest_of
from clipcifar.store.model import ModelDescription, ModelParams
from clipcifar.weights import resolve
from clipcifar.weights.describe import describe

measured = functools.partial(row, theirs=None)  # a row with one figure, and one with none
held = functools.partial(row, ours=None, theirs=None, unit="")
FASTEST = "bf16" if "bf16" in gpu.precisions() else "fp32"


@dataclass(frozen=True)
class Sizes:
    """How much each part does; the first of `batches` is that of params.yaml, images of 32 x 32 pixels."""

    model: str = "ViT-B-32"  # random weights; of none, the stand-in of data/demo
    matrix: int = 8192
    transferred: int = 2**30
    images: int = 60_000
    batches: tuple[int, ...] = (256, 512, 1024, 2048)
    loop: int = 20_000
    rows: int = 50_000
    epochs: int = 5
    compared: int = 512
    profiled: int = 16_384
    kill_after: int = 8  # shards
    too_large: tuple[int, ...] = (65_535, 1_000_000)  # the most that params.yaml may say, and more
    sentences: int = 3_000
    jpegs: tuple[tuple[int, int], ...] = ((32, 20_000), (500, 8_000))  # pixels wide, and how many


TOY = Sizes("", 64, 2**16, 2_100, (32, 64), 16, 400, 1, 8, 32, 1, (2**44,), 20, ((32, 6), (50, 3)))


class Work:
    """A folder, the model in it, and images."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self.folder, self.sizes, self.weights = folder, sizes, folder / "weights"
        sides.WEIGHTS = self.weights
        os.environ["CLIPCIFAR_CACHE"] = str(folder / "cache")

    @functools.cached_property
    def model(self) -> ModelDescription:
        """Resolved once a folder."""
        described = self.folder / "model.json"
        if not described.is_file():
            stand_in = str(ROOT / "data" / "demo" / "clip")
            asked = ModelParams(self.sizes.model, None, NO_PATH, 0, False)
            if not self.sizes.model:
                asked = ModelParams(f"local-dir:{stand_in}", None, stand_in, 0, False)
            describe(asked, resolve.fetch_model(asked, self.weights), self.weights).write(described)
        return ModelDescription.read(described)

    @functools.cache  # noqa: B019  # as long as the process
    def tower(self, precision: str, kind: str = gpu.DEVICE.type) -> Backbone:
        """The frozen CLIP; tf32 is fp32 with other products."""
        assert self.model
        asked: Any = "fp32" if precision == "tf32" else precision
        return Backbone.load(self.weights, torch.device(kind), asked)

    def prepared_input(self, batch: int, dtype: torch.dtype) -> torch.Tensor:
        """(batch, 3, height, width) random numbers on the device."""
        return torch.randn(batch, 3, *self.model.preprocess["size"], device=gpu.DEVICE).to(dtype)

    def dataset(self, content: Any, ids: list[str]) -> Prepared:
        """Images, or the digests of files, as the project prepares them; one is test."""
        labels, cuts = np.arange(len(ids)) % len(CLASSES), (slice(1, None), slice(0, 1))
        train, test = (PreparedSplit(content[cut], labels[cut], ids[cut]) for cut in cuts)
        return Prepared(train, test, CLASSES, "made", 0, digest_of(train, test, CLASSES))

    def arrays(self, n: int) -> Prepared:
        """n images of noise in memory."""
        noise = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        return self.dataset(noise, [f"{i:06d}" for i in range(n)])

    def embed(
        self, data: Prepared, precision: str, batch: int, *, name: str = "images"
    ) -> tuple[float, float]:
        """What `embed_images` does but read the dataset, load the tower and look for earlier results.

        Returns:
            Seconds of all of it, and of those the seconds of the extraction, finished shards included.
        """
        path, tower, spent = self.folder / name, self.tower(precision), list[float]()
        load, whole_extraction = Backbone.load, extract.extract
        shutil.rmtree(path, ignore_errors=True)

        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            rows = whole_extraction(*arguments, **named)
            spent.append(time.perf_counter() - start)  # the first, then that of a second pass
            return rows

        embed: Any = EmbedParams(gpu.DEVICE.type, tower.precision, batch, None, "float32")  # type: ignore
        wanted = compute.dataset_images(
            path, data, self.model, recorded=path, photographs=self.folder / "jpegs", embed=embed
        )
        Backbone.load, extract.extract = lambda *_: tower, timed  # type: ignore[method-assign,assignment]
        try:
            with gpu.set_to(precision):
                start = time.perf_counter()
                compute.encode([wanted], model=self.model, weights=self.weights, embed=embed)
                return time.perf_counter() - start, spent[0]
        finally:
            Backbone.load, extract.extract = load, whole_extraction  # type: ignore[method-assign]

    def digest(self, name: str = "images") -> str:
        """Of the files that `embed` left."""
        paths = sorted((self.folder / name).iterdir())
        return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
