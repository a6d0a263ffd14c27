from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from clipcifar.core import files
from clipcifar.core.errors import EnvironmentFault
from clipcifar.embeddings.shards import ShardFolder, require_space

FINGERPRINT = "0123456789abcdef" * 4
ROWS = np.arange(20, dtype=np.float32).reshape(5, 4)


def shard_path(root: Path) -> Path:
    (found,) = root.glob("*/*.shard")
    return found


@given(
    rows=hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=5)),
    start=st.integers(0, 10**9 - 6),
)
@settings(max_examples=40)
def test_rows_come_back_bit_for_bit(rows: NDArray[np.float32], start: int, tmp_path: Path) -> None:
    shards = ShardFolder(tmp_path, FINGERPRINT)
    shards.write(start, start + len(rows), rows)
    back = ShardFolder(tmp_path, FINGERPRINT).read(start, start + len(rows))
    assert back is not None
    assert (back.dtype, back.shape, back.tobytes()) == (np.float32, rows.shape, rows.tobytes())


def test_a_shard_that_was_never_written_is_missing(tmp_path: Path) -> None:
    assert ShardFolder(tmp_path, FINGERPRINT).read(0, 5) is None


def test_a_shard_answers_for_its_own_rows_only(tmp_path: Path) -> None:
    shards = ShardFolder(tmp_path, FINGERPRINT)
    shards.write(0, 5, ROWS)
    assert shards.read(0, 4) is None
    assert shards.read(5, 10) is None
    assert shards.read(0, 5) is not None


def test_a_shard_under_the_name_of_another_is_missing(tmp_path: Path) -> None:
    shards = ShardFolder(tmp_path, FINGERPRINT)
    shards.write(0, 5, ROWS)
    path = shard_path(tmp_path)
    path.rename(path.with_name("000000005-000000010.shard"))
    assert shards.read(5, 10) is None
    assert shards.read(0, 5) is None


def test_a_shard_of_another_run_in_this_folder_is_missing(tmp_path: Path) -> None:
    # The folder's name holds half of the fingerprint; the shard holds all of it.
    other = FINGERPRINT[:32] + "f" * 32
    ShardFolder(tmp_path, other).write(0, 5, ROWS)
    assert ShardFolder(tmp_path, FINGERPRINT).read(0, 5) is None
    assert ShardFolder(tmp_path, other).read(0, 5) is not None


def test_a_shard_with_fewer_rows_than_its_name_says_is_missing(tmp_path: Path) -> None:
    shards = ShardFolder(tmp_path, FINGERPRINT)
    shards.write(0, 6, ROWS)
    assert shards.read(0, 6) is None


def _edited_header(change: Callable[[dict[str, object]], object]) -> Callable[[bytes], bytes]:
    def edit(content: bytes) -> bytes:
        head, _, body = content.partition(b"\n")
        header = json.loads(head)
        change(header)
        return json.dumps(header).encode() + b"\n" + body

    return edit


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "a byte less": lambda content: content[:-1],
    "a byte more": lambda content: content + b"\0",
    "zeros": lambda content: bytes(len(content)),
    "header only": lambda content: content.partition(b"\n")[0],
    "zeros for rows": lambda content: content.partition(b"\n")[0] + b"\n" + bytes(80),
    "header is null": lambda content: b"null\n" + content.partition(b"\n")[2],
    "header is a list": lambda content: b"[1]\n" + content.partition(b"\n")[2],
    "header is not text": lambda content: b"\xff\xfe\n" + content.partition(b"\n")[2],
    "no digest": _edited_header(lambda header: header.pop("sha256")),
    "no shape": _edited_header(lambda header: header.__setitem__("shape", [])),
    "a shape of words": _edited_header(lambda header: header.__setitem__("shape", ["5", "4"])),
    "a larger shape": _edited_header(lambda header: header.__setitem__("shape", [5, 5])),
    "a flat shape": _edited_header(lambda header: header.__setitem__("shape", [20])),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_counts_as_missing_and_is_replaced(damage: str, tmp_path: Path) -> None:
    shards = ShardFolder(tmp_path, FINGERPRINT)
    shards.write(0, 5, ROWS)
    whole = shard_path(tmp_path).read_bytes()
    shard_path(tmp_path).write_bytes(DAMAGES[damage](whole))
    assert shards.read(0, 5) is None
    shards.write(0, 5, ROWS)
    assert shard_path(tmp_path).read_bytes() == whole


def test_every_flipped_bit_makes_the_shard_missing(tmp_path: Path) -> None:
    shards = ShardFolder(tmp_path, FINGERPRINT)
    shards.write(0, 5, ROWS)
    path = shard_path(tmp_path)
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        mutant = bytearray(whole)
        mutant[bit // 8] ^= 1 << bit % 8
        path.write_bytes(mutant)
        assert shards.read(0, 5) is None, bit


def test_shards_outlive_a_run_until_they_are_removed(tmp_path: Path) -> None:
    first = ShardFolder(tmp_path, FINGERPRINT)
    with first.locked():
        first.write(0, 5, ROWS)
    second = ShardFolder(tmp_path, FINGERPRINT)
    with second.locked():
        assert second.read(0, 5) is not None
        second.remove()
        assert second.read(0, 5) is None
    assert list(tmp_path.glob("**/*.shard")) == []
    second.remove()  # nothing left to remove is no fault


HOLDER_SCRIPT = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from clipcifar.embeddings.shards import ShardFolder

    with ShardFolder(Path(sys.argv[1]), sys.argv[2]).locked():
        print("held", flush=True)
        sys.stdin.readline()
    """
)


@contextmanager
def holder(root: Path, fingerprint: str = FINGERPRINT) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until its standard input ends."""
    command = [sys.executable, "-c", HOLDER_SCRIPT, str(root), fingerprint]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_second_run_names_the_process_that_holds_the_folder(tmp_path: Path) -> None:
    shards = ShardFolder(tmp_path, FINGERPRINT)
    with holder(tmp_path) as process:
        with pytest.raises(EnvironmentFault, match=rf"\(process {process.pid}\)") as caught, shards.locked():
            pytest.fail("two runs at once")
        assert caught.value.exit_code == 4
        with ShardFolder(tmp_path, "f" * 64).locked():
            pass  # another extraction is no one's business
        process.communicate("\n")
    with shards.locked():
        pass


def test_a_run_on_another_machine_that_shares_the_folder_is_named_with_it(tmp_path: Path) -> None:
    with holder(tmp_path):
        next(tmp_path.glob("*.holder")).write_text("77 node-b")
        with (
            pytest.raises(EnvironmentFault, match=r"\(process 77 on node-b\)"),
            ShardFolder(tmp_path, FINGERPRINT).locked(),
        ):
            pass


def test_the_lock_of_a_killed_run_is_free(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert list(tmp_path.glob("*.holder"))  # it had no time to tidy up
        with ShardFolder(tmp_path, FINGERPRINT).locked():
            assert [path.read_text() for path in tmp_path.glob("*.holder")] == [
                f"{os.getpid()} {files.host()}"
            ]
    assert list(tmp_path.glob("*.holder")) == []


def test_a_holder_that_has_not_said_who_it_is_still_keeps_others_out(tmp_path: Path) -> None:
    with holder(tmp_path):
        for path in tmp_path.glob("*.holder"):
            path.write_text("")
        with (
            pytest.raises(EnvironmentFault, match="process unknown"),
            ShardFolder(tmp_path, FINGERPRINT).locked(),
        ):
            pytest.fail("two runs at once")


def test_the_lock_is_freed_when_the_work_fails(tmp_path: Path) -> None:
    shards = ShardFolder(tmp_path, FINGERPRINT)
    with pytest.raises(ZeroDivisionError), shards.locked():
        raise ZeroDivisionError
    with shards.locked():
        pass


def test_a_scratch_folder_that_cannot_be_made_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(EnvironmentFault, match="cannot use"),
        ShardFolder(tmp_path / "file", FINGERPRINT).locked(),
    ):
        pytest.fail("there is no such folder")


def test_a_lock_file_that_cannot_be_opened_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / f"{FINGERPRINT[:32]}.lock").mkdir()
    with (
        pytest.raises(EnvironmentFault, match="cannot use"),
        ShardFolder(tmp_path, FINGERPRINT).locked(),
    ):
        pytest.fail("there is no lock")


def _disk(free: int) -> Callable[[object], object]:
    return lambda folder: shutil._ntuple_diskusage(10**12, 10**12 - free, free)  # type: ignore[attr-defined]


def test_space_is_asked_for_the_missing_shards_and_once_more_for_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = ShardFolder(tmp_path / "scratch", FINGERPRINT)
    output = tmp_path / "output"
    output.mkdir()
    with shards.locked():
        monkeypatch.setattr(shutil, "disk_usage", _disk(2_000))
        require_space([shards], 1_000, output=output)
        with pytest.raises(EnvironmentFault, match=r"needs 0\.1 MB, has 0\.0 MB at") as caught:
            require_space([shards], 1_001, output=output)
        assert caught.value.where == str(output)
        monkeypatch.undo()
        shards.write(0, 5, ROWS)
        finished = shard_path(tmp_path / "scratch").stat().st_size
        monkeypatch.setattr(shutil, "disk_usage", _disk(2_000 - finished))
        require_space([shards], 1_000, output=output)
        with pytest.raises(EnvironmentFault):
            require_space([shards], 1_001, output=output)


def test_space_is_asked_for_once_for_several_extractions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = [ShardFolder(tmp_path, letter * 64) for letter in "abc"]
    shards[1].write(0, 5, ROWS)
    finished = 1_000 - shards[1].missing(1_000)
    assert finished > 0
    monkeypatch.setattr(shutil, "disk_usage", _disk(6_000 - finished))
    require_space(shards, 1_000, output=tmp_path)
    with pytest.raises(EnvironmentFault, match="needs"):
        require_space(shards, 1_001, output=tmp_path)
    assert shards[1].missing(1) == 0  # what is there already makes no room for the others
