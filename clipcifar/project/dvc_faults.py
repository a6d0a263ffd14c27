"""What keeps DVC from starting, each with the command that mends it."""

from __future__ import annotations

import json
import os
import shlex
from contextlib import suppress
from pathlib import Path

from clipcifar.core.errors import ClipcifarError, ConfigError, EnvironmentFault
from clipcifar.core.files import fault_behind

_DATABASE = b"SQLite format 3\0"


def explained(error: Exception, repository: Path) -> ClipcifarError:
    """An error of DVC's, in its words.

    Args:
        repository: the root of the project, from where the command is given.
    """
    from dvc.config import ConfigError as SettingsError
    from dvc.exceptions import NotDvcRepoError
    from dvc.scm import SCMError

    if fault := fault_behind(error, getattr(error, "filename", None) or repository):
        return fault
    said = f"DVC says: {error}" if str(error) else f"DVC fails without a word ({type(error).__name__})"
    file = _named(getattr(error, "path", None) or "", repository)
    quoted = shlex.quote(file.as_posix())
    if isinstance(error, SCMError):
        fix = "git init && git add --all && git commit --message start"
    elif isinstance(error, NotDvcRepoError | SettingsError):
        fix = f"git checkout HEAD -- {shlex.quote(_dvc_folder(repository))}"
    elif file.name == "dvc.lock" and ".." not in file.parts:
        fix = without_lock(repository, file)
    elif file.name in ("dvc.lock", "dvc.yaml") or ".." in file.parts:
        fix = f"git checkout HEAD -- {quoted}"
    else:
        fix = "mend params.yaml, whose values stand in dvc.yaml; else git checkout HEAD -- dvc.yaml"
    return ConfigError(said, where=os.path.normpath(repository / file), fix=fix)


def without_lock(repository: Path, lock: Path) -> str:
    """What mends a dvc.lock that cannot be read: that of the last commit, else none, and DVC goes on from it.

    DVC's memory of runs is not pulled: in a clone, without a dvc.lock every stage would run again.

    Args:
        repository: the root of the project.
        lock: from there.
    """
    again = "dvc repro" if lock.parent == Path() else f"clipcifar study {shlex.quote(lock.parent.name)}"
    is_committed = _folder_in_last_commit(repository.resolve(), lock) == repository.resolve()
    return f"{'git checkout HEAD --' if is_committed else 'rm'} {shlex.quote(lock.as_posix())} && {again}"


def _named(name: str, repository: Path) -> Path:
    """The file that DVC names, from the project; in a repository of several projects it may be another's."""
    if name and os.path.isfile(name):  # in full, or from where DVC was started
        return Path(os.path.relpath(name, repository))
    parts = [part for part in Path(name).parts if part not in ("/", "..")]
    ends = [Path(*parts[i:]) for i in range(len(parts))]
    return next((end for end in ends if (repository / end).is_file()), Path(Path(name).name))


def _dvc_folder(repository: Path) -> str:
    """Where the last commit has the folder `.dvc`: in the project, or above it up to git's own root."""
    folder = _folder_in_last_commit(repository, Path(".dvc"))
    return os.path.relpath(folder / ".dvc", repository) if folder else ".dvc"


def _folder_in_last_commit(repository: Path, name: Path) -> Path | None:
    """The project, or else the nearest folder above it up to git's root, where the last commit has `name`."""
    from scmrepo.git import Git

    with suppress(Exception), Git(str(repository)) as scm:
        files, top = scm.get_fs("HEAD"), Path(scm.root_dir)
        for folder in (repository, *repository.parents):
            if files.exists(f"/{(folder / name).relative_to(top).as_posix()}"):
                return folder
    return None


def check_notes(repository: Path, temporary: Path, elsewhere: Path) -> None:
    """Raise EnvironmentFault where a killed run or a full disk has left DVC's own notes unreadable."""
    from dvc.rwlock import RWLOCK_FILE, SCHEMA
    from voluptuous import Invalid

    notes = temporary / RWLOCK_FILE
    try:
        if notes.is_file():
            SCHEMA(json.loads(notes.read_bytes()))
    except (ValueError, Invalid) as error:
        raise EnvironmentFault(
            "DVC's note of who reads and writes what is damaged",
            where=str(notes),
            fix=f"rm {shlex.quote(os.path.relpath(notes, repository))}",
        ) from error
    for path in elsewhere.rglob("*.db"):
        with open(path, "rb") as stream:
            if stream.read(len(_DATABASE)) not in (_DATABASE, b""):
                raise EnvironmentFault(
                    "DVC's note of which files it has hashed is damaged",
                    where=str(path),
                    fix=f"rm -rf {shlex.quote(str(elsewhere))}",
                )
