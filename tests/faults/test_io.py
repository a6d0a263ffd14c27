"""The Nth failing call that opens, writes, syncs or renames a file, for every N, in all stages but report."""

from __future__ import annotations

import builtins
import errno
import io
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

from clipcifar.embeddings import extract
from tests.conftest import LITTLE_STAGES
from tests.support import faults
from tests.support.faults import run_here
from tests.support.nightly import first
from tests.support.workspace import ROOT, Workspace

pytestmark = pytest.mark.pipeline

# The report is two files after seconds of drawing; core/test_files.py has the faults of what writes them.
STAGES = [stage for stage in LITTLE_STAGES if stage != "report"]
BY_DAY = ["prepare", "embed_images", "embed_texts", "zero_shot", "linear_probe", "projection"]


class _Writing:
    """A stream that asks before every write."""

    def __init__(self, stream: Any, ask: Callable[[str], None]) -> None:
        self._stream, self._ask = stream, ask

    def __enter__(self) -> _Writing:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, content: Any) -> Any:
        self._ask("write")
        return self._stream.write(content)


@contextmanager
def failing(number: int) -> Iterator[list[str]]:
    """The `number`th call that changes files fails with EIO; yields the calls so far."""
    calls: list[str] = []
    real_open, real_os_open, real_sync, real_replace = builtins.open, os.open, os.fsync, os.replace

    def ask(kind: str) -> None:
        calls.append(kind)
        if len(calls) == number:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def opened(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if not set(mode) & set("wax+"):
            return real_open(file, mode, *arguments, **named)
        if not isinstance(file, int):
            ask("open")
        return _Writing(real_open(file, mode, *arguments, **named), ask)

    def os_opened(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            ask("open")
        return real_os_open(path, flags, *arguments, **named)

    def synced(handle: int) -> None:
        ask("fsync")
        real_sync(handle)

    def replaced(source: Any, target: Any) -> None:
        ask("replace")
        real_replace(source, target)

    with (
        mock.patch.object(builtins, "open", opened),
        mock.patch.object(io, "open", opened),
        mock.patch.object(os, "open", os_opened),
        mock.patch.object(os, "fsync", synced),
        mock.patch.object(os, "replace", replaced),
    ):
        yield calls


def outputs(workspace: Workspace, stage: str) -> list[Path]:
    """The files that the stage writes, those in folders included."""
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]
    names = [
        name
        for kind in ("outs", "metrics", "plots")
        for entry in declared.get(kind, [])
        for name in ([entry] if isinstance(entry, str) else entry)
    ]
    paths = {
        path for name in names for path in [workspace.folder / name, *(workspace.folder / name).rglob("*")]
    }
    return sorted(path for path in paths if path.is_file())


@pytest.mark.parametrize("stage", [*BY_DAY, *first(0, sorted(set(STAGES) - set(BY_DAY)))])
def test_whichever_call_fails_the_old_files_stay_whole_and_the_next_run_succeeds(
    little: Workspace, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = little.copy(tmp_path / "w")
    monkeypatch.setattr(extract, "SHARD_ROWS", 40)
    workspace.edit(lambda settings: settings["embed"].update(batch_size=40))
    assert run_here(workspace, stage).code == 0
    paths = outputs(workspace, stage)
    expected = {path: path.read_bytes() for path in paths}
    assert expected
    tolerated: list[str] = []
    for number in itertools.count(1):
        for path in paths:
            path.write_bytes(b"old")
        with failing(number) as calls:
            ended = run_here(workspace, stage)
        if len(calls) < number:
            assert ended.code == 0
            break
        if ended.code == 0:  # Python tries another way to make a temporary file
            tolerated.append(calls[number - 1])
        else:
            assert ended.code == 4, (number, calls, ended)
            assert "Input/output error" in ended.error
            assert "fix: " in ended.error
            for path in paths:
                assert path.read_bytes() in (b"old", expected[path]), (number, calls[number - 1], path)
        assert faults.litter(workspace.folder, faults.cache_of(workspace)) == []
        assert run_here(workspace, stage).code == 0, number
        assert {path: path.read_bytes() for path in paths} == expected, number
    assert number > 5 * len(paths), "every file is opened, written, synced and renamed, and its folder synced"
    assert set(tolerated) <= {"open"}
    print(f"{stage}: {number - 1} calls, {len(tolerated)} of them done without")
