"""What the checks of a card ask of torch: the device, its clock, its matrix rate, and where time went.

Every function has a branch for a CPU, so that all of it runs without a card.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from common import offers
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from clipcifar.backbone import device as devices
from clipcifar.core.processes import cores

DEVICE = devices.choose("auto", key="the device")
ON_CARD = DEVICE.type == "cuda"
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Kernels on a card and operators on a CPU, by what their names say; the first that fits counts.
KINDS = {
    "attention": "flash|fmha|attention|sdpa|softmax",
    "matrix products": "gemm|cutlass|cublas|nvjet|matmul|addmm|aten::mm|aten::bmm|linear|conv",
    "copies and casts": "copy|memset|aten::cat",
    "normalisation": "norm",
    "elementwise and the rest": "",
}


def sync() -> None:
    """Wait for the card."""
    if ON_CARD:
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], *, rounds: int = 1) -> float:
    """Seconds of a call, the mean of some after one that does not count; the card's work included."""
    work()
    sync()
    start = time.perf_counter()
    for _ in range(rounds):
        work()
    sync()
    return (time.perf_counter() - start) / rounds


def machine() -> dict[str, Any]:
    """The machine in words and numbers."""
    about = {"device": DEVICE.type, "cores": cores(), "python": platform.python_version()}
    about["torch"] = torch.__version__
    if ON_CARD:
        about |= {"card": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
        about["free_and_all_gib"] = [round(num_bytes / 2**30, 1) for num_bytes in torch.cuda.mem_get_info()]
    return about


def precisions() -> list[str]:
    """fp32, a card's tf32 (which is none of params.yaml's), and what else the device offers."""
    offered = ["fp32", "tf32"] if ON_CARD else ["fp32"]
    offered += [name for name in ("bf16", "fp16") if offers(DEVICE, name)]
    return offered


@contextmanager
def set_to(precision: str) -> Iterator[None]:
    """Within it a card rounds float32 products to tf32, where that is the precision."""
    if ON_CARD:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        if ON_CARD:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def matrix_rate(precision: str, size: int) -> float:
    """TFLOP/s of a product of two square matrices of random numbers."""
    square = torch.randn((size, size), device=DEVICE).to(DTYPES[precision])
    with set_to(precision):
        return 2 * size**3 / seconds_of(lambda: square @ square, rounds=10) / 1e12


def upload_rate(num_bytes: int) -> float:
    """GB/s from pinned memory to the device."""
    host = torch.zeros(num_bytes, dtype=torch.uint8, pin_memory=ON_CARD)
    target = torch.empty(num_bytes, dtype=torch.uint8, device=DEVICE)
    return num_bytes / seconds_of(lambda: target.copy_(host, non_blocking=True), rounds=5) / 1e9


def profiled(work: Callable[[], object]) -> tuple[float, float, dict[str, float]]:
    """Where a call's time goes, after one that does not count.

    Returns:
        Its seconds; the share of them that the host waits in CUDA's synchronising calls, little where it is
        the host that limits; and the share of each kernel and copy, which do not overlap in one stream.
    """
    work()
    sync()
    start = time.perf_counter()
    with profile(activities=[ProfilerActivity.CUDA] * ON_CARD + [ProfilerActivity.CPU]) as taken:
        work()
        sync()
        seconds = time.perf_counter() - start
    shares, waiting = dict[str, float](), 0.0
    for event in taken.key_averages():
        if "Synchronize" in event.key:
            waiting += event.self_cpu_time_total / 1e6 / seconds
        elif not ON_CARD or event.device_type == DeviceType.CUDA:
            own = event.self_device_time_total if ON_CARD else event.self_cpu_time_total
            shares[event.key] = shares.get(event.key, 0.0) + own / 1e6 / seconds
    return seconds, waiting, shares


def by_kind(shares: dict[str, float]) -> dict[str, float]:
    """Shares of kernels by name, added up by `KINDS`."""
    added = dict.fromkeys(KINDS, 0.0)
    for name, share in shares.items():
        added[next(kind for kind, names in KINDS.items() if re.search(names, name.lower()))] += share
    return added


@contextmanager
def two_cores() -> Iterator[None]:
    """Within it this process has two cores of the CPU, and torch two threads."""
    threads, before = torch.get_num_threads(), os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, sorted(before)[:2])
        torch.set_num_threads(2)
        yield
    finally:
        os.sched_setaffinity(0, before)
        torch.set_num_threads(threads)
