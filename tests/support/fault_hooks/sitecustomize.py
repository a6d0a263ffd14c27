"""Python runs this at the start of a stage under test: it notes, slows and fails what FAULT asks for.

FAULT is a JSON object. The stage itself is the real one; only what is named is changed:

log             file that gets a line for every model loaded and every batch encoded
slow_s          seconds to sleep before every batch of images, and slow_write_s in every write
hold            file: while it exists, the tower waits before every batch but the first `hold_after`
shard_rows      rows of a shard, so that a small dataset has many
error           raised by a tower for a batch of images above `above` rows, after `after` batches
text_error      raised by the text tower after `text_after` batches
room            bytes of memory that may still be had when the model is loaded
load_error      raised when the model is loaded
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any

FAULT: dict[str, Any] = json.loads(os.environ.get("FAULT", "{}"))


class AfterImport:
    """Calls a function on a module when it has been imported."""

    def __init__(self, name: str, patch: Callable[[Any], None]) -> None:
        self._name, self._patch = name, patch

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        if name != self._name:
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_patch(module: Any) -> None:
            execute(module)
            self._patch(module)

        spec.loader.exec_module = execute_and_patch  # type: ignore[method-assign]
        return spec


def note(*words: object) -> None:
    if "log" in FAULT:
        with open(FAULT["log"], "a") as file:
            file.write(" ".join(map(str, (os.getpid(), *words))) + "\n")


def error_named(name: str) -> BaseException:
    import torch

    errors: dict[str, BaseException] = {
        "MemoryError": MemoryError(),
        "OutOfMemoryError": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    }
    return errors[name]


def patch_backbone(module: Any) -> None:
    backbone, text_tower = module.Backbone, module.TextTower
    load, encode_images, encode_tokens = backbone.load, backbone.encode_images, text_tower.encode
    calls = {"images": 0, "text": 0}

    def noted_load(cls: Any, *arguments: Any, **named: Any) -> Any:
        note("load")
        loaded = load(*arguments, **named)
        if "room" in FAULT:
            limit_memory(FAULT["room"])
        return loaded

    def noted_encode(self: Any, images: Any, *arguments: Any, **named: Any) -> Any:
        note("images", hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()[:16], len(images))
        time.sleep(FAULT.get("slow_s", 0))
        calls["images"] += 1
        while calls["images"] > FAULT.get("hold_after", 0) and os.path.exists(FAULT.get("hold", "")):
            time.sleep(0.01)
        if (
            "error" in FAULT
            and len(images) > FAULT.get("above", 0)
            and calls["images"] > FAULT.get("after", 0)
        ):
            raise error_named(FAULT["error"])
        return encode_images(self, images, *arguments, **named)

    def noted_tokens(self: Any, tokens: Any, *arguments: Any) -> Any:
        note("text", len(tokens))
        calls["text"] += 1
        if "text_error" in FAULT and calls["text"] > FAULT.get("text_after", 0):
            raise error_named(FAULT["text_error"])
        return encode_tokens(self, tokens, *arguments)

    def failing_create(*_: Any, **__: Any) -> Any:
        raise error_named(FAULT["load_error"])

    if "load_error" in FAULT:
        module.open_clip.create_model = failing_create
    backbone.load = classmethod(noted_load)
    backbone.encode_images = noted_encode
    text_tower.encode = noted_tokens


def limit_memory(room: int) -> None:
    """Let the process have `room` bytes more of address space than it has now."""
    import resource

    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + room, now + room))


def patch_extract(module: Any) -> None:
    module.SHARD_ROWS = FAULT.get("shard_rows", module.SHARD_ROWS)


def slow_writes(seconds: float) -> None:
    fsync, replace = os.fsync, os.replace

    def slow_fsync(handle: int) -> None:
        time.sleep(seconds)
        fsync(handle)

    def slow_replace(source: Any, target: Any) -> None:
        time.sleep(seconds)
        replace(source, target)

    os.fsync, os.replace = slow_fsync, slow_replace  # type: ignore[assignment]


if FAULT:
    sys.meta_path.insert(0, AfterImport("clipcifar.backbone.towers", patch_backbone))  # type: ignore[arg-type]
    sys.meta_path.insert(0, AfterImport("clipcifar.embeddings.extract", patch_extract))  # type: ignore[arg-type]
    if "slow_write_s" in FAULT:
        slow_writes(FAULT["slow_write_s"])
