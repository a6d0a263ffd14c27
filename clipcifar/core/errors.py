"""The errors that a person is meant to read: what happened, where, and how to mend it."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from clipcifar.core.terminal import HarmlessStream, harmless


class ClipcifarError(Exception):
    """Base of all expected failures; stages and the command line print it without a traceback.

    Args:
        what: one sentence on what is wrong.
        where: the file, row or key it is wrong in.
        fix: what to do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)


class ConfigError(ClipcifarError):
    """Wrong usage or configuration: something to change in params.yaml or on the command line."""

    exit_code = 2


class DataError(ClipcifarError):
    """Bad data, or a file that fails its integrity check."""

    exit_code = 3


class EnvironmentFault(ClipcifarError):
    """Disk, permission, lock, network or memory: the surroundings, not the input."""

    exit_code = 4


# Wherever a stage has nothing better to say.
OUT_OF_MEMORY = EnvironmentFault(
    "out of memory", fix="end other programs, or use fewer images: params.yaml, dataset.max_per_class"
)


@contextmanager
def made_by(study: str) -> Iterator[None]:
    """Let an error about a study's file name the command that makes it: plain `dvc repro` runs no study.

    Args:
        study: its name, that of its folder in studies/.
    """
    try:
        yield
    except ClipcifarError as error:
        error.fix = error.fix.replace("`dvc repro`", f"`clipcifar study {study}`")
        raise


def print_anything() -> None:
    """Let an escape be printed for what a terminal's encoding lacks, and on stdout for what would steer it.

    The one would end in a traceback, and names of classes and files are untrusted.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # else it is closed, or belongs to who calls us
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = HarmlessStream(sys.stdout)


def exit_with_message(error: ClipcifarError) -> NoReturn:
    """Print the message of an error being handled and exit with its code.

    With CLIPCIFAR_TRACEBACK set the error goes on instead, to show where it comes from.
    """
    if os.environ.get("CLIPCIFAR_TRACEBACK"):
        raise error
    print(f"error: {harmless(str(error))}", file=sys.stderr)
    sys.exit(error.exit_code)
