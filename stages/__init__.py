"""What stage scripts share: arguments are paths, settings come from params.yaml, errors are messages."""

from __future__ import annotations

import gc
import inspect
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from clipcifar.core import params
from clipcifar.core.errors import (
    OUT_OF_MEMORY,
    ClipcifarError,
    ConfigError,
    exit_with_message,
    print_anything,
)
from clipcifar.core.files import fault

INTERRUPTED = 130

# torch asks for a temporary folder when imported. A full disk has none: the stage is to say so later, itself.
try:
    tempfile.gettempdir()
except OSError:
    tempfile.tempdir = os.curdir

# Before a stage imports anything: looking for cycles every 700 objects is a fifth of open_clip's import.
gc.set_threshold(50_000)


def _parents() -> tuple[int, ...]:
    """Who started this process; where that is a shell for one command (as DVC's on Debian), its own too."""
    pids = [os.getppid()]
    with suppress(OSError, ValueError, IndexError):  # where there is no /proc, shells become their command
        while b"-c" in Path(f"/proc/{pids[-1]}/cmdline").read_bytes().split(b"\0"):
            pids.append(int(Path(f"/proc/{pids[-1]}/stat").read_text().rpartition(")")[2].split()[1]))
    return tuple(pids)


_STARTED_BY = _parents()  # before a stage imports anything slow


def nobody_waits() -> bool:
    """Whether who started it has died: a DVC that will repeat this work, and wants shards and checkpoints."""
    return _parents() != _STARTED_BY


def run(main: Callable[..., None]) -> NoReturn:
    """Call `main(settings, *paths)` and exit: 0, or the code of the error, its message printed.

    Set CLIPCIFAR_TRACEBACK=1 to see where an error comes from.
    """
    print_anything()
    try:
        wanted = list(inspect.signature(main).parameters)[1:]
        paths = [Path(argument) for argument in sys.argv[1:]]
        if len(paths) != len(wanted):
            raise ConfigError(f"expected the paths: {' '.join(wanted)}", fix="see its cmd in dvc.yaml")
        main(params.load(Path("params.yaml")), *paths)
    except ClipcifarError as error:
        exit_with_message(error)
    except MemoryError:
        exit_with_message(OUT_OF_MEMORY)
    except OSError as error:
        exit_with_message(fault(error, error.filename or "a file"))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    leave(0)


def leave(code: int) -> NoReturn:
    """End the process at once: taking torch and open_clip down in order costs a second."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed by who started us
            stream.flush()
    os._exit(code)
