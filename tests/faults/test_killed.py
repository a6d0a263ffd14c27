"""`dvc repro` killed at random moments, alone and with its stage; the next ones end in the same bytes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import faults
from tests.support.nightly import repeated
from tests.support.waiting import wait_for
from tests.support.workspace import ALL, ROOT, Workspace, outputs

pytestmark = pytest.mark.pipeline

# Of each kind by night; by day one. The published bar is 10 for each kind, as `make faults` has it.
KILLS = int(os.environ.get("CLIPCIFAR_TEST_DVC_KILLS", "2"))
RWLOCK = ".dvc/tmp/rwlock"
# DVC writes these two in place; killed just then, it leaves a file that it cannot read.
DAMAGED = {
    "Unable to read RWLock-file": RWLOCK,
    "'./dvc.lock' validation failed": "dvc.lock",
    "'./dvc.lock' is invalid": "dvc.lock",
    "unable to read: './dvc.lock'": "dvc.lock",
}


def test_the_page_of_what_is_wrong_names_each_of_them_and_the_file() -> None:
    rows = [row for row in (ROOT / "docs" / "doctor.md").read_text().splitlines() if row.startswith("| “")]
    for words, damaged in DAMAGED.items():
        assert [row for row in rows if words in row and f"rm {damaged}" in row], words


def living(workspace: Workspace) -> list[int]:
    """The processes whose current folder is the workspace."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if path.resolve(strict=True) == workspace.folder and faults.is_running(int(path.parent.name)):
                found.append(int(path.parent.name))
        except OSError:  # has ended, or is somebody else's
            continue
    return found


def out_of_the_way(workspace: Workspace, said: str) -> None:
    """Do what a user is told when `dvc repro` fails after a kill; no other failure is right."""
    assert "Traceback" not in said
    for words, damaged in DAMAGED.items():  # as docs/doctor.md says
        if words in said:
            (workspace.folder / damaged).unlink()
            return
    assert "another run is extracting the same embeddings (process " in said, said
    wait_for(lambda: not living(workspace), what="the orphan")


def started(workspace: Workspace, log: Path) -> subprocess.Popen[bytes]:
    with open(log, "w") as stream:
        return subprocess.Popen(
            ["dvc", "repro"],
            cwd=workspace.folder,
            env=workspace.environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@repeated("of_each", by_day=1, nightly=KILLS)
def test_a_repro_killed_at_random_moments_is_completed_by_the_next_with_the_same_bytes(
    finished: Workspace, tmp_path: Path, of_each: int
) -> None:
    """In one run from nothing, DVC alone is killed so many times, and so many times all of its group."""
    workspace, log = Workspace.create(tmp_path / "w", {}), tmp_path / "log"
    shutil.copyfile(finished.folder / "params.yaml", workspace.folder / "params.yaml")
    rng = random.Random(0)
    targets = ["dvc", "group"] * of_each
    rng.shuffle(targets)
    # Kills fall into stages chosen at random, in their order, since what is finished is not run again.
    places = [*range(1, len(ALL))]
    moments = sorted(rng.sample(places if len(targets) <= len(places) else 2 * places, len(targets)))
    kills, faster, busy = 0, 0, 0
    while kills < len(targets):
        target, process = targets[kills], started(workspace, log)
        while process.poll() is None and len(set(workspace.executed())) < moments[kills]:
            time.sleep(0.005)
        deadline = time.monotonic() + rng.uniform(0, 1.0)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        if process.poll() is None and target == "dvc":
            process.kill()
        elif process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            wait_for(lambda: not living(workspace), what="the whole group")
        if process.wait() == -signal.SIGKILL:
            kills += 1
        elif process.returncode:
            out_of_the_way(workspace, log.read_text())
            busy += 1
        else:  # too late: begin again from nothing
            faster += 1
            (workspace.folder / "dvc.lock").unlink()
            shutil.rmtree(workspace.folder / ".dvc" / "cache")
    for _ in range(3):
        if started(workspace, log).wait() == 0:
            break
        out_of_the_way(workspace, log.read_text())
        busy += 1
    wait_for(lambda: not living(workspace), what="orphans")
    assert outputs(workspace) == outputs(finished)
    assert faults.litter(workspace.folder, faults.cache_of(workspace)) == []
    workspace.repro()
    assert workspace.executed() == []
    print(f"kills of {', '.join(targets)}; {faster} runs were faster, {busy} found something in their way")


def test_a_lock_file_that_dvc_was_killed_over_is_removed_by_hand(workspace: Workspace) -> None:
    """DVC writes this one in place, and what is left can stop every later command, as docs/doctor.md says."""
    workspace.repro()
    (workspace.folder / RWLOCK).write_text("")
    failed = workspace.repro(check=False)
    assert failed.returncode != 0
    assert "Unable to read RWLock-file '.dvc/tmp/rwlock'" in failed.stderr
    (workspace.folder / RWLOCK).unlink()
    workspace.repro()
    # The file of a process that is gone is no obstacle.
    gone = subprocess.Popen(["true"])
    gone.wait()
    entry = f'{{"write": {{"data/dataset.h5": {{"pid": {gone.pid}, "cmd": "dvc repro"}}}}, "read": {{}}}}'
    (workspace.folder / RWLOCK).write_text(entry.replace("data/", f"{workspace.folder}/data/"))
    workspace.repro()


@pytest.mark.parametrize("last", ["", "path: clipcifar/co", "    md"])
def test_a_dvc_lock_that_was_half_written_costs_no_run(workspace: Workspace, last: str) -> None:
    """DVC goes on from what it can read, or says that it cannot; docs/doctor.md says what then."""
    before, lock = outputs(workspace), workspace.folder / "dvc.lock"
    content = lock.read_text()
    lock.write_text(content[: content.index(last) + len(last)])
    done = workspace.repro(check=False)
    if done.returncode:
        out_of_the_way(workspace, done.stdout + done.stderr)
        assert not lock.exists()
        workspace.repro()
    else:
        assert last.startswith("path")
    assert workspace.executed() == []
    assert outputs(workspace) == before
