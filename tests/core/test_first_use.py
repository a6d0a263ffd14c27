"""A downloaded file is remembered, and a change of it refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipcifar.core import first_use
from clipcifar.core.errors import DataError


def _file(folder: Path, content: bytes) -> Path:
    (folder / "file").write_bytes(content)
    return folder / "file"


def test_the_first_file_is_recorded_and_another_refused(tmp_path: Path, own_cache: Path) -> None:
    first_use.check("org/a/file", _file(tmp_path, b"one"))
    first_use.check("org/a/file", _file(tmp_path, b"one"))
    first_use.check("org/b/file", _file(tmp_path, b"two"))  # another name is another file
    record = own_cache / first_use.RECORD
    before = record.read_bytes()
    with pytest.raises(DataError, match="org/a/file has sha256") as caught:
        first_use.check("org/a/file", _file(tmp_path, b"two"))
    assert str(record) in caught.value.fix
    assert caught.value.exit_code == 3
    assert record.read_bytes() == before  # a refused file is not remembered


def test_a_deleted_line_trusts_the_new_file(tmp_path: Path, own_cache: Path) -> None:
    for name in ("a", "b"):
        first_use.check(name, _file(tmp_path, b"one"))
    record = own_cache / first_use.RECORD
    record.write_text(json.dumps({"b": json.loads(record.read_text())["b"]}))
    first_use.check("a", _file(tmp_path, b"two"))
    with pytest.raises(DataError):
        first_use.check("b", _file(tmp_path, b"two"))


@pytest.mark.parametrize("content", ["", "[]", "{", "3"])
def test_a_damaged_record_is_an_error_not_a_fresh_start(
    tmp_path: Path, own_cache: Path, content: str
) -> None:
    (own_cache / first_use.RECORD).write_text(content)
    with pytest.raises(DataError):
        first_use.check("a", _file(tmp_path, b"one"))
    assert (own_cache / first_use.RECORD).read_text() == content
