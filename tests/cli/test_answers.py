from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from wcwidth import wcswidth

from clipcifar.cli import answers
from clipcifar.cli.answers import Answer

NAMES = ["cat", "sea_lion", "卡车", "x" * 50]
BATCHES = [
    [Answer(Path("a.jpg"), [("cat", 0.75), ("sea_lion", 0.25)])],
    [],
    [
        Answer(Path("b/图.png"), [("卡车", 2 / 3), ("cat", 1 / 3)]),
        Answer(Path("c\x1b[2J.png"), [("x" * 50, 1.0), ("cat", 0.0)]),
    ],
]
PATHS = [answer.path for batch in BATCHES for answer in batch]


def table(paths: list[Path] = PATHS, batches: list[list[Answer]] = BATCHES) -> str:
    return "\n".join(answers.as_lines(iter(batches), paths=paths, class_names=NAMES, top=2))


def test_the_table_lines_up_whatever_images_and_classes_are_called() -> None:
    header, *lines = table().splitlines()
    assert header.split() == ["image", "1.", "2."]
    assert [line.split()[0] for line in lines] == ["a.jpg", "b/图.png", r"c\u001b[2J.png"]
    assert lines[0].split()[1:] == ["cat", "0.750", "sea_lion", "0.250"]
    assert lines[1].split()[1:] == ["卡车", "0.667", "cat", "0.333"]
    assert "x" * 31 + "… 1.000" in lines[2]
    assert len({wcswidth(line) for line in lines}) == 1
    assert {
        wcswidth(line[: line.index(name)]) for line, name in zip(lines, ("cat", "卡", "xx"), strict=True)
    } == {wcswidth(header[: header.index("1.")])}


def test_a_narrow_terminal_shows_the_end_of_a_path_and_a_file_all_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    long = Path("photos/2024/in the mountains/a very long way up/IMG_0001.jpg")
    batches = [[Answer(long, [("cat", 0.75), ("dog", 0.25)])]]
    assert str(long) in table([long], batches)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((90, 24)))
    _, line = table([long], batches).splitlines()
    assert line.startswith("…")
    assert "p/IMG_0001.jpg  cat" in line
    assert wcswidth(line.split("  cat")[0]) == answers._PATH_COLUMNS


def test_without_an_answer_there_is_no_table() -> None:
    assert table([], []) == ""


def test_csv_reads_back_to_the_same_floats() -> None:
    text = "\n".join(answers.as_rows(iter(BATCHES), top=2))
    header, *rows = csv.reader(io.StringIO(text))
    assert header == ["path", "class_1", "probability_1", "class_2", "probability_2"]
    assert [row[0] for row in rows] == [str(path) for path in PATHS]
    read = [[(row[1], float(row[2])), (row[3], float(row[4]))] for row in rows]
    assert read == [answer.top for batch in BATCHES for answer in batch]


@pytest.mark.parametrize("name", ["=1+1.jpg", "-a.jpg", "+a.jpg", "@a.jpg", " =a.jpg", "＝a.jpg", "\t=a.jpg"])
def test_no_path_runs_in_a_spreadsheet_and_all_name_their_file(name: str) -> None:
    batches = [[Answer(Path(path), [("cat", 1.0)]) for path in (name, f"a/{name}", f"/{name}", "a;b.jpg")]]
    _, *rows = csv.reader(io.StringIO("\n".join(answers.as_rows(iter(batches), top=1))))
    paths = [row[0] for row in rows]
    assert paths == [f"./{name}", f"a/{name}", f"/{name}", "a;b.jpg"]
    assert Path(paths[0]) == Path(name)


def test_rows_are_written_as_batches_come() -> None:
    asked = []

    def batches() -> Iterator[list[Answer]]:
        for number, batch in enumerate(BATCHES):
            asked.append(number)
            yield batch

    for render in (
        lambda: answers.as_rows(batches(), top=2),
        lambda: answers.as_lines(batches(), paths=PATHS, class_names=NAMES, top=2),
    ):
        asked.clear()
        written = render()
        first = next(written)
        assert asked in ([], [0])  # the header of CSV waits for no answer
        assert "b/图" not in first
        assert "b/图" in "".join(written)
        assert asked == [0, 1, 2]


def test_json_is_one_document_which_holds_what_failed_until_the_last_batch() -> None:
    failed: list[tuple[Path, str]] = []

    def batches() -> Iterator[list[Answer]]:
        yield from BATCHES
        failed.append((Path("d.jpg"), "empty"))

    by = {"method": "zero_shot", "temperature": None}
    (text,) = answers.as_document(batches(), by=by, failed=failed, left_out={"hidden": 1})
    document = json.loads(text)
    assert [image["path"] for image in document["images"]] == [str(path) for path in PATHS]
    assert document["images"][1]["top"][0] == {"class": "卡车", "probability": 2 / 3}
    assert document["failed"] == [{"path": "d.jpg", "reason": "empty"}]
    assert (document["method"], document["temperature"], document["left_out"]) == (
        "zero_shot",
        None,
        {"hidden": 1},
    )
