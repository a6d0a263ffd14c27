"""Documents that other programs read: what goes in comes out, whatever names hold."""

from __future__ import annotations

import csv
import io
import json
from argparse import ArgumentParser

import numpy as np
import pytest

from clipcifar.cli.formats import add_formats, as_csv, as_json
from clipcifar.core.terminal import HarmlessStream

AWKWARD = [
    *("", " ", "a,b", 'say "cat"', "two\nlines", "a\rb", "a\r\nb", "tab\tbed", "=1+1", "\\", "\\u001b", "'"),
    *("ネコ", "é", "👩‍🚀", "\x00", "\x1b[2J", "\x85", "\u2028", "\u202e", "null", "NaN"),
]


def printed(text: str) -> str:
    """What a reader gets of what a command printed."""
    stream = io.StringIO(newline="")
    HarmlessStream(stream).write(text + "\n")
    return stream.getvalue()


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


def test_json_round_trips_names_even_through_a_stream_that_escapes() -> None:
    data = {"names": AWKWARD, **{name: i for i, name in enumerate(AWKWARD)}}
    assert json.loads(as_json(data)) == data
    assert json.loads(printed(as_json(data))) == data
    assert "ネコ" in as_json(data)  # for people too


def test_json_takes_numpy_and_refuses_what_is_no_number() -> None:
    data = {"n": np.int64(3), "p": np.float64(0.1), "rows": np.eye(2, dtype=np.float32), "is": np.bool_(True)}
    assert json.loads(as_json(data)) == {"n": 3, "p": 0.1, "rows": [[1, 0], [0, 1]], "is": True}
    for value in (float("nan"), float("inf"), np.float32("nan")):
        with pytest.raises(ValueError, match="JSON"):
            as_json({"p": value})


def test_csv_round_trips_names() -> None:
    text = as_csv({"name": AWKWARD, "n": range(len(AWKWARD))})
    assert rows_of(text) == [["name", "n"], *([name, str(n)] for n, name in enumerate(AWKWARD))]
    assert rows_of(as_csv({name: [1] for name in AWKWARD})) == [AWKWARD, ["1"] * len(AWKWARD)]


def test_csv_is_plain_where_names_are() -> None:
    assert as_csv({"a": [1, None], "b": ["cat", True]}) == "a,b\n1,cat\n,True"
    assert as_csv({"a": [], "b": []}) == "a,b"


def test_printed_csv_has_escapes_for_what_steers_a_terminal_and_keeps_its_rows() -> None:
    """CSV has no escapes of its own, so here alone the cell is other text: a reader sees `\\u001b`."""
    rows = rows_of(printed(as_csv({"name": AWKWARD, "n": range(len(AWKWARD))})))
    assert [int(n) for _, n in rows[1:]] == list(range(len(AWKWARD)))
    changed = {"a\rb": "a\\u000db", "\x1b[2J": "\\u001b[2J", "\u202e": "\\u202e", "\x00": "\\u0000"}
    changed |= {"\x85": "\\u0085", "\u2028": "\\u2028", "a\r\nb": "a\\u000d\nb"}
    assert [name for name, _ in rows[1:]] == [changed.get(name, name) for name in AWKWARD]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_csv_keeps_every_bit_of_a_float(dtype: type[np.floating]) -> None:
    values = np.random.default_rng(0).normal(size=100).astype(dtype)
    cells = [row[0] for row in rows_of(as_csv({"p": values}))[1:]]
    np.testing.assert_array_equal(np.array(cells, dtype=dtype), values)


def test_csv_refuses_columns_of_different_lengths() -> None:
    with pytest.raises(ValueError, match="shorter"):
        as_csv({"a": [1, 2], "b": [1]})


def test_only_one_format_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser()
    add_formats(parser, json_help="", csv_help="")
    assert parser.parse_args(["--csv"]).csv
    with pytest.raises(SystemExit):
        parser.parse_args(["--csv", "--json"])
    assert "not allowed with" in capsys.readouterr().err
