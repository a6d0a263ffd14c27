"""Tar shards for tests: members with given bytes, or odd ones."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image


def png(name: str) -> bytes:
    """A small image whose colour is its name's."""
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), tuple(hashlib.sha256(name.encode()).digest()[:3])).save(stream, "PNG")
    return stream.getvalue()


def tar_of(members: Mapping[str, bytes] | Sequence[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tar with these members, as tarfile writes it."""
    if isinstance(members, Mapping):
        members = [(tarfile.TarInfo(name), content) for name, content in members.items()]
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for entry, content in members:
            if entry.isreg():
                entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def labelled(labels: Sequence[str | int], *, prefix: str = "") -> dict[str, bytes]:
    """Members `<prefix>000000.png` and `.cls`, a pair for each label."""
    members: dict[str, bytes] = {}
    for i, label in enumerate(labels):
        members[f"{i:06d}.png"] = png(f"{prefix}{i}")
        members[f"{i:06d}.cls"] = str(label).encode()
    return members


def write(root: Path, shards: Mapping[str, bytes]) -> Path:
    """Files below a folder."""
    for name, content in shards.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root
