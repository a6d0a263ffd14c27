"""`make test` and `make nightly` are the whole suite between them, and neither passes without a test."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from tests.support.waiting import PATIENCE_S
from tests.support.workspace import ROOT


def commands() -> dict[str, list[str]]:
    """The words of what `make` runs for each of the two, from `--numprocesses` on."""
    makefile = (ROOT / "Makefile").read_text().replace("$(WORKERS)", "2")
    (tests,) = [line for line in makefile.splitlines() if line.startswith("TESTS := ")]
    recipes = [line for line in makefile.splitlines() if line.startswith("\t$(TESTS) ")]
    options = shlex.split(tests.partition(" -m pytest ")[2])
    by_day, nightly = ([*options, *shlex.split(line)[1:]] for line in recipes)
    return {"test": by_day, "nightly": nightly}


def test_what_the_one_leaves_out_the_other_runs() -> None:
    found = commands()
    assert found["test"][-2:] == ["-m", "not nightly"]
    assert found["nightly"] == [*found["test"][:-1], "nightly"]
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    assert "set -euo pipefail" in script
    assert script[-2:] == ["make test", "make nightly"]


def test_finding_no_test_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text("")
    for options in commands().values():
        command = [sys.executable, "-m", "pytest", "-c", "/dev/null", str(tmp_path), *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=PATIENCE_S)
        assert done.returncode == 5, done.stdout
