"""Whether another process still works, and how many may."""

from __future__ import annotations

import os


def cores() -> int:
    """Cores that this process may use: a container may have fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_running(process: int) -> bool:
    """Whether there is such a process; true where the system does not say.

    One that ended and that nobody collects is not running: a zombie, as a container without an init keeps it.
    """
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)  # signal 0 only asks, and knows of what a system hides from other accounts
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    import psutil  # 20 ms, which few runs need

    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True
