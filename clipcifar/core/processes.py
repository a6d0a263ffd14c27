"""Whether another process still works, how many may, and what this one does with memory."""

from __future__ import annotations

import ctypes
import os
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h


def cores() -> int:
    """Cores that this process may use: a container may have fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Let the process keep large blocks that it has freed, where the C library is glibc.

    By default each is mapped, zeroed by the kernel, used once and unmapped. Values are not touched.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def give_back_freed_memory() -> None:
    """Let the system have what the process has freed and kept, where the C library is glibc."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


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
