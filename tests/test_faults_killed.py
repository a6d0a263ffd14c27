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

from tests import faults
from tests.workspace import ALL, Workspace, outputs

pytestmark = pytest.mark.pipeline

# The published bar is 10 for each kind, some minutes: CLIPCIFAR_TEST_DVC_KILLS=10.
KILLS = int(os.environ.get("CLIPCIFAR_TEST_DVC_KILLS", "2"))
RWLOCK = ".dvc/tmp/rwlock"


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


def completed(workspace: Workspace) -> list[str]:
    """`dvc repro` as a user would go on: again after the orphan has ended that it names. What was said."""
    said: list[str] = []
    for _ in range(3):
        done = workspace.command("dvc", "repro", check=False)
        said.append(done.stdout + done.stderr)
        if done.returncode == 0:
            return said
        if "Unable to read RWLock-file" in said[-1]:
            (workspace.folder / RWLOCK).unlink()  # README says so
            continue
        assert "another run is extracting the same embeddings (process " in said[-1], said[-1]
        faults.wait_for(lambda: not living(workspace), what="the orphan")
    raise AssertionError(said)


@pytest.mark.parametrize("target", ["dvc", "group"])
def test_a_repro_killed_at_random_moments_is_completed_by_the_next_with_the_same_bytes(
    finished: Workspace, tmp_path: Path, target: str
) -> None:
    workspace = Workspace.create(tmp_path / "w", {})
    shutil.copyfile(finished.folder / "params.yaml", workspace.folder / "params.yaml")
    rng = random.Random(target)
    kills = 0
    # Kills fall into stages chosen at random, in their order, since what is finished is not run again.
    for stage_number in sorted(rng.sample(range(1, len(ALL) + 1), KILLS)):
        process = subprocess.Popen(
            ["dvc", "repro"],
            cwd=workspace.folder,
            env=workspace.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        while process.poll() is None and len(set(workspace.executed())) < stage_number:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 1.0))
        if process.poll() is not None:
            assert process.stdout is not None
            said = process.stdout.read()
            busy = "another run is extracting" in said or "Unable to read RWLock-file" in said
            assert process.returncode == 0 or busy, said
            completed(workspace)
            continue
        if target == "dvc":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
            faults.wait_for(lambda: not living(workspace), what="the whole group")
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        kills += 1
    for text in completed(workspace):
        assert "Traceback" not in text
    faults.wait_for(lambda: not living(workspace), what="orphans")
    assert kills, "every run was faster"
    assert outputs(workspace) == outputs(finished)
    assert faults.litter(workspace.folder, faults.cache_of(workspace)) == []
    workspace.repro()
    assert workspace.executed() == []
    print(f"{kills} kills of {target}")


def test_a_lock_file_that_dvc_was_killed_over_is_removed_by_hand(workspace: Workspace) -> None:
    """DVC writes this one in place, and what is left of it can stop every later command; README says so."""
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
