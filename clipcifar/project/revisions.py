"""Another git revision or DVC experiment: its predictions, and whether they are of its params.yaml.

The workspace is not touched.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

from clipcifar.core.errors import ClipcifarError
from clipcifar.core.files import fault_behind
from clipcifar.project import absent, dvc_cache, dvc_project, lockfile
from clipcifar.project.remote import settings as dvc_settings
from clipcifar.project.state import SENTENCES, Stale, State
from clipcifar.store.predictions import Predictions, read_predictions


def predictions_at(repository: Path, revision: str, path: str) -> Predictions:
    """Read and verify a predictions file as it was at a revision.

    Args:
        repository: the root of the project.
        revision: a commit, branch, tag or experiment name.
        path: of the file, relative to the root.

    Raises:
        ConfigError: there is no such revision, or none with a run.
        DataError: neither DVC's cache nor a remote has what it made, or what they have is damaged.
    """

    def explained(error: Exception, read: lockfile.Read) -> ClipcifarError:
        fault = fault_behind(error, path)
        return fault or absent.explained(error, repository, revision, path, read=read)

    try:
        with _at(repository, revision) as (read, _):
            try:
                content = read(path)
            except Exception as error:  # of DVC, the network, or a library that a remote needs
                raise explained(error, read) from error
    except ClipcifarError:
        raise
    except Exception as error:  # there is no such revision, or no DVC
        raise explained(error, partial(_raise, error)) from error
    with tempfile.NamedTemporaryFile(suffix=".h5") as copy:
        copy.write(content)
        copy.flush()
        return read_predictions(Path(copy.name))


def _raise(error: Exception, path: str) -> bytes:
    raise error


def stale_at(repository: Path, revision: str, path: str) -> Stale | None:
    """Why a result is not of the params.yaml that the same revision holds; None where it is.

    What the revision's dvc.lock says is held against its params.yaml and against itself, for a commit can be
    made between an edit and its `dvc repro`.

    Args:
        repository, revision, path: as `predictions_at` has them, which has read the file.
    """
    with _at(repository, revision) as (read, files):

        def sentences_changed(source: str, recorded: lockfile.File) -> bool:
            """Of what no stage makes, a revision's photographs and weights are not here, and code is told by
            git itself; sentences are text that git has, and a commit may hold them without a run.
            """
            if source != SENTENCES:
                return False
            digests = {
                PurePosixPath(path).relative_to(source).as_posix(): _md5(read(path)) for path in files(source)
            }
            return dvc_project.digest_of_members(digests) != recorded.digest

        settings = lockfile.settings_in(read("params.yaml"))
        state = State(
            settings,
            lockfile.asked_stages(read, ["dvc.yaml"], settings),
            lockfile.recorded_runs(read, ["dvc.lock"]),
            source_changed=sentences_changed,
            listing=lambda folder, digest: dvc_cache.kept_listing(repository, digest),
        )
    return state.stale(path, f"{Path(path).stem} of {revision}")


@contextmanager
def _at(repository: Path, revision: str) -> Iterator[tuple[lockfile.Read, Callable[[str], list[str]]]]:
    """Reads and lists files of the project as they were at a revision, those that DVC keeps among them.

    DVC's own file system of a revision begins where git does, and finds no DVC in a folder below. Its
    settings are those of today: a commit may be older than the remote, or than the place of the cache.
    """
    from dvc.repo import Repo

    with Repo(str(repository), config=dvc_settings(repository)) as repo:
        inside = dvc_project.inside(repo, repository)
        with repo.switch(revision):
            root = PurePosixPath("/", inside.as_posix())

            def files(folder: str) -> list[str]:
                paths = map(PurePosixPath, repo.dvcfs.find(str(root / folder)))
                return [path.relative_to(root).as_posix() for path in paths]

            yield lambda path: bytes(repo.dvcfs.read_bytes(str(root / path))), files


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
