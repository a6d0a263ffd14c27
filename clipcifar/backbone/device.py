"""Everything that depends on the kind of device; the rest of the code is device-agnostic."""

from __future__ import annotations

import os
import platform
import re
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch.amp.grad_scaler import GradScaler

from clipcifar.backbone.params import DeviceName, Precision
from clipcifar.core import processes
from clipcifar.core.errors import ConfigError, EnvironmentFault

# Torch's allocator on the host, C++, CUDA's runtime (pinned memory, too), cuBLAS, and oneDNN. The last has no
# memory for its code when it cannot create a primitive; what it cannot compute has no primitive descriptor.
_OUT_OF_MEMORY = re.compile(
    "allocate memory|bad_alloc|out of memory|STATUS_ALLOC_FAILED"
    "|could not create a (memory object|primitive(?! descriptor))"
)
# What a processor must have for a precision to be faster there than fp32, as `torch.cpu.get_capabilities`
# names it: for bf16 one of these on x86, or ARM's.
_FASTER_WITH = {"bf16": ("avx512_bf16", "amx_bf16", "bf16"), "fp16": ("avx512_fp16", "amx_fp16")}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Before MKL is first called: left to itself it divides some sums among threads, and on processors without
# AVX-512 their number then shows in the last digits.
os.environ.setdefault("MKL_CBWR", "AUTO")


def choose(name: DeviceName, *, key: str) -> torch.device:
    """The device asked for; "auto" takes cuda, else mps, else cpu.

    Args:
        name: what params.yaml says.
        key: where it says so, for the message.

    Raises:
        ConfigError: the device asked for by name is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, available in there.items() if available))
    if not there[name]:
        raise ConfigError(f"there is no {name} device here", where=f"params.yaml: {key}", fix="use auto")
    return torch.device(name)


def model_of(device: torch.device, precision: Precision) -> str:
    """What may compute other last digits than another device of its kind: the GPU, or what a CPU can do."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return platform.machine()
    return " ".join([torch.backends.cpu.get_cpu_capability(), *_instructions(precision)])


def _instructions(precision: Precision) -> list[str]:
    """Of those that make a precision fast, the ones that this processor has."""
    there: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # older torches do not tell
    return [name for name in _FASTER_WITH.get(precision, ()) if there.get(name, False)]


def dtype_of(device: torch.device, precision: Precision, *, key: str = "embed.precision") -> torch.dtype:
    """What a frozen tower computes in.

    Args:
        precision: what params.yaml says under `key`.

    Raises:
        ConfigError: the device does not offer it, or it would be slower there than fp32.
    """
    if precision == "fp32" or device.type == "cuda" or (device.type == "cpu" and _instructions(precision)):
        return _DTYPES[precision]
    if device.type == "cpu" and not hasattr(torch.cpu, "get_capabilities"):
        what = f"this torch, {torch.__version__}, does not tell whether precision {precision} is faster than "
        what += "fp32 on this processor"
    elif device.type == "cpu":
        what = f"precision {precision} is slower than fp32 on this processor, which has none of "
        what += ", ".join(_FASTER_WITH[precision])
    else:
        what = f"precision {precision} is for cuda and cpu, the device is {device.type}"
    raise ConfigError(what, where=f"params.yaml: {key}", fix="use fp32")


def autocast(
    device: torch.device, precision: Precision, *, key: str = "embed.precision"
) -> AbstractContextManager[object]:
    """Mixed precision where it is offered: bf16 and fp16 on cuda.

    Args:
        precision: what params.yaml says under `key`.

    Raises:
        ConfigError: mixed precision is asked for on another device.
    """
    if precision == "fp32":
        return nullcontext()
    if device.type != "cuda":
        raise ConfigError(
            f"precision {precision} is for cuda, the device is {device.type}",
            where=f"params.yaml: {key}",
            fix="use fp32",
        )
    return torch.autocast("cuda", dtype=_DTYPES[precision])


def keep_fp32_whole(device: torch.device) -> None:
    """Let a card convolve in fp32: unless it is told, cuDNN rounds to tf32, 10 bits after the point."""
    if device.type != "cuda":
        return
    with warnings.catch_warnings():  # torch 2.9 tells of a new name, which it then refuses beside this one
        warnings.simplefilter("ignore", UserWarning)
        torch.backends.cudnn.allow_tf32 = False


def gradient_scaler(device: torch.device, precision: Precision) -> GradScaler:
    """Loss scaling for fp16, whose smallest number many gradients fall below; elsewhere it does nothing."""
    return GradScaler(device.type, enabled=precision == "fp16" and device.type == "cuda")


def upload(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor to the device, on cuda through pinned memory so that the copy overlaps work."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Download:
    """A tensor on its way to the host, started at once.

    On cuda it is copied into pinned memory behind the work that makes it, and waiting for it does
    not wait for work that was queued later; elsewhere it is copied when it is asked for.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor, self._done = tensor, None
        if tensor.device.type == "cuda":
            self._tensor = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._tensor.copy_(tensor, non_blocking=True)
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._done.record()

    def wait(self) -> torch.Tensor:
        """The tensor on the host."""
        if self._done is not None:
            self._done.synchronize()
        return self._tensor.cpu()


def keep_freed_memory(device: torch.device) -> None:
    """As `processes.keep_freed_memory`, on a CPU: activations take up to a quarter of the tower's time."""
    if device.type == "cpu":
        processes.keep_freed_memory()


def short_batch_multiple(device: torch.device, batch_size: int) -> int:
    """To a multiple of how many images a short batch is filled up, so that its rows are as in any other.

    Other shapes may have other kernels, whose sums end in other digits. On a CPU, batches of eight images and
    more give equal bytes (docs/limits.md has the towers), and a few photographs need not cost as much as a
    whole batch; elsewhere batches are always full.
    """
    return min(8, batch_size) if device.type == "cpu" else batch_size


def make_deterministic(seed: int) -> None:
    """Seed torch and ask for deterministic kernels, which on cuda need the cuBLAS workspace set."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms would import the compiler
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # NaN costs time
    torch.manual_seed(seed)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says, in any of torch's ways, that the host or the device has no memory left."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None


@contextmanager
def out_of_memory_explained(setting: str, *, fix: str = "") -> Iterator[None]:
    """Name a setting when memory runs out, on the host or on the device.

    Args:
        setting: its key in params.yaml.
        fix: what to do; by default to lower the setting.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not is_out_of_memory(error):
            raise
        raise EnvironmentFault(
            "out of memory", where=f"params.yaml: {setting}", fix=fix or f"lower {setting}"
        ) from error
