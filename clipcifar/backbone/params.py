"""How to embed: the `embed` section of params.yaml, and the names of devices and precisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from clipcifar.core.params import Range
from clipcifar.core.processes import cores

DeviceName = Literal["auto", "cuda", "mps", "cpu"]
Precision = Literal["fp32", "bf16", "fp16"]
Storage = Literal["float32", "float16"]
Engine = Literal["local", "ray"]


@dataclass(frozen=True)
class EmbedParams:
    """The `embed` section.

    Attributes:
        device: where both towers run.
        precision: of both towers on a CPU; on cuda of the image tower, and sentences are embedded in fp32.
        batch_size: images per forward pass; CUDA's attention kernels begin for no more than 65,535.
        workers: processes that decode photographs; None for one per core.
        storage: of image embeddings; float16 halves their files and moves a cosine by up to 5e-5.
        engine: what computes embeddings that nobody has: this process, or workers of a Ray cluster. The next
            four are read with `ray` alone, and none of the five changes a byte.
        address: of the cluster: "local" starts one on this machine, "auto" finds the one that runs here,
            host:port is that of its head.
        scratch: a folder that all nodes see under this path; None for the cache folder of this machine.
        worker_cpus: cores of each worker; None for a node's cores, divided by its GPUs where it has some.
        worker_gpus: GPUs of each worker on cuda; two share one of which each takes half.
    """

    device: DeviceName
    precision: Precision
    batch_size: Annotated[int, Range(1, 65_535)]
    workers: Annotated[int | None, Range(0)]
    storage: Storage
    engine: Engine = "local"
    address: str = "local"
    scratch: str | None = None
    worker_cpus: Annotated[int | None, Range(1)] = None
    worker_gpus: Annotated[float, Range(0.01, 1)] = 1.0

    @property
    def worker_count(self) -> int:
        return cores() if self.workers is None else self.workers
