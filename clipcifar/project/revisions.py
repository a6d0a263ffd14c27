"""Another git revision or DVC experiment: its predictions, and whether they are of its params.yaml.

The workspace is not touched.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from clipcifar.core.errors import ConfigError
from clipcifar.project import dvc_cache, lockfile
from clipcifar.project.state import Stale, State
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


def stale_at(repository: Path, revision: str, path: str) -> Stale | None:
    """Why a result is not of the params.yaml that the same revision holds; None where it is.

    What the revision's dvc.lock says is held against its params.yaml and against itself, for a commit can be
    made between an edit and its `dvc repro`.

    Args:
        repository, revision, path: as `predictions_at` has them, which has read the file.
    """
    from dvc.api import DVCFileSystem

    read = DVCFileSystem(str(repository), rev=revision).read_bytes
    settings = lockfile.settings_in(read("params.yaml"))
    state = State(
        settings,
        lockfile.asked_stages(read, ["dvc.yaml"], settings),
        lockfile.recorded_runs(read, ["dvc.lock"]),
        source_changed=lambda source, recorded: False,
        listing=lambda folder, digest: dvc_cache.kept_listing(repository, digest),
    )
    return state.stale(path, f"{Path(path).stem} of {revision}")
