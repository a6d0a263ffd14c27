"""Waiting for what another process does: with one bound, far above what a busy machine needs."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 600.0  # no measure of anything: who waits that long waits in vain


def wait_for(condition: Callable[[], bool], *, what: str) -> None:
    """Return when the condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)
