"""The stage as DVC starts it, with workers on this machine: nothing is stale, and the output is the same."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import psutil
import pytest
import yaml

from tests.support.on_cluster import digests
from tests.support.workspace import Workspace

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.nightly,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]


def test_a_stage_embeds_on_a_cluster_of_its_own_and_leaves_no_process(
    workspace: Workspace, tmp_path: Path
) -> None:
    before = digests(workspace.folder / "data/embeddings/images")
    cluster = {"engine": "ray", "address": "local", "worker_cpus": 1, "scratch": str(tmp_path / "shared")}
    workspace.edit(lambda settings: settings["embed"].update(cluster))
    assert "Data and pipelines are up to date" in workspace.command("dvc", "status").stdout
    lock = yaml.safe_load((workspace.folder / "dvc.lock").read_text())
    command = lock["stages"]["embed_images"]["cmd"].split()
    workspace.environment["CLIPCIFAR_CACHE"] = str(tmp_path / "empty")
    (workspace.folder / "dvc.lock").unlink()  # nobody has them any more
    running = {process.pid for process in psutil.process_iter() if "raylet" in process.name()}
    done = workspace.command(*command[:-1], str(tmp_path / "made"))
    assert "images embedded on cpu" in done.stdout
    assert digests(tmp_path / "made") == before
    gone = [p for p in psutil.process_iter() if "raylet" in p.name() and p.pid not in running]
    assert [process for process in gone if str(tmp_path) in " ".join(process.environ().values())] == []


def test_without_ray_the_stage_ends_with_one_readable_message(workspace: Workspace, tmp_path: Path) -> None:
    workspace.edit(lambda settings: settings["embed"].update(engine="ray"))
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "ray.py").write_text("raise ImportError('no module named ray')\n")
    workspace.environment["PYTHONPATH"] = str(tmp_path / "hidden")
    lock = yaml.safe_load((workspace.folder / "dvc.lock").read_text())
    command = lock["stages"]["embed_images"]["cmd"].split()
    (workspace.folder / "dvc.lock").unlink()
    workspace.environment["CLIPCIFAR_CACHE"] = str(tmp_path / "empty")
    done = workspace.command(*command[:-1], str(tmp_path / "made"), check=False)
    assert done.returncode == 2
    assert "embed.engine is ray, and Ray is not installed" in done.stderr
    assert "Traceback" not in done.stderr
