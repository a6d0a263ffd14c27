"""One progress bar for everything that takes longer than two seconds."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def progress(*, total: int, initial: int = 0, unit: str, what: str) -> tqdm[Any]:
    """A bar with rate and time left on standard error; into a file, a line every half minute."""
    interactive = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=initial,
        unit=f" {unit}",
        desc=what,
        delay=1.0,
        mininterval=0.2 if interactive else 30.0,
        dynamic_ncols=interactive,
        leave=interactive,
    )
