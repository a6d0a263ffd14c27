"""Devices: which one is taken, what each offers, and what running out of memory says."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import pytest
import torch

from clipcifar.backbone import device
from clipcifar.backbone.params import Precision
from clipcifar.core import processes
from clipcifar.core.errors import ConfigError, EnvironmentFault
from tests.support.import_closure import ROOT


def _there(monkeypatch: pytest.MonkeyPatch, *, cuda: bool, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "taken"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_cuda_then_mps_then_cpu(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, taken: str
) -> None:
    _there(monkeypatch, cuda=cuda, mps=mps)
    assert device.choose("auto", key="embed.device") == torch.device(taken)


@pytest.mark.parametrize("name", ["cuda", "mps", "cpu"])
def test_a_device_that_is_there_is_taken_by_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    _there(monkeypatch, cuda=True, mps=True)
    assert device.choose(name, key="embed.device").type == name  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused_with_its_key(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    _there(monkeypatch, cuda=False, mps=False)
    with pytest.raises(ConfigError, match=f"no {name} device") as caught:
        device.choose(name, key="mlp_probe.device")  # type: ignore[arg-type]
    assert caught.value.where == "params.yaml: mlp_probe.device"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("kind", ["cpu", "mps", "cuda"])
def test_fp32_is_offered_everywhere(kind: str) -> None:
    assert isinstance(device.autocast(torch.device(kind), "fp32"), nullcontext)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("kind", ["cpu", "mps"])
def test_mixed_precision_away_from_cuda_is_refused(kind: str, precision: str) -> None:
    with pytest.raises(ConfigError, match=f"{precision} is for cuda, the device is {kind}"):
        device.autocast(torch.device(kind), precision)  # type: ignore[arg-type]


@pytest.mark.cuda
@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_mixed_precision_on_cuda_is_the_one_asked_for(precision: str, dtype: torch.dtype) -> None:
    matrix = torch.eye(4, device="cuda")
    with device.autocast(torch.device("cuda"), precision):  # type: ignore[arg-type]
        assert (matrix @ matrix).dtype == dtype


def _instructions(monkeypatch: pytest.MonkeyPatch, *there: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(there, True), raising=False)


@pytest.mark.parametrize(
    ("there", "precision", "dtype"),
    [
        ("avx512_bf16", "bf16", torch.bfloat16),
        ("amx_bf16", "bf16", torch.bfloat16),
        ("bf16", "bf16", torch.bfloat16),  # ARM's name
        ("avx512_fp16", "fp16", torch.float16),
        ("amx_fp16", "fp16", torch.float16),
        ("avx512_f", "fp32", torch.float32),
    ],
)
def test_a_processor_computes_in_what_it_is_faster_in(
    there: str, precision: Precision, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    _instructions(monkeypatch, "avx2", there)
    assert device.dtype_of(torch.device("cpu"), precision) == dtype
    if precision != "fp32":
        other: Precision = "fp16" if precision == "bf16" else "bf16"
        with pytest.raises(ConfigError, match=f"{other} is slower than fp32 on this processor") as caught:
            device.dtype_of(torch.device("cpu"), other, key="embed.precision")
        assert (caught.value.where, caught.value.fix) == ("params.yaml: embed.precision", "use fp32")
        with pytest.raises(ConfigError, match=f"{precision} is for cuda and cpu, the device is mps"):
            device.dtype_of(torch.device("mps"), precision)


def test_a_torch_that_does_not_tell_offers_fp32_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    cpu = torch.device("cpu")
    assert device.dtype_of(cpu, "fp32") == torch.float32
    assert device.model_of(cpu, "bf16") == device.model_of(cpu, "fp32")
    with pytest.raises(ConfigError, match="does not tell whether precision bf16 is faster than fp32"):
        device.dtype_of(cpu, "bf16")


def test_two_processors_that_compute_otherwise_in_a_precision_are_told_apart_in_it_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models: list[dict[Precision, str]] = []
    for there in (("avx512_bf16",), ("avx512_bf16", "amx_bf16")):
        _instructions(monkeypatch, *there)
        precisions: list[Precision] = ["fp32", "bf16"]
        models.append({name: device.model_of(torch.device("cpu"), name) for name in precisions})
    assert models[0]["fp32"] == models[1]["fp32"] != models[0]["bf16"] != models[1]["bf16"]


@pytest.mark.filterwarnings("ignore:Please use the new API settings")  # torch 2.9 tells of a name
def test_on_a_card_alone_convolutions_are_kept_from_rounding_to_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    device.keep_fp32_whole(torch.device("cpu"))
    assert torch.backends.cudnn.allow_tf32
    device.keep_fp32_whole(torch.device("cuda"))
    assert not torch.backends.cudnn.allow_tf32


def test_an_upload_keeps_every_value() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 5, 7)).astype(np.uint8))
    assert torch.equal(device.upload(images, torch.device("cpu")), images)


@pytest.mark.cuda
def test_an_upload_to_cuda_keeps_every_value() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 5, 7)).astype(np.uint8))
    on_card = device.upload(images, torch.device("cuda"))
    assert on_card.device.type == "cuda"
    assert torch.equal(on_card.cpu(), images)


def test_a_seed_decides_the_random_numbers_and_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = torch.are_deterministic_algorithms_enabled()
    try:
        drawn = []
        for seed in (3, 3, 4):
            device.make_deterministic(seed)
            drawn.append(torch.rand(5))
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(before)
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: x"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("could not create a memory object"),
        RuntimeError("could not create a primitive"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_running_out_of_memory_names_the_setting_to_lower(error: Exception) -> None:
    with pytest.raises(EnvironmentFault, match="out of memory") as caught, _explained():
        raise error
    assert (caught.value.where, caught.value.fix) == (
        "params.yaml: embed.batch_size",
        "lower embed.batch_size",
    )
    assert caught.value.exit_code == 4


def test_a_real_allocation_that_fails_is_recognised() -> None:
    with pytest.raises(EnvironmentFault, match="out of memory"), _explained():
        torch.empty(1 << 50, dtype=torch.uint8)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes cannot be multiplied"),
        RuntimeError("could not create a primitive descriptor for a matmul primitive"),
        ValueError("x"),
        OSError(5),
    ],
)
def test_other_errors_are_not_taken_for_a_full_memory(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, _explained():
        raise error
    assert caught.value is error


def _explained() -> AbstractContextManager[None]:
    return device.out_of_memory_explained("embed.batch_size")


@pytest.mark.parametrize("kind", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_a_download_brings_every_value(kind: str) -> None:
    values = torch.randn(7, 5)
    on_device = values.to(kind)
    started = device.Download(on_device)
    assert torch.equal(started.wait(), values)
    assert started.wait().device.type == "cpu"


def test_keeping_freed_memory_is_asked_of_glibc_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []

    class Library:
        def mallopt(self, option: int, value: int) -> None:
            calls.append((option, value))

    monkeypatch.setattr(processes.ctypes, "CDLL", lambda _: Library())
    monkeypatch.setattr(processes.platform, "libc_ver", lambda: ("glibc", "2.36"))
    device.keep_freed_memory(torch.device("cpu"))
    assert calls == [(-4, 0), (-1, 2**31 - 1)]
    device.keep_freed_memory(torch.device("cuda"))
    monkeypatch.setattr(processes.platform, "libc_ver", lambda: ("", ""))
    device.keep_freed_memory(torch.device("cpu"))
    assert len(calls) == 2


@pytest.mark.parametrize(("given", "expected"), [(None, "AUTO"), ("COMPATIBLE", "COMPATIBLE")])
def test_the_number_of_threads_is_kept_out_of_products_unless_the_user_has_said_otherwise(
    given: str | None, expected: str
) -> None:
    """What that does shows in tests/pipeline/test_determinism.py, on processors without AVX-512."""
    environment = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    if given is not None:
        environment["MKL_CBWR"] = given
    code = "import os, clipcifar.backbone.device; print(os.environ['MKL_CBWR'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{expected}\n"


@pytest.mark.parametrize(
    ("kind", "batch_size", "multiple"), [("cpu", 256, 8), ("cpu", 4, 4), ("cuda", 256, 256), ("mps", 1, 1)]
)
def test_short_batches_are_made_whole_except_on_a_cpu(kind: str, batch_size: int, multiple: int) -> None:
    assert device.short_batch_multiple(torch.device(kind), batch_size) == multiple
