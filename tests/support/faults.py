"""What tests of faults share: a workspace's stages as real processes, noted, slowed, limited and killed."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from clipcifar.embeddings.sentences import OUTPUTS
from tests.support import stage_runs
from tests.support.stage_runs import Ended
from tests.support.waiting import PATIENCE_S
from tests.support.workspace import OF_DVC, ROOT, Workspace

HOOKS = ROOT / "tests" / "support" / "fault_hooks"
IMAGES = "data/embeddings/images"
MANIFEST, PART = f"{IMAGES}/manifest.h5", f"{IMAGES}/part-00000.h5"
_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 24, 1, 2  # linux/prctl.h, linux/capability.h


def command_of(stage: str) -> list[str]:
    """The stage's command as dvc.yaml has it, in this interpreter."""
    command = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]["cmd"]
    python, *arguments = shlex.split(command)
    assert python == "python"
    return [sys.executable, *arguments]


def environment(workspace: Workspace, fault: dict[str, Any] | None = None) -> dict[str, str]:
    """The workspace's environment, with the hook that reads FAULT."""
    asked = {"PYTHONPATH": str(HOOKS), "FAULT": json.dumps(fault or {}), "OMP_NUM_THREADS": "1"}
    return {**workspace.environment, **asked}


def run_here(workspace: Workspace, stage: str) -> Ended:
    """The stage in this process, on the workspace's files and scratch folder."""
    main = importlib.import_module(f"stages.{stage}").main
    with mock.patch.dict(os.environ, CLIPCIFAR_CACHE=workspace.environment["CLIPCIFAR_CACHE"]):
        return stage_runs.run(main, *command_of(stage)[3:], folder=workspace.folder)


def start(
    workspace: Workspace, stage: str, fault: dict[str, Any] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """The stage in a process of its own."""
    return subprocess.Popen(
        options.pop("command", command_of(stage)),
        cwd=workspace.folder,
        env=environment(workspace, fault),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(
    workspace: Workspace, stage: str, fault: dict[str, Any] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """The stage from its start to its end."""
    with start(workspace, stage, fault, **options) as process:
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def succeeded(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr


def refused(done: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    """Assert one message with a fix, every part in it, the exit code, and no traceback."""
    assert done.returncode == code, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    assert "error: " in done.stderr
    assert "fix: " in done.stderr, done.stderr
    for part in parts:
        assert part in done.stderr, (part, done.stderr)


def notes(log: Path, *, process: int | None = None) -> list[list[str]]:
    """What the hook wrote, without the process; of one process, or of all."""
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return [words for pid, *words in lines if process in (None, int(pid))]


def batches(log: Path, *, process: int | None = None) -> list[tuple[str, int]]:
    """Digest and size of every batch of images that was given to the tower, in order."""
    return [(words[1], int(words[2])) for words in notes(log, process=process) if words[0] == "images"]


class WarmStage:
    """A stage whose imports are done: every `start` is a forked process that runs its `main`."""

    def __init__(self, workspace: Workspace, stage: str, fault: dict[str, Any]) -> None:
        _, _, module, *paths = command_of(stage)
        self._server = subprocess.Popen(
            [sys.executable, str(HOOKS / "warm_stage.py"), module.removeprefix("stages."), *paths],
            cwd=workspace.folder,
            env={**environment(workspace, fault), "PYTHONPATH": f"{HOOKS}{os.pathsep}{workspace.folder}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> WarmStage:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()

    def start(self) -> int:
        """Start a run; its process id."""
        assert self._server.stdin is not None
        self._server.stdin.write("\n")
        self._server.stdin.flush()
        return self._number()

    def status(self) -> int:
        """The exit status of the last run, once it has ended."""
        return self._number()

    def _number(self) -> int:
        assert self._server.stdout is not None
        while not (line := self._server.stdout.readline()).strip().lstrip("-").isdecimal():
            assert line, "the warm stage has ended"  # what the stage itself prints is passed over
        return int(line)


def is_running(process: int) -> bool:
    """Whether a process, not of ours, still lives."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def forget_images(workspace: Workspace) -> None:
    """No image embeddings, as DVC leaves them before it runs their stage."""
    if (workspace.folder / IMAGES).exists():
        shutil.rmtree(workspace.folder / IMAGES)


def forget_sentences(workspace: Workspace, *, outputs: bool = False) -> None:
    """Nobody has embedded a sentence: no memo knows one, and DVC has no record of a run.

    Args:
        outputs: whether the files of embedded sentences go, too.
    """
    if outputs:
        made = [path for output in OUTPUTS if (path := workspace.folder / output).exists()]
        for path in made:
            (shutil.rmtree if path.is_dir() else os.unlink)(path)
    for memo in cache_of(workspace).glob("*.sqlite"):
        memo.unlink()
    (workspace.folder / "dvc.lock").unlink(missing_ok=True)


def cache_of(workspace: Workspace) -> Path:
    return Path(workspace.environment["CLIPCIFAR_CACHE"])


def shard_rows(workspace: Workspace) -> list[range]:
    """The rows of all shards that have their name."""
    names = sorted(path.stem for path in cache_of(workspace).glob("extraction/*/*.shard"))
    return [range(int(name[:9]), int(name[10:])) for name in names]


def litter(*folders: Path) -> list[Path]:
    """Temporary files of ours that were left behind."""
    made = (path for folder in folders for path in folder.rglob("*.tmp") if ".dvc" not in path.parts)
    return [path for path in made if not OF_DVC.fullmatch(path.name)]


def without_override() -> None:
    """In a child before it becomes python: a root that permissions bind, as they bind everybody else."""
    if os.geteuid():
        return
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        if prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "cannot drop a capability")


def in_namespace(setup: str, command: list[str]) -> list[str]:
    """A command in a mount namespace of its own, after `setup` has mounted something there."""
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    return [*unshare, "sh", "-e", "-c", f'{setup}; exec "$@"', "sh", *command]


def can_mount(folder: Path) -> bool:
    """Whether this user may mount a tmpfs in a namespace of its own."""
    folder.mkdir(exist_ok=True)
    try:
        return (
            subprocess.run(in_namespace(tmpfs(folder, "64k"), ["true"]), capture_output=True).returncode == 0
        )
    except OSError:  # no unshare
        return False


def tmpfs(folder: Path, size: str, *, inodes: int = 0) -> str:
    """A shell command that mounts a small file system; without a limit on inodes where that is 0."""
    return f"mount -t tmpfs -o size={size},nr_inodes={inodes} none {shlex.quote(str(folder))}"
