"""What a command is, and what commands share: being in the project, and a word about stale results."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from clipcifar.core.errors import ClipcifarError, ConfigError
from clipcifar.project.root import find_root


@dataclass(frozen=True)
class Command:
    """One row of the table in `main.py`."""

    run: Callable[[Namespace], str]
    """Does it, from wherever the user is; returns what is left to print."""
    help: str
    """Its line in the list of commands."""
    description: str | None = None
    """What its own `--help` says first."""
    arguments: Callable[[ArgumentParser], object] = lambda parser: None
    """Declares what it takes."""


def add_folder(parser: ArgumentParser, name: str, *, explanation: str) -> None:
    """Declare an argument that names a folder.

    It is relative to where the user is: use it outside `in_project`. A shell completes it.
    """
    action = parser.add_argument(name, type=Path, metavar="FOLDER", help=explanation)
    # shtab looks here; its own constant would have to be imported at every start.
    action.complete = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/", "tcsh": "d"}  # type: ignore[attr-defined]


@contextmanager
def in_project(*, required: bool = True) -> Iterator[None]:
    """Work in the project's folder, found upward from the current one, and go back; decorates commands.

    All paths of a command are relative to it, and so is what errors say. For a user who is elsewhere a
    note names it then.

    Args:
        required: else, where there is no project, the command works where the user is.

    Raises:
        ConfigError: there is no project, or no current folder.
    """
    try:
        here = Path.cwd()
    except OSError as error:
        raise ConfigError(
            "the current folder is gone", fix="go to the project's folder, or clone it"
        ) from error
    try:
        root = find_root(here)
    except ConfigError:
        if required:
            raise
        root = here
    os.chdir(root)
    try:
        yield
    except (ClipcifarError, SystemExit) as error:
        if isinstance(error, ClipcifarError):
            from clipcifar.project import missing

            missing.explain(error, root)
        if root != here:
            print(f"note: paths and commands are those of the project's folder, {root}", file=sys.stderr)
        raise
    finally:
        with suppress(OSError):  # the command may have replaced the folder
            os.chdir(here)


def warn_of_changes() -> None:
    """Say that params.yaml has changed since the results were made, if it has."""
    from clipcifar.project.lockfile import changed_keys

    changed = changed_keys(Path.cwd())
    if changed:
        named = ", ".join(changed[:5]) + (" and more" if len(changed) > 5 else "")
        print(f"note: changed since the last `dvc repro`, and not in these numbers: {named}", file=sys.stderr)
