"""`clipcifar …` in this process, and the folder that it takes for a project."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from clipcifar.cli import main as cli
from clipcifar.project.root import MARKS
from tests.support.import_closure import ROOT


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    """The exit code."""
    monkeypatch.setattr(sys, "argv", ["clipcifar", *arguments])
    try:
        cli.main()
    except SystemExit as exit_:
        return exit_.code
    return 0


def make_project(folder: Path) -> Path:
    """The two files that a project is known by, as they stand here."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in MARKS:
        shutil.copyfile(ROOT / name, folder / name)
    return folder
