from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from clipcifar.core.errors import EnvironmentFault
from clipcifar.embeddings import memo as memo_module
from clipcifar.embeddings.memo import Memo

CAT = np.array([1.0, 0.0, -0.5], np.float32)
DOG = np.array([0.0, 1.0, 0.25], np.float32)
NOT_SQLITE = b"this is not SQLite, and long enough to be looked at" * 50


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "memo.sqlite"


def same(found: dict[str, NDArray[np.float32]], wanted: dict[str, NDArray[np.float32]]) -> bool:
    return sorted(found) == sorted(wanted) and all(
        found[key].dtype == np.float32 and found[key].tobytes() == wanted[key].tobytes() for key in wanted
    )


@given(rows=st.dictionaries(st.text(), hnp.arrays(np.float32, st.integers(1, 5)), max_size=4))
@settings(max_examples=25)
def test_what_is_put_comes_back_bit_for_bit_in_a_later_run(
    rows: dict[str, NDArray[np.float32]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("memo") / "memo.sqlite"
    Memo(path, "model").put(rows)
    assert same(Memo(path, "model").get([*rows, "never put, never found"]), rows)


def test_an_empty_memo_knows_nothing(path: Path) -> None:
    assert Memo(path, "model").get(["a cat"]) == {}


def test_models_do_not_share_rows(path: Path) -> None:
    Memo(path, "one").put({"a cat": CAT})
    Memo(path, "two").put({"a cat": DOG})
    assert same(Memo(path, "one").get(["a cat"]), {"a cat": CAT})
    assert same(Memo(path, "two").get(["a cat"]), {"a cat": DOG})
    assert Memo(path, "three").get(["a cat"]) == {}


def test_only_the_very_sentence_is_known(path: Path) -> None:
    Memo(path, "m").put({"a cat": CAT})
    assert Memo(path, "m").get(["a cat ", "A cat", "a cat.", "a%", ""]) == {}


def test_the_key_and_the_sentence_cannot_be_confused(path: Path) -> None:
    # Joined without their lengths, ("ab", "c") and ("a", "bc") would have one digest.
    Memo(path, "ab").put({"c": CAT})
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE memo SET key = 'a', sentence = 'bc'")
    assert Memo(path, "a").get(["bc"]) == {}


def test_a_later_row_replaces_an_earlier_one(path: Path) -> None:
    Memo(path, "m").put({"a cat": DOG})
    Memo(path, "m").put({"a cat": CAT})
    assert same(Memo(path, "m").get(["a cat"]), {"a cat": CAT})


DAMAGES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "other numbers": ("UPDATE memo SET row = ? WHERE sentence = 'a cat'", (DOG.tobytes(),)),
    "a row cut short": ("UPDATE memo SET row = ? WHERE sentence = 'a cat'", (CAT.tobytes()[:5],)),
    "no row": ("UPDATE memo SET row = NULL WHERE sentence = 'a cat'", ()),
    "text for a row": ("UPDATE memo SET row = 'abcd' WHERE sentence = 'a cat'", ()),
    "a number for a row": ("UPDATE memo SET row = 7 WHERE sentence = 'a cat'", ()),
    "no digest": ("UPDATE memo SET digest = NULL WHERE sentence = 'a cat'", ()),
    "the digest of another": (
        "UPDATE memo SET digest = (SELECT digest FROM memo WHERE sentence = 'a dog') "
        "WHERE sentence = 'a cat'",
        (),
    ),
    "the row and digest of another": (
        "UPDATE memo SET (row, digest) = (SELECT row, digest FROM memo WHERE sentence = 'a dog') "
        "WHERE sentence = 'a cat'",
        (),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_row_is_a_missing_row_and_can_be_put_again(damage: str, path: Path) -> None:
    memo = Memo(path, "m")
    memo.put({"a cat": CAT, "a dog": DOG})
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(*DAMAGES[damage]).rowcount == 1
    assert same(memo.get(["a cat", "a dog"]), {"a dog": DOG})
    memo.put({"a cat": CAT})
    assert same(memo.get(["a cat"]), {"a cat": CAT})


@pytest.mark.parametrize("content", [NOT_SQLITE, b"\xff" * 9000])
def test_a_damaged_file_is_replaced(content: bytes, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    memo = Memo(path, "m")
    assert memo.get(["a cat"]) == {}
    memo.put({"a cat": CAT})
    assert same(memo.get(["a cat"]), {"a cat": CAT})


def test_putting_into_a_damaged_file_is_harmless(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(NOT_SQLITE)
    Memo(path, "m").put({"a cat": CAT})
    assert Memo(path, "m").get(["a cat"]) == {}


def test_no_flipped_bit_or_cut_gives_other_numbers_or_an_error(path: Path) -> None:
    wanted = {f"sentence {i}": np.full(8, i, np.float32) for i in range(40)}
    Memo(path, "m").put(wanted)
    whole = path.read_bytes()
    rng = random.Random(0)
    damaged = 0
    for _ in range(400):
        mutant = bytearray(whole)
        for _ in range(20):
            bit = rng.randrange(8 * len(whole))
            mutant[bit // 8] ^= 1 << bit % 8
        path.write_bytes(mutant[: rng.choice([len(whole), rng.randrange(len(whole))])])
        found = Memo(path, "m").get(list(wanted))
        assert same(found, {sentence: wanted[sentence] for sentence in found})
        damaged += len(found) < len(wanted)
    assert damaged > 50


def test_a_place_that_cannot_be_written_is_harmless(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.sqlite").mkdir()
    for place in (tmp_path / "file" / "memo.sqlite", tmp_path / "folder.sqlite"):
        memo = Memo(place, "m")
        memo.put({"a cat": CAT})
        assert memo.get(["a cat"]) == {}
    assert (tmp_path / "file").read_text() == ""


def test_a_memo_locked_by_another_run_is_harmless(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memo_module, "_BUSY_S", 0.05)
    memo = Memo(path, "m")
    memo.put({"a cat": CAT})
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert memo.get(["a cat"]) == {}
        memo.put({"a dog": DOG})
    assert same(memo.get(["a cat", "a dog"]), {"a cat": CAT})


def test_the_memo_may_be_deleted_at_any_time(path: Path) -> None:
    memo = Memo(path, "m")
    memo.put({"a cat": CAT})
    path.unlink()
    assert memo.get(["a cat"]) == {}
    memo.put({"a cat": CAT})
    assert same(memo.get(["a cat"]), {"a cat": CAT})


def test_a_memo_that_another_process_holds_is_not_called_damaged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memo_module, "_BUSY_S", 0.0)
    Memo(path, "m").put({"a cat": CAT})
    with closing(sqlite3.connect(path)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(EnvironmentFault, match="cannot be read now") as caught:
            memo_module.count(path)
        assert Memo(path, "m").get(["a cat"]) == {}
    assert "rm " not in str(caught.value)
    assert memo_module.count(path) == (1, 0)
