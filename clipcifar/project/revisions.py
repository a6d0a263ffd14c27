"""Predictions of another git revision or DVC experiment, read without touching the workspace."""

from __future__ import annotations

import tempfile
from pathlib import Path

from clipcifar.project import absent
from clipcifar.project.remote import settings
from clipcifar.store.predictions import Predictions, read_predictions


def predictions_at(repository: Path, revision: str, path: str) -> Predictions:
    """Read and verify a predictions file as it was at a revision.

    Args:
        repository: the root of the git and DVC repository.
        revision: a commit, branch, tag or experiment name.
        path: of the file, relative to the root.

    Raises:
        ConfigError: there is no such revision, or none with a run.
        DataError: neither DVC's cache nor a remote has what it made, or what they have is damaged.
    """
    from dvc.api import DVCFileSystem

    def read(name: str) -> bytes:
        # With the settings of today: a commit may be older than the remote, or than the place of the cache.
        filesystem = DVCFileSystem(str(repository), rev=revision, config=settings(repository))
        return bytes(filesystem.read_bytes(name))

    try:
        content = read(path)
    except Exception as error:  # of DVC, git, the network, or a library that a remote needs
        raise absent.explained(error, repository, revision, path, read=read) from error
    with tempfile.NamedTemporaryFile(suffix=".h5") as copy:
        copy.write(content)
        copy.flush()
        return read_predictions(Path(copy.name))
