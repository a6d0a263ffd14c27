"""One cache folder and two accounts: the second finds all that the first left, or is told whom to ask."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clipcifar.core import files
from tests.support.account import ARCHIVE
from tests.support.local_server import Server, serving
from tests.support.waiting import PATIENCE_S
from tests.support.workspace import ROOT

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can take on two accounts"
)
PAGE = ROOT / "docs" / "teams.md"
FIRST, SECOND, GROUP = 61_001, 61_002, 61_000  # numbers without a name
Step = Callable[..., str]


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder made as the page has it, elsewhere than pytest's own, which are root's alone."""
    base = Path(tempfile.mkdtemp())
    try:
        base.chmod(0o755)
        folder = base / "cache"
        (line,) = re.findall(r"^\$ sudo (install .* )/srv/team$", PAGE.read_text(), flags=re.M)
        subprocess.run([*line.replace("team", str(GROUP)).split(), folder], check=True)
        yield folder
    finally:
        shutil.rmtree(base)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        running.files["/a.zip"] = ARCHIVE
        yield running


def command(user: int, mask: str, step: str, folder: Path, url: str) -> list[str]:
    arguments = [str(user), str(GROUP), mask, step, str(folder), url]
    return [sys.executable, "-W", "error", "-m", "tests.support.account", *arguments]


@pytest.fixture
def do(shared: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Step:
    monkeypatch.setenv("CLIPCIFAR_CACHE", str(shared))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def do(user: int, mask: str, *steps: str) -> str:
        said = ""
        for step in steps:
            done = subprocess.run(
                command(user, mask, step, shared, f"{server.url}/a.zip"),
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
            )
            assert done.returncode == 0, f"{step}: {done.stdout}{done.stderr}"
            said += done.stdout
        return said

    return do


def test_what_one_account_leaves_the_other_goes_on_with(do: Step, shared: Path, server: Server) -> None:
    do(FIRST, "002", "leave")
    do(SECOND, "002", "read", "go_on")
    do(FIRST, "002", "go_on")
    assert server.requests == ["GET /a.zip"]
    there = [path for path in shared.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in there} == {0o664}
    assert {path.stat().st_gid for path in shared.rglob("*")} == {GROUP}


def test_what_an_account_keeps_to_itself_is_read_and_otherwise_it_is_named(do: Step, shared: Path) -> None:
    do(FIRST, "022", "leave")
    do(SECOND, "002", "read")
    said = do(SECOND, "002", "try_each").splitlines()
    for line, place in zip(said, ("extraction", "extraction", "embeddings", "downloads"), strict=True):
        assert line.startswith("4 | cannot use ")
        fix = f"fix:   user {FIRST} can share it: chmod -R g+rwX {shared / place} (docs/teams.md)"
        assert fix in line
    do(FIRST, "022", "read")


def test_where_the_folder_itself_is_kept_nothing_is_called_damaged(do: Step, shared: Path) -> None:
    do(FIRST, "077", "leave")
    shared.chmod(0o755)
    record, beside, below, root = do(SECOND, "002", "look").splitlines()
    assert record.startswith(f"4 | cannot use {shared / 'known_files.json'}: Permission denied")
    assert f"root can share it: chmod -R g+rwX {shared} (docs/teams.md)" in record
    assert f"fix:   {shared} belongs to root, who may let you use it" in beside
    assert f"fix:   embeddings belongs to user {FIRST}, who may let you use it" in below
    assert "fix:   / belongs to root, who may let you use it" in root


def test_who_holds_an_extraction_is_named_with_its_account(do: Step, shared: Path, server: Server) -> None:
    with subprocess.Popen(
        command(FIRST, "002", "hold", shared, server.url),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        said = do(SECOND, "002", "wait_for_it")
        holder.communicate(timeout=PATIENCE_S)
    assert f"another run is extracting the same embeddings (process {holder.pid} of user {FIRST})" in said


def test_what_a_killed_run_of_another_account_left_is_in_nobodys_way(do: Step, shared: Path) -> None:
    do(FIRST, "022", "leave", "die_holding")
    for folder in (shared, *shared.rglob("*/")):
        folder.chmod(0o2775)
    for path in shared.rglob("*"):
        if path.suffix != ".holder" and path.is_file():
            path.chmod(0o664)
    do(SECOND, "002", "go_on")
    assert [path for path in shared.rglob(".*.tmp") if files.is_abandoned(path)] == []
