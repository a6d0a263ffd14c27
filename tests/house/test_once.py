"""What several processes share is whole, or fails in all of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.once import made_once
from tests.support.waiting import PATIENCE_S
from tests.support.workspace import ROOT

# In a process of its own: it says that it makes the folder, waits for a word, and is killed by one of them.
MAKER = """
import os, signal, sys
from pathlib import Path
from types import SimpleNamespace
from tests.support.once import made_once

def make(folder):
    (folder / "half").touch()
    print("making", flush=True)
    if sys.stdin.readline() == "die\\n":
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / "whole").touch()

made_once(SimpleNamespace(getbasetemp=lambda: Path(sys.argv[1])), "thing", make)
print("done", flush=True)
"""
Make = Callable[[Callable[[Path], object]], Path]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """As if this were the only process of its run."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)

    class Factory:
        def getbasetemp(self) -> Path:
            return tmp_path

    factory: Any = Factory()
    return lambda make: made_once(factory, "thing", make)


def start(folder: Path) -> subprocess.Popen[str]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", MAKER, folder], cwd=ROOT, text=True, **pipes)


def test_it_is_made_by_the_first_who_asks(made: Make) -> None:
    first = made(lambda folder: (folder / "a").touch())
    assert made(lambda folder: (folder / "b").touch()) == first
    assert [path.name for path in first.iterdir()] == ["a"]


def test_who_asks_meanwhile_waits_and_does_not_make_it_again(made: Make, tmp_path: Path) -> None:
    with start(tmp_path) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == "making\n"
        with start(tmp_path) as other:
            one.communicate("go on\n", timeout=PATIENCE_S)
            assert other.communicate(timeout=PATIENCE_S)[0] == "done\n"


def test_what_a_killed_process_left_is_made_anew(made: Make, tmp_path: Path) -> None:
    with start(tmp_path) as killed:
        killed.communicate("die\n", timeout=PATIENCE_S)
    assert list(tmp_path.rglob("half"))
    folder = made(lambda folder: (folder / "whole").touch())
    assert [path.name for path in folder.iterdir()] == ["whole"]


def test_a_failure_is_everybodys_and_is_not_repeated(made: Make) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise ValueError("no luck")

    with pytest.raises(ValueError, match="no luck"):
        made(fail)
    with pytest.raises(pytest.fail.Exception, match="no luck"):
        made(lambda folder: (folder / "whole").touch())
