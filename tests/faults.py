"""What tests of faults share: a workspace's stages as real processes, noted, slowed, limited and killed."""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.workspace import ROOT, Workspace

HOOKS = ROOT / "tests" / "fault_hooks"
IMAGES = "data/embeddings/images.h5"
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
        stdout, stderr = process.communicate(timeout=120)
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


def wait_for(condition: Callable[[], bool], *, what: str, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)


def cache_of(workspace: Workspace) -> Path:
    return Path(workspace.environment["CLIPCIFAR_CACHE"])


def shard_rows(workspace: Workspace) -> list[range]:
    """The rows of all shards that have their name."""
    names = sorted(path.stem for path in cache_of(workspace).glob("extraction/*/*.shard"))
    return [range(int(name[:9]), int(name[10:])) for name in names]


def litter(*folders: Path) -> list[Path]:
    """Temporary files of ours that were left behind."""
    return [path for folder in folders for path in folder.rglob("*.tmp") if ".dvc" not in path.parts]


def without_override() -> None:
    """In a child before it becomes python: a root that permissions bind, as they bind everybody else."""
    if os.geteuid():
        return
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        if prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "cannot drop a capability")


def in_namespace(setup: str, stage: str) -> list[str]:
    """The stage's command in a mount namespace of its own, after `setup` has mounted something there."""
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    return [*unshare, "sh", "-e", "-c", f'{setup}; exec "$@"', "sh", *command_of(stage)]


def can_mount(folder: Path) -> bool:
    """Whether this user may mount a tmpfs in a namespace of its own."""
    folder.mkdir(exist_ok=True)
    command = in_namespace(f"mount -t tmpfs -o size=64k none {shlex.quote(str(folder))}", "prompts")
    try:
        return subprocess.run([*command[: command.index("sh", 5)], "sh", "true"], capture_output=True).returncode == 0
    except (OSError, ValueError):
        return False
