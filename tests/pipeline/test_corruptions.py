"""The corruption study run by a real DVC on the digits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from clipcifar.backbone.towers import Backbone
from clipcifar.evaluation.names import METHODS
from clipcifar.methods import zero_shot
from clipcifar.store import container
from clipcifar.store.dataset import read_dataset
from clipcifar.store.embeddings import read_texts
from clipcifar.store.images import read_images
from clipcifar.studies.corruptions.images.generated import corrupt
from clipcifar.studies.corruptions.store import read_corrupted
from tests.support.workspace import Workspace

STUDY = "studies/corruptions/dvc.yaml"
OUT = "data/studies/corruptions"
NAMES = ("gaussian_noise", "darkness")


@pytest.mark.pipeline
@pytest.mark.nightly  # two studies by day: few_shot and finetune
def test_the_study_runs_beside_the_pipeline_and_its_numbers_hold(workspace: Workspace) -> None:
    chosen = {"names": list(NAMES), "severities": [2, 5], "max_per_class": None}
    workspace.edit(lambda settings: settings["corruptions"].update(chosen))
    workspace.repro()
    assert workspace.executed() == []  # its section is nobody else's
    assert not (workspace.folder / OUT).exists()

    workspace.start_study("corruptions")
    assert workspace.executed() == ["embed_corruptions", "corruptions"]
    _check_numbers(workspace)
    workspace.repro(STUDY)
    assert workspace.executed() == []

    naming = {"darkness": ["a very dark scan of the digit {classname}."]}
    workspace.edit(lambda settings: settings["corruptions"]["naming"].update(naming))
    workspace.repro(STUDY)
    assert workspace.executed() == ["corruptions"]  # a prompt embeds no image again
    assert json.loads(workspace.read(f"{OUT}/metrics.json"))["naming"]["darkness"]["naming"] > 0

    workspace.edit(lambda settings: settings["corruptions"]["names"].append("contrast"))
    said = workspace.repro(STUDY).stdout
    assert "794 of 2,382 had to be embedded" in said  # the new one's; DVC holds the others
    assert not list(Path(workspace.environment["CLIPCIFAR_CACHE"]).rglob("*.shard"))

    workspace.edit(lambda settings: settings["corruptions"].update(path="data/demo"))
    refused = workspace.repro(STUDY, check=False)
    assert refused.returncode != 0
    assert "CIFAR-10-C is of cifar10, the dataset is digits" in refused.stderr


def _check_numbers(workspace: Workspace) -> None:
    folder = workspace.folder
    found = json.loads(workspace.read(f"{OUT}/metrics.json"))
    for method in METHODS:
        own = json.loads(workspace.read(f"metrics/{method}.json"))
        assert found[method]["clean"] == pytest.approx(own["accuracy"], abs=2e-5), method
        by_name = found[method]["corruption"]
        assert set(by_name) == set(NAMES)
        assert found[method]["benchmark"]["mean"] == pytest.approx(by_name["gaussian_noise"], abs=1e-5)
        assert found[method]["own"]["mean"] == pytest.approx(by_name["darkness"], abs=1e-5)
    assert found["n_corruptions"] == {"benchmark": 1, "own": 1}
    images = read_images(folder / "data/embeddings/images")
    test = read_dataset(folder / "data/dataset.h5").test
    corrupted = read_corrupted(folder / OUT / "embeddings/gaussian_noise.h5", images)
    noisy = [
        corrupt(test.content[i], "gaussian_noise", 5, seed=0, sample_id=test.ids[i])
        for i in range(len(test.ids))
    ]
    pixels = torch.from_numpy(np.stack(noisy)).permute(0, 3, 1, 2)
    again = Backbone.load(folder / "data/weights", torch.device("cpu")).encode_images(pixels).numpy()
    assert (again * corrupted.embeddings[1]).sum(axis=1).min() > 1 - 1e-5
    weights = zero_shot.classifier(read_texts(folder / "data/embeddings/texts/photo.h5"))
    right = ((again @ weights.T).argmax(axis=1) == test.labels).mean()
    rows = [line.split(",") for line in workspace.read(f"{OUT}/accuracy.csv").decode().splitlines()]
    (row,) = [row for row in rows if row[:3] == ["zero_shot", "gaussian_noise", "5"]]
    assert float(row[3]) == pytest.approx(right, abs=2.5 / len(test.ids))
    stored = container.read(folder / OUT / "predictions.h5", kind="corruption predictions").arrays
    said = (stored["zero_shot/gaussian_noise"] == stored["labels"]).mean()
    assert found["zero_shot"]["corruption"]["gaussian_noise"] == pytest.approx(said, abs=1e-5)
    html = workspace.read("report/corruptions.html").decode()
    assert "they are not CIFAR-10-C" in html
