from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FREE = """
import os, numpy as np
from clipcifar.core import processes
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
processes.keep_freed_memory()
before = resident()
blocks = [np.ones(1_000_000) for _ in range(30)]  # 240 MB
last = np.ones(1000)  # after them, so that they are no end of the heap
del blocks
kept = resident() - before
processes.give_back_freed_memory()
print(kept, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_kept_until_it_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", FREE], capture_output=True, text=True, check=True)
    kept, left = map(float, done.stdout.split())
    assert kept > 200
    assert left < 40
