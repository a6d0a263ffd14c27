"""What a command is, and what commands share: being in the project, and what to say of stale results."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipcifar.core.errors import ClipcifarError, ConfigError, DataError
from clipcifar.core.terminal import note
from clipcifar.project.root import find_root

if TYPE_CHECKING:
    from clipcifar.project.state import Stale

SPLITS = "data/splits.h5"


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
    """Refuse what no run can bring on a dataset of test images alone, instead of naming a stage that fails.

    Args:
        asks: as in "linear_probe needs".

    Raises:
        DataError: the dataset that params.yaml asks for was prepared, and has no train or no val image.
    """
    from clipcifar.store.inputs import check_split

    if not stale_results({SPLITS: SPLITS}):
        check_split(Path(SPLITS), asks)


def refuse_stale(results: Mapping[str, str]) -> None:
    """Refuse what a verdict would rest on and is stale, naming what to run.

    Where nothing but code has changed since, that is only noted: the numbers are likely the same.

    Raises:
        ConfigError: something has changed since they were made.
        DataError: nothing has, and yet they are not the files that were made.
    """
    from clipcifar.project.state import mending

    stale = stale_results(results)
    wrong = [reason for reason in stale if not reason.is_of_other_code]
    if wrong:
        refusal = DataError if all(reason.is_other_file for reason in wrong) else ConfigError
        raise refusal("; ".join(reason.what for reason in wrong), fix=f"run `{mending(wrong)}`")
    for reason in stale:
        note(str(reason))
