"""The examples of docstrings and of docs/python.md: each is run, on a finished project."""

from __future__ import annotations

import doctest
import importlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import clipcifar
from tests.support.import_closure import ROOT
from tests.support.workspace import Workspace

PYTHON = ROOT / "docs/python.md"
WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for folder in ("clipcifar", "stages", "studies")
    for path in (ROOT / folder).rglob("*.py")
    if re.search(r"^ *>>> ", path.read_text(), flags=re.M)
)
WITH_A_PROJECT = [name for name in WITH_EXAMPLES if name.startswith("clipcifar.api.")]


def examples(module: ModuleType) -> Iterator[doctest.DocTest]:
    """The examples of a module, those of its classes and functions among them."""
    yield from (test for test in doctest.DocTestFinder(recurse=True).find(module) if test.examples)


def of_page(text: str, name: str) -> doctest.DocTest:
    """The examples of a page, whose fences are none of what is expected."""
    plain = re.sub(r"^```.*$", "", text, flags=re.M)
    return doctest.DocTestParser().get_doctest(plain, {}, name, name, 0)


def failures(test: doctest.DocTest, names: dict[str, Any]) -> str:
    """What an example got that is not what it says, nothing if all is well."""
    test.globs.update(names)
    said = io.StringIO()
    doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS).run(test, out=said.write)
    return said.getvalue()


@pytest.fixture
def names(finished: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What an example may speak of: a finished project, and the folder it lies in; somewhere else is here."""
    monkeypatch.setenv("CLIPCIFAR_CACHE", finished.environment["CLIPCIFAR_CACHE"])
    monkeypatch.chdir(tmp_path)
    return {"project": clipcifar.open(finished.folder), "folder": finished.folder}


@pytest.mark.parametrize("name", [name for name in WITH_EXAMPLES if name not in WITH_A_PROJECT])
def test_examples_do_what_they_say(name: str) -> None:
    told = [failures(test, {}) for test in examples(importlib.import_module(name))]
    assert told, f"the examples of {name} stand where nobody looks for them"
    assert "".join(told) == ""


@pytest.mark.pipeline
@pytest.mark.parametrize("name", WITH_A_PROJECT)
def test_examples_of_a_project_do_what_they_say(name: str, names: dict[str, Any]) -> None:
    told = [failures(test, dict(names)) for test in examples(importlib.import_module(name))]
    assert told, f"the examples of {name} stand where nobody looks for them"
    assert "".join(told) == ""


@pytest.mark.pipeline
def test_examples_of_the_page_do_what_they_say(names: dict[str, Any]) -> None:
    test = of_page(PYTHON.read_text(), "docs/python.md")
    assert len(test.examples) > 20
    assert failures(test, names) == ""


def test_every_name_that_the_door_offers_has_an_example() -> None:
    page = PYTHON.read_text()
    offered = [name for name in vars(clipcifar.Project) if not name.startswith("_")]
    offered += [name for name in vars(clipcifar.Classifier) if not name.startswith("_")]
    assert [name for name in offered if not re.search(rf"\.{name}\b", page)] == []


def test_a_wrong_example_is_noticed() -> None:
    module = ModuleType("wrong")
    module.__doc__ = ">>> 1 + 1\n3\n"
    (test,) = examples(module)
    assert "Expected:\n    3\nGot:\n    2" in failures(test, {})
    assert "Expected:\n    3\n" in failures(of_page("words\n\n```python\n>>> 1 + 1\n3\n```\n", "page"), {})
    assert "NameError" in failures(of_page(">>> project\n", "page"), {})
    assert failures(of_page("```python\n>>> 1 + 1\n2\n```\nmore words\n", "page"), {}) == ""
