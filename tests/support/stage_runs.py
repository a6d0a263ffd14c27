"""Stages as DVC runs them, `stages.run` and all, in this process: what they end with and what they say."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

import stages
from clipcifar.prompts.save import overlay
from tests.support.import_closure import ROOT
from tests.support.waiting import PATIENCE_S


@dataclass(frozen=True)
class Ended:
    """How a stage ended; `error` is the message that a person reads."""

    code: int
    output: str
    error: str


def run(main: Callable[..., None], *paths: str | Path, folder: Path) -> Ended:
    """Run a stage in a folder that holds params.yaml; a bug comes out as the exception that it is."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        mock.patch.object(sys, "argv", ["stage", *map(str, paths)]),
        mock.patch.object(stages, "leave", sys.exit),
        mock.patch.dict(os.environ),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        os.environ.pop("CLIPCIFAR_TRACEBACK", None)
        try:
            stages.run(main)
        except SystemExit as ended:
            return Ended(int(ended.code or 0), out.getvalue(), err.getvalue())
    raise AssertionError("a stage always exits")


def process(stage: str, *paths: str | Path, folder: Path, **limits: Any) -> Ended:
    """Run a stage as a process of its own, to its end."""
    done = subprocess.run(
        [sys.executable, "-m", f"stages.{stage}", *map(str, paths)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        **limits,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ended(done.returncode, done.stdout, done.stderr)


def write_params(folder: Path, changes: Mapping[str, Any]) -> None:
    """The committed params.yaml with some values changed; `prompts.sets` are replaced, not added to."""
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    if "sets" in changes.get("prompts", {}):
        settings["prompts"]["sets"] = {}
    overlay(settings, changes)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
