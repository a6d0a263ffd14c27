"""The study by a real DVC on the digits: off the default path, run once, and its number recomputed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from clipcifar.store.predictions import read_predictions
from tests.support.workspace import Workspace

pytestmark = pytest.mark.pipeline
STUDY = "studies/finetune/dvc.yaml"
OUT = "data/studies/finetune"


def _quick(settings: Any) -> None:
    settings["finetune"].update(epochs=2, warmup_epochs=0.2, learning_rate=0.001, batch_size=64, accumulate=1)
    settings["finetune"].update(crop="pad", flip="none", device="cpu")


def test_the_study_runs_on_its_own_and_once(workspace: Workspace) -> None:
    workspace.edit(_quick)
    workspace.repro()
    assert not workspace.executed()  # nor does an edit of its section concern the default path
    workspace.start_study("finetune")
    assert workspace.executed() == ["finetune", "finetune_report"]
    found = {
        key: value
        for name in ("metrics", "details")
        for key, value in json.loads(workspace.read(f"{OUT}/{name}.json")).items()
    }
    tuned = read_predictions(workspace.folder / OUT / "predictions.h5")
    frozen = read_predictions(workspace.folder / "data/predictions/mlp_probe.h5")
    label = dict(zip(frozen.ids, frozen.labels.tolist(), strict=True))
    right = [
        sum(label[name] == guess for name, guess in zip(side.ids, side.predicted.tolist(), strict=True))
        for side in (frozen, tuned)
    ]
    assert found["n_correct"] == right[1]
    difference = (right[1] - right[0]) / len(label)
    assert found["vs_frozen"]["difference"] == pytest.approx(difference, abs=1e-5)
    assert found["frozen"]["accuracy"] == pytest.approx(right[0] / len(label), abs=1e-5)
    stored = json.loads(workspace.read("metrics/mlp_probe.json"))
    assert found["frozen"]["accuracy"] == stored["accuracy"]
    curve = workspace.read(f"{OUT}/training.csv").decode().splitlines()
    val = np.array([float(line.split(",")[-1]) for line in curve[1:]])
    assert len(val) == 3
    assert found["selected"]["epoch"] in np.flatnonzero(val == val.max())
    assert b"Fine-tuning the image tower" in workspace.read("report/finetune.html")

    workspace.repro(STUDY)
    assert not workspace.executed()
    page = workspace.folder / "clipcifar/studies/finetune/judge/page.py"
    page.write_text(page.read_text().replace("In numbers", "By the numbers"))
    workspace.repro(STUDY)
    assert workspace.executed() == ["finetune_report"]  # a change of the page trains nothing
    assert b"By the numbers" in workspace.read("report/finetune.html")
    workspace.command("git", "add", "--all")
    listed = workspace.command("git", "ls-files").stdout.split()
    assert not [name for name in listed if name.startswith(OUT) and not name.endswith(".gitignore")]
