"""How to embed: the `embed` section of params.yaml, and the names of devices and precisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from clipcifar.core.params import Range
from clipcifar.core.processes import cores

DeviceName = Literal["auto", "cuda", "mps", "cpu"]
Precision = Literal["fp32", "bf16", "fp16"]
Storage = Literal["float32", "float16"]


@dataclass(frozen=True)
class EmbedParams:
    """The `embed` section.

    Attributes:
        device: where both towers run.
        precision: of the image tower; sentences are always embedded in fp32.
        batch_size: images per forward pass.
        workers: processes that decode photographs; None for one per core.
        storage: of image embeddings; float16 halves their files and moves a cosine by up to 5e-5.
    """

    device: DeviceName
    precision: Precision
    batch_size: Annotated[int, Range(1)]
    workers: Annotated[int | None, Range(0)]
    storage: Storage

    @property
    def worker_count(self) -> int:
        return cores() if self.workers is None else self.workers
