"""Where the project's results can be had from other machines: DVC's remote, as its settings say."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipcifar.core.errors import DataError
from clipcifar.project.dvc_project import FOLDER, listing, object_path
from clipcifar.project.root import dvc_folder

_OBJECTS = Path("files", "md5")  # in a remote that is a folder, as in DVC's cache


@dataclass(frozen=True)
class Remote:
    """One of DVC's remotes: the default, else the first.

    Attributes:
        name: as DVC's settings have it.
        url: a folder's path, or an address.
        is_default: whether DVC asks it unless told otherwise.
        in_git: whether the project's .dvc/config names it, and not this clone's or this user's own settings.
    """

    name: str
    url: str
    is_default: bool
    in_git: bool

    @property
    def option(self) -> str:
        """What `dvc pull` and `dvc fetch` need besides."""
        return "" if self.is_default else f" --remote {shlex.quote(self.name)}"

    @property
    def folder(self) -> Path | None:
        """Of one that is a folder, perhaps on a disk that is not mounted now; None for one to be asked."""
        return None if re.match(r"\w+://", self.url) else Path(self.url)

    @property
    def is_gone(self) -> bool:
        """Whether it is a folder, and not there."""
        return self.folder is not None and not self.folder.is_dir()

    @property
    def called(self) -> str:
        """Name, place, and what is wrong with it, for a person."""
        return (
            f"the remote {self.name!r} ({self.url}{', a folder that is not there' if self.is_gone else ''})"
        )

    def may_hold(self, digest: str) -> bool:
        """Whether it has what is of that digest; only a folder can be looked into from here, else perhaps."""
        return self.folder is None or holds(self.folder / _OBJECTS, digest)


def holds(objects: Path, digest: str) -> bool:
    """Whether a folder of DVC's objects has all of an output: of a folder, every file; unread.

    Raises:
        DataError: it is no digest of DVC's.
    """
    path = object_path(objects, digest)
    if not path.is_file() or not digest.endswith(FOLDER):
        return path.is_file()
    with suppress(DataError):  # no listing
        return all(object_path(objects, member).is_file() for member in listing(path).values())
    return False


def settings(repository: Path) -> dict[str, Any]:
    """All of DVC's settings, of the system, the user, the project and this clone; none where unreadable."""
    from dvc.config import ConfigError

    with suppress(ConfigError, OSError):  # DVC itself, and the doctor, say what is wrong with them
        return dict(_config(repository))
    return {}


def _config(repository: Path) -> Any:
    from dvc.config import Config

    return Config(str(dvc_folder(repository.resolve())))


def remote_of(repository: Path) -> Remote | None:
    """The remote to ask, or None where no settings name one."""
    said = settings(repository)
    remotes, default = said.get("remote", {}), said.get("core", {}).get("remote")
    name = default if default in remotes else next(iter(remotes), None)
    if name is None:
        return None
    in_git = name in _config(repository).load_one("repo")["remote"]
    return Remote(name, str(remotes[name].get("url", "")), name == default, in_git)
