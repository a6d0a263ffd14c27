"""One progress bar for everything that takes longer than two seconds."""

from __future__ import annotations

import shutil
import sys
import threading
from typing import Any

from tqdm import tqdm

from clipcifar.core.terminal import one_line

# One process draws. tqdm's own lock is between processes: a stage's os._exit leaves its semaphore behind,
# of which Python complains wherever workers are not forked.
tqdm.set_lock(threading.RLock())


def progress(*, total: int, initial: int = 0, unit: str, what: str) -> tqdm[Any]:
    """A bar with rate and time left on standard error, from the start, gone when done.

    Into a file it is a line every half minute.
    """
    interactive = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=initial,
        unit=f" {unit}",
        desc=one_line(what),
        delay=0.0 if interactive else 2.0,
        mininterval=0.2 if interactive else 30.0,
        ncols=shutil.get_terminal_size().columns,  # tqdm's own guess is 0 on some pseudo-terminals
        leave=False,
    )
