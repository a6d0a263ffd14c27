"""What is recorded of the benchmarks holds together; nothing here is timed."""

from __future__ import annotations

import importlib.util
import json
import sys
from types import ModuleType
from typing import Any

import pytest

from tests.support.import_closure import ROOT

FOLDER = ROOT / "benchmarks"
ROWS: list[dict[str, Any]] = json.loads((FOLDER / "results.json").read_text())
KEYS = {"name", "ours", "theirs", "ratio", "target", "reached", "unit", "note", "group", "date"}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    specification = importlib.util.spec_from_file_location("benchmarks_run", FOLDER / "run.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    sys.modules.pop("common", None)
    return module


def test_every_row_says_the_same_things() -> None:
    assert all(set(row) == KEYS for row in ROWS)
    assert len({row["name"] for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert row["ours"] > 0
        assert (row["reached"] is None) == (not row["target"]), row["name"]


def test_every_group_is_recorded(run: ModuleType) -> None:
    assert {row["group"] for row in ROWS} == set(run.GROUPS)


def test_the_table_of_the_readme_is_that_of_the_results(run: ModuleType) -> None:
    readme = (FOLDER / "README.md").read_text()
    assert run.table(ROWS) in readme
    changed = [{**ROWS[0], "ours": ROWS[0]["ours"] + 1}, *ROWS[1:]]
    assert run.table(changed) not in readme


def test_a_row_is_one_line_of_the_table(run: ModuleType) -> None:
    row = {"name": "work", "ours": 1234.5, "theirs": None, "ratio": 0.956, "target": "≥ 1×", "unit": "s"}
    line = run.as_row({**row, "reached": False, "note": "why"})
    assert line == "| work | 1,234 |  | s | 0.956× | ≥ 1× | **no** | why |"
