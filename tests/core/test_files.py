from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import shutil
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from clipcifar.core import files
from clipcifar.core.errors import DataError, EnvironmentFault
from tests.support.waiting import PATIENCE_S

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_canonical_json_sorts_keys_drops_white_space_and_keeps_letters() -> None:
    assert files.canonical_json({"b": [1, 2.5, None], "a": "é"}) == '{"a":"é","b":[1,2.5,null]}'


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=5))
@settings(max_examples=50)
def test_canonical_json_does_not_depend_on_key_order_and_parses_back(value: dict[str, Any]) -> None:
    reverse = dict(reversed(value.items()))
    assert files.canonical_json(value) == files.canonical_json(reverse)
    assert json.loads(files.canonical_json(value)) == value


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_has_no_json(number: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        files.canonical_json({"x": number})
    with pytest.raises(ValueError, match="Out of range"):
        files.write_json(tmp_path / "x.json", {"x": number})
    assert list(tmp_path.iterdir()) == []


def test_sha256_of_is_the_digest_of_the_canonical_text() -> None:
    assert files.sha256_of({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()
    assert files.sha256_of({"a": 1}) != files.sha256_of({"a": 1.0})


def test_file_sha256_is_the_digest_of_the_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000  # more than one block
    (tmp_path / "x").write_bytes(content)
    assert files.file_sha256(tmp_path / "x") == hashlib.sha256(content).hexdigest()


def test_source_sha256_is_of_any_source_and_its_name_but_not_of_where_it_lies(
    tmp_path: Path,
) -> None:
    def digest(root: Path, **texts: str) -> str:
        for name, text in texts.items():
            path = root / "package" / "deep" / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (root / "package" / "notes.txt").write_text(str(root))  # no code
        (root / "beside.py").write_text("z = 1")
        return files.source_sha256(root, "package", "beside.py")

    before = digest(tmp_path / "a", one="x = 1", two="y = 1")
    assert before == digest(tmp_path / "b", two="y = 1", one="x = 1")
    assert before == files.source_sha256(tmp_path / "b", "beside.py", "package")
    others = {
        digest(tmp_path / "c", one="x = 1", two="y = 2"),
        digest(tmp_path / "d", one="y = 1", two="x = 1"),
        digest(tmp_path / "e", one="x = 1", two="y = 1", three=""),
        files.source_sha256(tmp_path / "b", "package"),
    }
    assert len(others - {before}) == 4


@given(content=st.binary(max_size=300))
@settings(max_examples=30)
def test_bytes_come_back_and_nothing_else_is_left(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "x.bin"
    files.write_atomically(path, content)
    assert path.read_bytes() == content
    assert [item.name for item in path.parent.iterdir()] == ["x.bin"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_umask_says_who_may_read_and_write_what_is_written(mask: int, mode: int, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    before = os.umask(mask)
    try:
        files.write_atomically(tmp_path / "x", b"1")
        files.copy_file(tmp_path / "x", tmp_path / "deep" / "y")
    finally:
        os.umask(before)
    written = [tmp_path / "x", tmp_path / "deep" / "y"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in written] == [mode, mode]


class _FailingStream:
    """A file whose write fails half-way, as on a disk that fills up."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __enter__(self) -> _FailingStream:
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()

    def write(self, content: bytes) -> int:
        self._stream.write(content[: len(content) // 2])
        raise OSError(errno.EIO, "Input/output error")


def _failing_open(*args: Any) -> _FailingStream:
    return _FailingStream(open(*args))


def _failing(*_: Any, **__: Any) -> Any:
    raise OSError(errno.EIO, "Input/output error")


def _fail_on_call(function: Callable[..., Any], number: int) -> Callable[..., Any]:
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return _failing() if calls == number else function(*args, **kwargs)

    return wrapped


STEPS = {
    "mkdir": (Path, "mkdir", _failing),
    "disk_usage": (shutil, "disk_usage", _failing),
    "create": (files, "open", _failing),
    "write": (files, "open", _failing_open),
    "fsync": (os, "fsync", _fail_on_call(os.fsync, 1)),
    "replace": (os, "replace", _failing),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_failing_step_leaves_the_old_file_and_no_litter(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(*STEPS[step], raising=hasattr(STEPS[step][0], STEPS[step][1]))
        with pytest.raises(EnvironmentFault, match="Input/output error") as caught:
            files.write_atomically(path, b"new content")
    assert caught.value.exit_code == 4
    assert caught.value.where == str(path)
    assert [(item.name, item.read_bytes()) for item in tmp_path.iterdir()] == [("x.bin", b"old")]
    files.write_atomically(path, b"new content")
    assert path.read_bytes() == b"new content"


def test_a_folder_that_cannot_be_synced_is_reported_with_the_whole_new_file_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", _fail_on_call(os.fsync, 2))  # the second is the folder's
    with pytest.raises(EnvironmentFault):
        files.write_atomically(path, b"new content")
    assert [(item.name, item.read_bytes()) for item in tmp_path.iterdir()] == [("x.bin", b"new content")]


def test_an_interrupt_leaves_no_litter_and_stays_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(tmp_path / "x", b"1")
    assert list(tmp_path.iterdir()) == []


def test_the_bytes_are_on_disk_before_they_get_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real_sync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("fsync"), real_sync(handle)))
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("replace"), real_replace(*paths)))
    files.write_atomically(tmp_path / "x", b"1")
    assert order == ["fsync", "replace", "fsync"]


def _disk_with(free: int) -> Callable[[Any], Any]:
    return lambda folder: shutil._ntuple_diskusage(10**12, 10**12 - free, free)  # type: ignore[attr-defined]


def test_a_full_disk_says_what_is_needed_and_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    monkeypatch.setattr(shutil, "disk_usage", _disk_with(1_000_000))
    with pytest.raises(EnvironmentFault, match=r"needs 2\.5 MB, has 1\.0 MB") as caught:
        files.write_atomically(path, bytes(2_500_000))
    assert caught.value.exit_code == 4
    assert str(tmp_path) in str(caught.value)
    assert [(item.name, item.read_bytes()) for item in tmp_path.iterdir()] == [("x.bin", b"old")]


def test_exactly_enough_space_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", _disk_with(100))
    files.require_space(tmp_path, 100)
    with pytest.raises(EnvironmentFault):
        files.require_space(tmp_path, 101)


def test_a_file_size_limit_is_an_ordinary_error_for_plain_bytes_and_for_a_container(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import resource, sys
        from pathlib import Path
        import numpy as np
        from clipcifar.core import files
        from clipcifar.store import container
        from clipcifar.core.errors import EnvironmentFault

        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        path = Path(sys.argv[1])
        for write in (
            lambda: files.write_atomically(path, bytes(50_000)),
            lambda: container.write(path, kind="k", arrays={"x": np.zeros(50_000)}, attributes={}),
        ):
            try:
                write()
            except EnvironmentFault as error:
                print(error.exit_code, path in (Path(error.where), path), "File too large" in str(error))
        """
    )
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    # The file that `make coverage` has every process write may not grow either.
    environment = {name: value for name, value in os.environ.items() if name != "COVERAGE_PROCESS_CONFIG"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["4 True True"] * 2
    assert [(item.name, item.read_bytes()) for item in tmp_path.iterdir()] == [("x.bin", b"old")]


@pytest.fixture
def under_a_file(tmp_path: Path) -> Path:
    """A place where even root cannot make a folder."""
    (tmp_path / "file").write_text("not a folder")
    return tmp_path / "file" / "folder"


def test_a_place_that_cannot_be_written_is_refused_before_any_work(under_a_file: Path) -> None:
    with pytest.raises(EnvironmentFault, match="cannot use") as caught:
        files.require_writable(under_a_file)
    assert caught.value.where == str(under_a_file)
    with pytest.raises(EnvironmentFault):
        files.write_atomically(under_a_file / "x", b"1")
    with pytest.raises(EnvironmentFault):
        files.copy_file(under_a_file.parent, under_a_file / "x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(EnvironmentFault, match="Permission denied"):
        files.require_writable(tmp_path)
    tmp_path.chmod(0o700)


def test_a_writable_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    files.require_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_copy_has_the_bytes_of_its_source(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x00\xff")
    files.copy_file(tmp_path / "x", tmp_path / "deep" / "y")
    assert (tmp_path / "deep" / "y").read_bytes() == b"\x00\xff"


def test_json_is_readable_keeps_its_key_order_and_comes_back(tmp_path: Path) -> None:
    files.write_json(tmp_path / "x.json", {"b": 1, "a": {"name": "é"}})
    assert (tmp_path / "x.json").read_text("utf-8") == '{\n  "b": 1,\n  "a": {\n    "name": "é"\n  }\n}\n'
    assert files.read_json(tmp_path / "x.json") == {"b": 1, "a": {"name": "é"}}


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe", b'{"a": 1} x'])
def test_json_that_is_missing_or_damaged_is_bad_data(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="there is no x.json" if content is None else "cannot read") as caught:
        files.read_json(path)
    assert (caught.value.exit_code, caught.value.where) == (3, str(path))
    assert "Errno" not in str(caught.value)


def test_the_cache_folder_is_the_one_asked_for_or_the_platforms(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert files.cache_folder() == own_cache
    monkeypatch.setenv("CLIPCIFAR_CACHE", "")
    assert files.cache_folder().name == "clipcifar"
    assert files.cache_folder() != own_cache


def test_what_a_killed_writer_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = tmp_path / f".x.h5.{files.host()}.{gone.pid}.abc.tmp"
    kept = [
        tmp_path / f".x.h5.{files.host()}.{os.getppid()}.abc.tmp",  # of a process that lives
        tmp_path / f".y.h5.{files.host()}.{gone.pid}.abc.tmp",  # of another file
        tmp_path / f".x.h5.another-machine.{gone.pid}.abc.tmp",  # where that process may live
        tmp_path / ".x.h5.abc.tmp",  # not of ours
    ]
    for path in (left, *kept):
        path.write_text("half")
    files.write_atomically(tmp_path / "x.h5", b"1")
    assert not left.exists()
    assert all(path.exists() for path in kept)


def test_a_temporary_file_says_which_machine_writes_it_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that two share, each removes what its own killed writers left, and no more."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    monkeypatch.setattr(os, "getpid", lambda: gone.pid)
    for machine, other in (("a.example.org", "b.example.org"), ("a b", "b"), ("", "a")):
        monkeypatch.setattr(platform, "node", lambda name=machine: name)
        with files.placing(tmp_path / "x.h5", 1) as stream:
            temporary = Path(stream.name)
            assert files.is_abandoned(temporary)
            monkeypatch.setattr(platform, "node", lambda name=other: name)
            assert not files.is_abandoned(temporary)


def test_a_copy_that_fails_leaves_the_old_file_and_says_what_it_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "source", tmp_path / "out" / "x"
    source.write_bytes(bytes(2_500_000))
    files.write_atomically(target, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", _failing)
        with pytest.raises(EnvironmentFault, match="Input/output error"):
            files.copy_file(source, target)
    monkeypatch.setattr(shutil, "disk_usage", _disk_with(1_000_000))
    with pytest.raises(EnvironmentFault, match=r"needs 2\.5 MB, has 1\.0 MB at .*out"):
        files.copy_file(source, target)
    with pytest.raises(EnvironmentFault, match="No such file") as caught:
        files.copy_file(tmp_path / "none", target)
    assert caught.value.where == str(tmp_path / "none")
    assert [(item.name, item.read_bytes()) for item in target.parent.iterdir()] == [("x", b"old")]


def test_what_a_process_of_somebody_else_writes_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / f".x.h5.{files.host()}.1.abc.tmp"
    left.write_text("half")

    def forbidden(process: int, signal: int) -> None:
        raise PermissionError(process, signal)

    monkeypatch.setattr(os, "kill", forbidden)
    files.write_atomically(tmp_path / "x.h5", b"1")
    assert left.exists()


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="this system keeps no process that has ended")
def test_what_was_left_by_one_that_has_ended_and_that_nobody_collects_goes(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    os.kill(ended.pid, 0)  # the system still knows it
    left = tmp_path / f".x.h5.{files.host()}.{ended.pid}.abc.tmp"
    left.write_text("half")
    files.write_atomically(tmp_path / "x.h5", b"1")
    assert not left.exists()
    ended.wait()


def test_a_system_that_cannot_open_a_folder_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_DIRECTORY")
    files.write_atomically(tmp_path / "x", b"1")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"1"]
