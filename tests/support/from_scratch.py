"""Every stage once, in one process, in an empty folder: no DVC, no run-cache, no memo, nothing made before.

What a workspace holds after any number of edits must be what this gives for its params.yaml alone.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from clipcifar.core import params
from tests.support.waiting import PATIENCE_S
from tests.support.workspace import ROOT, results_in


def computed(folder: Path, params_text: bytes) -> dict[str, bytes]:
    """The bytes of every result for a params.yaml, by path, made by another process in a new `folder`."""
    shutil.copytree(ROOT / "data/demo", folder / "data/demo")
    shutil.copyfile(ROOT / "data/none", folder / "data/none")
    shutil.copytree(ROOT / "data/sentences", folder / "data/sentences")
    (folder / "params.yaml").write_bytes(params_text)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CLIPCIFAR_CACHE": str(folder / "empty")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.from_scratch"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return results_in(folder)


def main() -> None:
    settings = params.load(Path("params.yaml"))
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        paths = [Path(word) for word in stage["cmd"].split()[3:]]
        importlib.import_module(f"stages.{name}").main(settings, *paths)


if __name__ == "__main__":
    main()
