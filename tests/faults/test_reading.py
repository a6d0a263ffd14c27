"""A file that cannot be read now may be whole: nobody calls it damaged, deletes it or works on without it."""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import itertools
import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import pytest

import stages
from clipcifar.core import files, first_use, run_lock
from clipcifar.core.errors import DataError, EnvironmentFault
from clipcifar.core.strict_yaml import load_mapping
from clipcifar.datasets.archives import unpack
from clipcifar.doctor import checks
from clipcifar.embeddings import memo
from clipcifar.embeddings.memo import Memo
from clipcifar.embeddings.shards import ShardFolder
from clipcifar.project import dvc_project, lockfile
from clipcifar.store import container
from clipcifar.studies.finetune.judge.findings import read_rows
from clipcifar.studies.finetune.train.checkpoint import Checkpoints
from clipcifar.weights.config import read_config
from tests.support import command_line
from tests.support.waiting import PATIENCE_S

REASONS = [errno.EIO, errno.EACCES, errno.ENOLCK, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN]
HOLD = textwrap.dedent(
    """
    import fcntl, sys
    with open(sys.argv[2], "r+b") as stream:
        getattr(fcntl, sys.argv[1])(stream, fcntl.LOCK_EX)
        print("held", flush=True)
        sys.stdin.read()
    """
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rows = np.arange(5 * container.CHUNK_ROWS * 8, dtype=np.float32).reshape(-1, 8)
    arrays = {"train/rows": rows, "labels": np.arange(3)}
    container.write(tmp_path / "x.h5", kind="thing", arrays=arrays, attributes={"model": "m"})
    return tmp_path / "x.h5"


def is_read(path: Path) -> bool:
    return container.read(path, kind="thing").arrays["train/rows"].shape == (5 * container.CHUNK_ROWS, 8)


@pytest.mark.parametrize("kind", ["flock", "lockf"])
def test_a_container_is_read_while_another_process_holds_a_lock_on_it(path: Path, kind: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, kind, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert is_read(path)
        if kind == "flock":  # what HDF5 itself asks for
            with pytest.raises(OSError, match="lock"):
                h5py.File(path, "r")
        other.communicate(timeout=PATIENCE_S)


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_container_is_read_beside_a_handle_of_a_notebook(path: Path, mode: str) -> None:
    with h5py.File(path, mode) as handle:
        assert is_read(path)
        with pytest.raises(OSError, match="lock"):
            h5py.File(path, "r", locking=False)
        assert handle["labels"][2] == 2
    with h5py.File(path, "r+"):  # nor is a lock left behind
        pass


class _Failing(io.FileIO):
    """A file whose reads fail after some."""

    def __init__(self, path: Any, reason: int, left: list[int]) -> None:
        super().__init__(path, "r")
        self._reason, self._left = reason, left

    def _ask(self) -> None:
        self._left[0] -= 1
        if self._left[0] < 0:
            raise OSError(self._reason, os.strerror(self._reason))

    def readinto(self, buffer: Any) -> int | None:
        self._ask()
        return super().readinto(buffer)

    def readall(self) -> bytes:
        self._ask()
        return super().readall()

    def read(self, size: int | None = -1) -> bytes | None:
        self._ask()
        return super().read(size)


@contextmanager
def unreadable(bad: Path, reason: int, *, reads: int = -1) -> Iterator[list[int]]:
    """Within it `bad` cannot be opened or, given a number, cannot be read after so many reads."""
    real, left = builtins.open, [reads]

    def opened(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if isinstance(file, int) or Path(file) != bad or set(mode) & set("wax+"):
            return real(file, mode, *arguments, **named)
        if reads < 0:
            raise OSError(reason, os.strerror(reason), str(file))
        stream = io.BufferedReader(_Failing(file, reason, left))
        return stream if "b" in mode else io.TextIOWrapper(stream, encoding="utf-8")

    with mock.patch.object(builtins, "open", opened), mock.patch.object(io, "open", opened):
        yield left


def is_told(error: EnvironmentFault, reason: int) -> None:
    """In the system's words, and with nothing that could cost a file."""
    assert error.exit_code == 4
    assert os.strerror(reason) in error.what
    assert error.fix
    assert not any(word in str(error) for word in ("damaged", "delete", "rm ", "not a readable", "dvc repro"))


@pytest.mark.parametrize("reason", REASONS)
def test_whichever_read_of_a_container_fails_it_is_not_called_damaged(path: Path, reason: int) -> None:
    before = path.read_bytes()
    with unreadable(path, reason), pytest.raises(EnvironmentFault) as caught:
        container.read(path, kind="thing")
    is_told(caught.value, reason)
    for number in itertools.count():
        with unreadable(path, reason, reads=number) as left:
            try:
                assert is_read(path)
                break
            except EnvironmentFault as error:
                fault = error
        is_told(fault, reason)
        assert fault.where == str(path)
    assert left[0] >= 0
    assert number > 5, "one for each chunk at least"
    assert path.read_bytes() == before
    assert is_read(path)


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "other"])
def test_what_is_proven_to_differ_is_damaged_and_the_advice_costs_nothing(path: Path, harm: str) -> None:
    whole = path.read_bytes()
    at = whole.index(np.arange(8, dtype=np.float32).tobytes()) + 9
    harmed = {
        "flip": whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :],
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "other": b"<html>404</html>",
    }
    path.write_bytes(harmed[harm])
    with pytest.raises(DataError) as caught:
        container.read(path, kind="thing")
    assert "`clipcifar doctor`" in caught.value.fix
    assert "delete" not in str(caught.value)


def _shards(path: Path) -> ShardFolder:
    return ShardFolder(path.parent.parent, "f" * 32)


def _checkpoints(path: Path) -> Checkpoints:
    return Checkpoints(path.parent.parent, "f" * 32)


# Each reader with its file and what it makes of a missing one; nothing was made there before.
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "JSON of ours": ("model.json", files.read_json),
    "a digest": ("x", files.file_sha256),
    "settings": ("params.yaml", load_mapping),
    "a config": ("open_clip_config.json", read_config),
    "known files": (first_use.RECORD, lambda path: first_use.known_files()),
    "a shard": (f"{'f' * 32}/000000000-000000002.shard", lambda path: _shards(path).read(0, 2)),
    "a checkpoint": (f"{'f' * 32}/manifest.json", lambda path: _checkpoints(path).read()),
    "a lock": ("dvc.lock", lockfile.stages_in),
    "a listing": ("listing", dvc_project.listing),
    "an object": ("object", dvc_project.md5),
    "rows": ("training.csv", read_rows),
    "an archive": ("x.tar.gz", lambda path: unpack(path, path.parent / "out", keep=lambda name: True)),
}


@pytest.mark.parametrize("reads", [-1, 0])
@pytest.mark.parametrize("reason", [errno.EIO, errno.EACCES])
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_tells_a_file_that_cannot_be_read_from_a_damaged_or_missing_one(
    own_cache: Path, reader: str, reason: int, reads: int
) -> None:
    name, read = READERS[reader]
    bad = own_cache / name
    bad.parent.mkdir(exist_ok=True)
    bad.write_bytes(b"\x1f\x8b")
    with unreadable(bad, reason, reads=reads), pytest.raises(EnvironmentFault) as caught:
        read(bad)
    is_told(caught.value, reason)
    assert bad.read_bytes() == b"\x1f\x8b"


def test_a_copy_that_fails_names_the_file_that_failed(path: Path, tmp_path: Path) -> None:
    for reads in (-1, 0):
        with unreadable(path, errno.EIO, reads=reads), pytest.raises(EnvironmentFault) as caught:
            files.copy_file(path, tmp_path / "copy.h5")
        assert caught.value.where == str(path)
        assert [file.name for file in tmp_path.iterdir()] == ["x.h5"]
    files.copy_file(path, tmp_path / "copy.h5")
    assert (tmp_path / "copy.h5").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PROTOCOL])
def test_a_memo_that_cannot_be_asked_is_done_without_aloud_and_stays(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "sentences.sqlite"
    Memo(kept, "m").put({"a cat": np.ones(3, np.float32)})
    before = kept.read_bytes()

    def connect(*arguments: object, **named: object) -> sqlite3.Connection:
        error = sqlite3.DatabaseError("database is locked")
        error.sqlite_errorcode = code | 2 << 8  # an extended code
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(memo.sqlite3, "connect", connect)
        assert Memo(kept, "m").get(["a cat"]) == {}
        with pytest.raises(EnvironmentFault) as caught:
            memo.count(kept)
    assert "rm" not in caught.value.fix
    assert capsys.readouterr().err == f"note: embedding without the memo {kept}: database is locked\n"
    assert kept.read_bytes() == before
    with closing(sqlite3.connect(kept)) as other:  # the negative control: a memo without its table is none
        other.execute("DROP TABLE memo")
        with pytest.raises(DataError, match="no such table"):
            memo.count(kept)


def test_a_file_system_without_locks_is_not_taken_for_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(EnvironmentFault, match="No locks available") as caught:
        run_lock.alone(tmp_path / "work", doing="testing").__enter__()
    assert "CLIPCIFAR_CACHE" in caught.value.fix


def test_at_every_door_an_error_of_the_system_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "/data/x")

    monkeypatch.delenv("CLIPCIFAR_TRACEBACK", raising=False)
    monkeypatch.chdir(command_line.make_project(tmp_path))
    monkeypatch.setattr("clipcifar.cli.command.find_root", fails)
    assert command_line.run(monkeypatch, "show") == 4
    monkeypatch.setattr(sys, "argv", ["stage"])
    with pytest.raises(SystemExit) as caught:
        stages.run(lambda settings: print(fails()))
    assert caught.value.code == 4
    said = capsys.readouterr().err
    assert said.count("error: cannot use /data/x: Input/output error\n") == 2
    assert "Traceback" not in said
    (finding,) = checks._guarded(lambda *_: iter([fails()]), tmp_path, {})
    assert isinstance(finding, EnvironmentFault)
