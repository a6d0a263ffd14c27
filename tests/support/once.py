"""What is costly to make and only read afterwards: made by one worker of pytest-xdist, shared by all."""

from __future__ import annotations

import os
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` has filled, by whichever process asked first.

    The others wait for it, as long as it lives: a lock goes with its process, and what that one left
    unfinished is made anew. Where making failed, it is not tried again: later calls fail with the same words.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # of all workers of this run, and of no other run
    folder = root / f"once-{name}"
    finished, failed = (folder.with_name(f"{folder.name}.{end}") for end in ("finished", "failed"))
    with FileLock(f"{folder}.lock"):
        if failed.exists():
            pytest.fail(f"{name} could not be made, as another test has found:\n{failed.read_text()}")
        if not finished.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                make(folder)
            except Exception:
                failed.write_text(traceback.format_exc())
                raise
            finished.touch()
    return folder
