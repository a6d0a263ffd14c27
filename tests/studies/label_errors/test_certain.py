"""Copies of one image under two classes: certain errors, within a split and across."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipcifar.datasets.twins import Copy, Twins
from clipcifar.store.dataset import read_dataset
from clipcifar.studies.label_errors import certain
from studies.label_errors import stage
from tests.support import study_pages

NAMES = ["cat", "dog", "eel"]
PATHS = ("images", "texts", "heads/linear_probe.h5", "predictions", "dataset.h5", "out", "page.html")


def _run(folder: Path, copies: dict[study_pages.Place, study_pages.Place]) -> dict[str, Any]:
    """The metrics of the study on a run with these copies."""
    study_pages.write_run(folder, class_names=NAMES, copies=copies)
    stage.main(study_pages.SETTINGS, folder, *(folder / name for name in PATHS))
    metrics: dict[str, Any] = json.loads((folder / "out" / "metrics.json").read_text())
    return metrics


def test_contradicting_labels_are_counted_named_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study_pages.write_run(tmp_path / "plain", class_names=NAMES)  # for its labels
    dataset = read_dataset(tmp_path / "plain" / "dataset.h5")
    train, test = dataset.train.labels, dataset.test.labels
    other, third = (int(np.flatnonzero(train == (train[0] + i) % 3)[0]) for i in (1, 2))
    alike = int(np.flatnonzero(train == train[0])[1])
    first = int(np.flatnonzero(test != test[0])[0])
    across = int(np.flatnonzero(train != test[1])[-1])
    metrics = _run(
        tmp_path,
        {
            (0, other): (0, 0),  # within train: three classes, of which two labels must be wrong
            (0, third): (0, 0),
            (0, alike): (0, 0),
            (1, first): (1, 0),  # within test
            (0, across): (1, 1),  # between the two
        },
    )
    assert metrics["two_classes"] == {"n": 3, "n_wrong": 2 + 1 + 1, "n_train": 5, "n_test": 3}
    rows = list(csv.DictReader((tmp_path / "out" / "two_classes.csv").read_text().splitlines()))
    ids = dataset.train.ids
    assert {(row["id"], row["label"]) for row in rows if row["image"] == "1"} == {
        (ids[row], NAMES[train[row]]) for row in (0, other, third, alike)
    }
    assert {row["split"] for row in rows if row["image"] == "2"} == {"train", "test"}
    said = "Certain: 3 images lie, byte for byte, under two classes, so that at least 4 labels must be wrong."
    assert said in capsys.readouterr().out.splitlines()
    page = (tmp_path / "page.html").read_text()
    assert page.count(said) == 2
    section = page[page.index('<h2 id="certain">') : page.index('<h2 id="train">')]
    assert section.count("<img ") == 3 + 2 + 2  # a picture for each class of an image
    assert f'alt="train image {ids[0]}, labelled {NAMES[train[0]]}"' in section


def test_without_contradictions_nothing_is_certain(tmp_path: Path) -> None:
    study_pages.write_run(tmp_path / "plain", class_names=NAMES)
    train = read_dataset(tmp_path / "plain" / "dataset.h5").train.labels
    alike = int(np.flatnonzero(train == train[0])[1])
    metrics = _run(tmp_path, {(0, alike): (0, 0)})  # twice, under one class
    assert metrics["two_classes"] == {"n": 0, "n_wrong": 0, "n_train": 0, "n_test": 0}
    assert not (tmp_path / "out" / "two_classes.csv").exists()
    page = (tmp_path / "page.html").read_text()
    assert "Certain: nothing." in page
    assert 'id="certain"' not in page


def test_what_is_certain_is_said_in_numbers() -> None:
    copies = Twins([[Copy("train", "a", 0), Copy("train", "b", 1)]])
    assert certain.sentence(copies) == (
        "Certain: 1 image lies, byte for byte, under two classes, so that at least 1 label must be wrong."
    )
