"""What takes how many columns, and what never reaches a terminal."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given, strategies as st

from clipcifar.core import terminal
from clipcifar.core.errors import DataError, exit_with_message

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
WIDTHS = {
    "cat": 3,
    "卡车": 4,
    "猫": 2,
    "한국": 4,
    unicodedata.normalize("NFD", "한국"): 4,
    "ｱ": 1,  # a half-width katakana
    "Ａ": 2,  # a full-width letter
    "café": 4,
    unicodedata.normalize("NFD", "café"): 4,
    "שלום": 4,
    "שָׁלוֹם": 4,  # with vowel points
    "नमस्ते": 4,  # by the half-form, in three clusters
    "\U0001f431": 2,
    FAMILY: 2,
    "\U0001f44d\U0001f3fd": 2,  # with a tone of skin
    "\U0001f1e9\U0001f1ea": 2,  # a flag
    "❤️": 2,  # with the selector for an emoji
    "❤": 1,
    "☺\ufe0e": 1,  # with the selector for text
    "1️⃣": 2,
    "a\u200bb": 2,
    "\ufeffa": 1,
    "… – ± × ·": 9,
}
CHARACTERS = st.text(alphabet=st.sampled_from([*"ab|é\u0301猫❤\ufe0f\u200d\u200b", *FAMILY, "ש", "\u0bcd"]))


@pytest.mark.parametrize(("text", "columns"), WIDTHS.items(), ids=ascii)
def test_columns_are_those_of_a_terminal(text: str, columns: int) -> None:
    assert terminal.width(text) == columns
    assert terminal.left(text, 12) == text + (12 - columns) * " "
    assert terminal.right(text, 12) == (12 - columns) * " " + text


def test_what_is_counted_without_the_library_is_counted_as_it_would_be() -> None:
    from wcwidth import wcswidth

    short = [chr(code) for code in range(0x20, 0x3000) if terminal._NARROW.fullmatch(chr(code))]
    assert len(short) > 600
    assert {wcswidth(letter) for letter in short} == {1}


@given(CHARACTERS, st.integers(1, 12))
def test_what_is_cut_fits_and_ends_between_two_letters(text: str, columns: int) -> None:
    from wcwidth import iter_graphemes

    shown = terminal.cut(text, columns)
    assert terminal.width(shown) <= columns
    if shown != text:
        assert shown.endswith("…")
        clusters = list(iter_graphemes(text))
        kept = shown[:-1]
        assert kept in ["".join(clusters[:count]) for count in range(len(clusters))]


def test_hand_cases_of_cutting() -> None:
    assert terminal.cut("automobile", 10) == "automobile"
    assert terminal.cut("automobile", 5) == "auto…"
    assert terminal.cut("卡车卡车", 8) == "卡车卡车"
    assert terminal.cut("卡车卡车", 6) == "卡车…"  # a column stays empty
    assert terminal.cut("cafe\u0301s au lait", 5) == "cafe\u0301…"
    assert terminal.cut(FAMILY + "abc", 4) == FAMILY + "a…"
    assert terminal.cut(FAMILY + "abc", 2) == "…"


HOSTILE = [
    *(chr(code) for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"),
    *(chr(code) for code in (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))),
]


def test_nothing_that_steers_is_left_and_nothing_else_is_touched() -> None:
    steering = "".join(HOSTILE)
    assert len(HOSTILE) == 30 + 33 + 11
    shown = terminal.harmless(steering)
    assert shown.isascii()
    assert shown.isprintable()
    assert json.loads(f'"{shown}"') == steering  # so that JSON stays what it was
    assert terminal.harmless("\x1b]0;gone\x07") == r"\u001b]0;gone\u0007"
    assert terminal.one_line("a\tb\n\udcff") == r"a\u0009b\u000a\udcff"
    others = "".join(chr(code) for code in range(0x110000) if chr(code) not in HOSTILE)
    assert terminal.harmless(others) == others
    assert (
        terminal.harmless("שלום \u200f\u200dنمی‌خواهم") == "שלום \u200f\u200dنمی‌خواهم"
    )  # written from the right


PRINTING = """
import sys
from clipcifar.core.errors import print_anything
from clipcifar.core.progress import progress
print_anything(); print_anything()
print("one\\ttwo", "\\x1b[2J\\u202egnp", "\\x9b1m", sep="\\n", flush=True)
sys.stdout.write("\\x07\\n")
sys.stdout.flush()
with progress(total=2, unit="images", what="a\\x1b[2J") as bar:
    bar.delay = 0
    bar.update()
    bar.refresh()
"""


def test_standard_output_lets_nothing_through_and_progress_is_still_drawn() -> None:
    done = subprocess.run([sys.executable, "-c", PRINTING], capture_output=True, timeout=60)
    assert done.stdout.decode() == "one\ttwo\n\\u001b[2J\\u202egnp\n\\u009b1m\n\\u0007\n"
    assert done.stderr.startswith(rb"\ra\u001b[2J:".replace(rb"\r", b"\r"))
    assert b"\x1b" not in done.stderr


def test_errors_and_notes_let_nothing_through(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        exit_with_message(DataError("no \x1b[2J images", where="a\u202egnp.exe"))
    terminal.note("x\x9b1m")
    assert capsys.readouterr().err == (
        "error: no \\u001b[2J images\n  where: a\\u202egnp.exe\nnote: x\\u009b1m\n"
    )


def test_a_stream_says_how_much_was_written_and_is_the_stream_besides() -> None:
    inner = io.StringIO()
    stream = terminal.HarmlessStream(inner)
    assert stream.write("a\x1b") == 2
    assert inner.getvalue() == "a\\u001b"
    assert stream.getvalue() == "a\\u001b"  # type: ignore[operator]
