"""Where the project is: found upward from a folder, as git finds its own."""

from __future__ import annotations

import os
from pathlib import Path

from clipcifar.core.errors import ConfigError

MARKS = ("params.yaml", "dvc.yaml")  # a study's folder has a dvc.yaml too, and no params.yaml


def find_root(folder: Path) -> Path:
    """The nearest folder, from this one upward, that holds params.yaml and dvc.yaml.

    Upward it stays among folders of one owner: DVC runs what a dvc.yaml says, and in a folder that all
    may write to, such as the one for temporary files, a stranger could have put one.

    Args:
        folder: where to begin, absolute.

    Raises:
        ConfigError: there is none, or it is another user's.
    """
    for place in (folder, *folder.parents):
        if all(os.path.isfile(place / mark) for mark in MARKS):
            if _owner(place) == _owner(folder):
                return place
            raise ConfigError(
                f"the project above is not of the same owner as the current folder: {place}",
                where=str(folder),
                fix="go to the project's folder, if you trust what its dvc.yaml runs",
            )
    names = " and ".join(MARKS)
    raise ConfigError(
        f"there is no project here: no folder from this one upward holds {names}",
        where=str(folder),
        fix="go to the project's folder, or clone it; a file that was deleted there is brought back by "
        "git checkout HEAD -- and its name",
    )


def dvc_folder(repository: Path) -> Path:
    """DVC's own folder, looked for upward as DVC does: where several projects share one it is above them.

    A folder of that name made in the project would be its own DVC repository. So where there is none at all,
    the project's is named, in which DVC would be set up.

    Args:
        repository: the root of the project, absolute.
    """
    folders = (place / ".dvc" for place in (repository, *repository.parents))
    return next((folder for folder in folders if folder.is_dir()), repository / ".dvc")


def _owner(folder: Path) -> int:
    return folder.stat().st_uid
