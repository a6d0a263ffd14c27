"""A finished run that is harmed on purpose, what `clipcifar doctor` says of it, and its commands followed."""

from __future__ import annotations

import os
from pathlib import Path

import h5py

from clipcifar.core.errors import ClipcifarError
from clipcifar.doctor import checks as doctor
from tests.support.workspace import Workspace


def flip(path: Path) -> None:
    """Flip a bit of what the file holds; HDF5 also has bytes that mean nothing."""
    mode = path.stat().st_mode
    os.chmod(path, 0o644)
    content = bytearray(path.read_bytes())
    content[_data_offset(path) if content.startswith(b"\x89HDF") else len(content) // 2] ^= 1
    path.write_bytes(content)
    os.chmod(path, mode)


def _data_offset(path: Path) -> int:
    offsets = []
    with h5py.File(path) as file:
        file.visititems(
            lambda _, item: (
                offsets.append(item.id.get_chunk_info(0).byte_offset)
                if isinstance(item, h5py.Dataset) and item.chunks
                else None
            )
        )
    return int(offsets[0])


def problems(workspace: Workspace) -> list[tuple[str, ClipcifarError]]:
    found = doctor.examine(workspace.folder)
    return [(name, said) for name, said in found if isinstance(said, ClipcifarError)]


def follow(workspace: Workspace, command: str) -> None:
    """Run a command as a person would paste it, without anyone to answer a question."""
    workspace.command("bash", "-c", command + " < /dev/null")
