"""What a command is, and what commands share: being in the project, and what to say of stale results."""

from __future__ import annotations

import os
from argparse import Action, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipcifar.core.errors import ClipcifarError, ConfigError
from clipcifar.core.terminal import note
from clipcifar.project.root import find_root

if TYPE_CHECKING:
    from clipcifar.project.state import Stale


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


def complete_files(action: Action) -> None:
    """Let a shell complete an argument that names a file, as `add_folder` does one that names a folder."""
    action.complete = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}  # type: ignore[attr-defined]


def positive(text: str) -> int:
    """The type of an argument that is a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


# What `--project` names, where a person is elsewhere.
PROJECT: ContextVar[Path | None] = ContextVar("PROJECT", default=None)


@contextmanager
def in_project(*, required: bool = True) -> Iterator[None]:
    """Work in the project's folder, found upward from `PROJECT` or the current one, and go back.

    It decorates commands. All their paths are relative to it, and so is what errors say. For a user who is
    elsewhere a note names it then.

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
    if (start := here / (PROJECT.get() or "")) != here and not start.is_dir():
        raise ConfigError("there is no such folder", where=str(start), fix="give that of a project")
    try:
        root = find_root(start.resolve())
    except ConfigError:
        if required:
            raise
        root = start
    os.chdir(root)
    try:
        yield
    except (ClipcifarError, SystemExit) as error:
        if isinstance(error, ClipcifarError):
            from clipcifar.project import missing

            missing.explain(error, root)
        if root != here:
            note(f"paths and commands are those of the project's folder, {root}")
        raise
    finally:
        with suppress(OSError):  # the command may have replaced the folder
            os.chdir(here)


def stale_results(results: Mapping[str, str]) -> list[Stale]:
    """Those results of the project, by path what a person calls them, that are not of what lies here."""
    from clipcifar.project import freshness

    return freshness.stale_results(Path.cwd(), results)


def refuse_without_train(asks: str) -> None:
    """Refuse what needs train images, as in "linear_probe needs", on a dataset of test images alone."""
    from clipcifar.project import freshness

    freshness.refuse_without_train(Path.cwd(), asks)


def refuse_stale(results: Mapping[str, str]) -> None:
    """Refuse what a verdict would rest on and is stale; where nothing but code has changed, note it."""
    from clipcifar.project import freshness

    for said in freshness.refuse_stale(Path.cwd(), results):
        note(said)
