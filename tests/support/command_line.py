"""`clipcifar …` in this process, the folder that it takes for a project, and a run recorded there."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import dvc.repo  # noqa: F401  logs to the streams of its first import, which should be no test's own
import pytest
import yaml

from clipcifar.cli import main as cli
from clipcifar.core import params
from clipcifar.project import dvc_project, lockfile
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


def record(project: Path, *outputs: str) -> None:
    """Let dvc.lock say that the stages which make these outputs ran with params.yaml as it is."""
    settings = params.load(project / "params.yaml")
    stages = {}

    def digest(path: str) -> str:
        return dvc_project.digest_of(project / path, project) if (project / path).exists() else "0" * 32

    for target, asked in lockfile.asked_stages(lockfile.reader(project), ["dvc.yaml"], settings).items():
        made = [output for output in outputs if output in asked.outs]
        if made:
            stages[target] = {
                "cmd": asked.cmd,
                "deps": [{"path": path, "md5": digest(path), "size": 0} for path in asked.deps],
                "params": {"params.yaml": {key: lockfile.value_of(settings, key) for key in asked.params}},
                "outs": [{"path": path, "md5": digest(path), "size": 0} for path in made],
            }
    (project / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
