"""One command of another program's, in the foreground, ended by what ends this one."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)  # what asks a program to end


class Relay:
    """While it is entered, signals that ask this process to end go to the command that it runs instead.

    They go to all that the command has started, too, since DVC lets its stage run on when DVC alone is
    told to end: hence a process group of its own. What is ignored already (`nohup`, `&`) stays ignored.
    """

    def __enter__(self) -> Relay:
        self._process: subprocess.Popen[bytes] | None = None
        self._received: list[int] = []
        heeded = [number for number in _ENDING if signal.getsignal(number) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._receive) for number in heeded}
        return self

    def __exit__(self, *failed: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received.append(number)
        self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def run(self, command: list[str], *, folder: Path) -> int:
        """Run the command to its end; its exit code, or 128 and the number of the signal that ended it."""
        code = 0
        if not self._received:
            # Of the terminal it gets nothing: who reads from it in a group of its own is stopped.
            self._process = subprocess.Popen(  # noqa: S603  no shell
                command, cwd=folder, process_group=0, stdin=subprocess.DEVNULL
            )
            for number in self._received:  # while it was being started
                self._pass_on(number)
            code = self._process.wait()
            self._process = None
        ended_by = self._received[0] if self._received else max(0, -code)
        return 128 + ended_by if ended_by else code
