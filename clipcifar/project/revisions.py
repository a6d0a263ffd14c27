"""Predictions of another git revision or DVC experiment, read without touching the workspace."""

from __future__ import annotations

import tempfile
from pathlib import Path

from clipcifar.core.errors import ConfigError
from clipcifar.store.predictions import Predictions, read_predictions


def predictions_at(repository: Path, revision: str, path: str) -> Predictions:
    """Read and verify a predictions file as it was at a revision.

    Args:
        repository: the root of the git and DVC repository.
        revision: a commit, branch, tag or experiment name.
        path: of the file, relative to the root.

    Raises:
        ConfigError: there is no such revision, or DVC no longer holds its predictions.
        DataError: what DVC holds is damaged.
    """
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    try:
        content = DVCFileSystem(str(repository), rev=revision).read_bytes(path)
    except (DvcException, SCMError, OSError) as error:
        raise ConfigError(
            f"cannot read the predictions of {revision!r}: {error}",
            where=path,
            fix="run `dvc repro`, or name a commit or experiment whose `dvc repro` ran here",
        ) from error
    with tempfile.NamedTemporaryFile(suffix=".h5") as copy:
        copy.write(content)
        copy.flush()
        return read_predictions(Path(copy.name))
