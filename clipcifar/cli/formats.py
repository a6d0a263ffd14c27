"""Results as documents for other programs: JSON, and CSV with a header row."""

from __future__ import annotations

import csv
import json
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from types import SimpleNamespace
from typing import Any


def add_formats(parser: ArgumentParser, *, json_help: str, csv_help: str) -> Any:
    """Declare `--json` and `--csv`, of which one can be asked for; returns their group, for a third."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--json", action="store_true", help=json_help)
    group.add_argument("--csv", action="store_true", help=csv_help)
    return group


def as_json(data: object) -> str:
    """Readable JSON of plain values and NumPy's, in the order given, without a line break at its end.

    Raises:
        ValueError: a float is not finite, for which JSON has no word; None is `null`.
    """
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)


def _plain(value: Any) -> object:
    return value.tolist()  # arrays and scalars of NumPy


def as_csv(columns: Mapping[str, Iterable[object]]) -> str:
    """Columns of equal length as CSV (RFC 4180, but lines end in one line feed), none at its end.

    Floats are written so that reading gives the same bits, None as an empty cell.

    Args:
        columns: by what the header calls them; also arrays.

    Raises:
        ValueError: columns differ in length.
    """
    return "\n".join(csv_lines(columns))


def csv_lines(columns: Mapping[str, Iterable[object]]) -> Iterator[str]:
    """The same row by row, which may be lines of text each, for what is too much to hold."""
    written: list[str] = []
    # Cells with either character of the line end are quoted, and a lone carriage return has to be: readers
    # end a line at it.
    writer = csv.writer(SimpleNamespace(write=written.append), lineterminator="\r\n")
    for row in chain([columns], zip(*columns.values(), strict=True)):
        writer.writerow(row)
        yield written.pop().removesuffix("\r\n")


def columns_of(rows: Sequence[Mapping[str, object]]) -> dict[str, list[object]]:
    """Rows as columns, in the order in which rows name them; None where a row has nothing under a name."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values under their names with a dot between: {"a": {"b": 1}} becomes {"a.b": 1}."""
    level: dict[str, Any] = {}
    for name, value in values.items():
        inner = flat(value) if isinstance(value, Mapping) else None
        level |= {name: value} if inner is None else {f"{name}.{key}": item for key, item in inner.items()}
    return level
