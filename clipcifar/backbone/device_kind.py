"""The kind of device that params.yaml means here, told without importing torch once it is known.

A run that needs no new embedding must not wait for torch, yet the kind of device is part of what
embeddings are filed under. So the answer to "auto" is kept, with all that it depends on.
"""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from clipcifar.backbone.params import DeviceName
from clipcifar.core.errors import DataError, EnvironmentFault
from clipcifar.core.files import cache_folder, read_json, sha256_of, write_json

if TYPE_CHECKING:
    import torch

_DRIVER = Path("/proc/driver/nvidia/version")


def _known() -> Path:
    driver = _DRIVER.read_text() if _DRIVER.is_file() else ""
    circumstances = [version("torch"), driver, os.environ.get("CUDA_VISIBLE_DEVICES"), platform.platform()]
    return cache_folder() / f"device-{sha256_of(circumstances)[:16]}.json"


def forget() -> None:
    """Drop the kept answer, after it has turned out to be wrong."""
    _known().unlink(missing_ok=True)


def device_kind(name: DeviceName) -> str:
    """One of "cuda", "mps" and "cpu"; whether a kind asked for by name is there shows when it is used."""
    if name != "auto":
        return name
    known = _known()
    try:
        return str(read_json(known)["kind"])
    except (DataError, KeyError, TypeError):
        from clipcifar.backbone import device

        kind = device.choose("auto", key="embed.device").type
    with suppress(EnvironmentFault):  # it is only kept for speed
        write_json(known, {"kind": kind})
    return kind


def confirmed(name: DeviceName, kind: str) -> torch.device:
    """The device itself, of the kind that `device_kind` has told.

    Raises:
        ConfigError: the device asked for by name is not there.
        EnvironmentFault: it is of another kind now, which the next run will know.
    """
    from clipcifar.backbone import device

    chosen = device.choose(name, key="embed.device")
    if chosen.type != kind:
        forget()
        raise EnvironmentFault(
            f"the device was {kind} and is {chosen.type} now", fix="run the same command again"
        )
    return chosen
