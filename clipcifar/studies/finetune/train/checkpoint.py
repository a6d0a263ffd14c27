"""The state of a long training after its last finished epoch, kept so that a killed run goes on there.

A checkpoint is a few parts, each named tensors in a safetensors file of its own, and a manifest with
their digests and its own, written last. A kill leaves the checkpoint before; a damaged one counts as
missing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from clipcifar.core import run_lock
from clipcifar.core.files import (
    canonical_json,
    explained,
    fault_behind,
    file_sha256,
    sha256_of,
    write_atomically,
)

Parts = dict[str, dict[str, torch.Tensor]]
_MANIFEST = "manifest.json"


class Checkpoints:
    """The checkpoints of one training.

    Args:
        root: the scratch folder of all trainings.
        fingerprint: digest of everything that determines the result; names this one's folder.

    Attributes:
        folder: of this training alone; deleting it begins it anew.
    """

    def __init__(self, root: Path, fingerprint: str) -> None:
        self.folder = root / fingerprint[:32]
        self._fingerprint = fingerprint
        self._files: dict[str, list[str]] = {}  # by part, its file's name and sha256

    def locked(self) -> AbstractContextManager[None]:
        """Hold the folder alone; EnvironmentFault when another run does, or it cannot be written."""
        return run_lock.alone(self.folder, doing="training the same model")

    def write(self, epoch: int, parts: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Keep these parts, beside those of the last checkpoint that are not among them.

        One part at a time is copied to the host, which bounds the memory.
        """
        files = dict(self._files)
        for part, tensors in parts.items():
            on_host = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            path = self.folder / f"{epoch:04d}-{part}.safetensors"
            write_atomically(path, safetensors.torch.save(on_host))
            files[part] = [path.name, file_sha256(path)]
        manifest = {"fingerprint": self._fingerprint, "files": files}
        sealed = {**manifest, "sha256": sha256_of(manifest)}
        write_atomically(self.folder / _MANIFEST, canonical_json(sealed).encode())
        self._files = files
        current = {name for name, _ in files.values()}
        with explained(self.folder):
            for path in self.folder.glob("*.safetensors"):
                if path.name not in current:
                    path.unlink()

    def read(self) -> Parts | None:
        """The parts of the last checkpoint on the host, or None when there is none that is whole.

        Raises:
            EnvironmentFault: it is there and cannot be read; training anew would write over it.
        """
        try:
            manifest = json.loads((self.folder / _MANIFEST).read_bytes())
            seal = manifest.pop("sha256")
            if manifest["fingerprint"] != self._fingerprint or seal != sha256_of(manifest):
                return None
            parts: Parts = {}
            for part, (name, sha256) in manifest["files"].items():
                path = self.folder / Path(name).name
                if not path.is_file() or file_sha256(path) != sha256:
                    return None
                parts[part] = safetensors.torch.load_file(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            if fault := fault_behind(error, self.folder):
                raise fault from error
            return None
        self._files = manifest["files"]
        return parts

    def remove(self) -> None:
        """Delete them, once what they were for is safely written."""
        shutil.rmtree(self.folder, ignore_errors=True)
