"""Too few images or classes, rare classes, wrong labels: through every stage that learns or measures."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import binomtest

from clipcifar.evaluation import compare, headline, results
from clipcifar.store import container, heads, splits
from clipcifar.store.embeddings import Split
from clipcifar.store.fields import class_names_attribute
from clipcifar.store.images import read_images, write_images
from clipcifar.store.predictions import read_predictions
from clipcifar.store.splits import TrainVal
from stages import (
    download,
    gda,
    linear_probe,
    mlp_probe,
    prepare,
    projection,
    prompt_sets,
    prompt_weighting,
    rank_prompts,
    report,
    zero_shot,
)
from tests.search.test_outcome import write_search
from tests.support import finished_run, stage_runs
from tests.support.made import NAMES, prototypes
from tests.support.stage_runs import Ended
from tests.support.synthetic import around

Labels = NDArray[np.int64]
STAGES: dict[str, tuple[Callable[..., None], tuple[str, ...], tuple[str, ...]]] = {
    "zero_shot": (
        zero_shot.main,
        ("images", "texts", "splits.h5"),
        ("p.h5", "m.json", "details/m.json", "plots"),
    ),
    "prompt_sets": (
        prompt_sets.main,
        ("images", "texts", "splits.h5"),
        ("p.h5", "prompt_sets.json", "details/prompt_sets.json"),
    ),
    "rank_prompts": (
        rank_prompts.main,
        ("images", "prompts", "texts", "pool.h5", "splits.h5", "prompt_weighting/head.h5"),
        ("r.json", "p.h5", "m.json", "details/m.json", "plots"),
    ),
    "prompt_weighting": (
        prompt_weighting.main,
        ("images", "prompts", "texts", "pool.h5", "splits.h5"),
        ("head.h5", "p.h5", "m.json", "details/m.json", "plots"),
    ),
    "gda": (
        gda.main,
        ("images", "texts", "splits.h5"),
        ("head.h5", "p.h5", "m.json", "details/m.json", "plots"),
    ),
    "linear_probe": (
        linear_probe.main,
        ("images", "splits.h5"),
        ("head.h5", "p.h5", "m.json", "details/m.json", "plots"),
    ),
    "mlp_probe": (
        mlp_probe.main,
        ("images", "splits.h5"),
        ("head.h5", "p.h5", "m.json", "details/m.json", "plots"),
    ),
    "projection": (
        projection.main,
        ("images", "texts", "splits.h5"),
        ("head.h5", "p.h5", "m.json", "details/m.json", "plots"),
    ),
}
METHODS = [name for name in STAGES if name != "prompt_sets"]
LEARNING_NOTHING = ("zero_shot", "prompt_sets")
_QUICK = {
    "hidden": 16,
    "max_epochs": 8,
    "patience": 3,
    "seeds": [0, 1],
    "batch_size": 64,
    "learning_rate": 0.01,
}


def write_run(
    folder: Path,
    train: Labels,
    test: Labels,
    *,
    said: tuple[Labels, Labels] | None = None,
    val_fraction: float = 0.25,
) -> Path:
    """All that the methods read: images near their class's prototype, labelled as `said` says."""
    write_search(folder)
    attributes = read_images(folder / "images").attributes
    parts = [
        Split(
            around(prototypes(), truth, noise=0.9, seed=seed),
            label,
            [f"{name}/{i:05}" for i in range(len(truth))],
        )
        for seed, (name, truth, label) in enumerate(
            zip(("train", "test"), (train, test), said or (train, test), strict=True)
        )
    ]
    write_images(folder / "images", train=parts[0], test=parts[1], attributes=attributes)
    rows = splits.stratified_split(
        parts[0].labels, parts[0].ids, class_names=NAMES, val_fraction=val_fraction, seed=0
    )
    splits.write_splits(folder / "splits.h5", parts[0].ids, rows, attributes={"dataset_digest": "1"})
    _write_params(folder)
    return folder


def _write_params(folder: Path, **changes: Any) -> None:
    changes = {
        "model": {"name": "tiny", "pretrained": None},
        "linear_probe": {"c_grid": [0.1, 1, 10]},
        "mlp_probe": _QUICK,
        "projection": _QUICK,
        **changes,
    }
    stage_runs.write_params(folder, changes)


def run(stage: str, folder: Path) -> Ended:
    main, inputs, outputs = STAGES[stage]
    if stage == "rank_prompts":  # it takes weights, and refuses for itself what that stage refuses
        run("prompt_weighting", folder)
    return stage_runs.run(main, *inputs, *(f"{stage}/{name}" for name in outputs), folder=folder)


def metrics_of(stage: str, folder: Path) -> dict[str, Any]:
    ended = run(stage, folder)
    assert ended.code == 0, ended.error
    return headline.read(folder / stage, "m")


def _balanced(n: int) -> Labels:
    return np.arange(n, dtype=np.int64) % 3


# --- too little data -----------------------------------------------------------------------------


def _photos(root: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(root / name / f"{i}.png")
    return root


@pytest.mark.parametrize(
    ("counts", "changes", "expected"),
    [
        ({"train/a": 3, "train/b": 3}, {}, ["no images in", "where: ", "/test"]),
        ({"val/a": 3, "val/b": 3, "test/a": 3, "test/b": 3}, {}, ["no images in", "/train"]),
        ({"train/a": 3, "train/b": 0, "test/a": 1, "test/b": 1}, {}, ["holds no image", "train/b: empty"]),
        ({"train/a": 3, "test/a": 1, "test/b": 1}, {}, ["train and test", "only in test: 'b'"]),
        ({"train/a": 3, "train/b": 3, "test/a": 1}, {}, ["train and test", "only in train: 'b'"]),
        (
            {"train/a": 3, "train/b": 3, "val/a": 1, "test/a": 1, "test/b": 1},
            {},
            ["train and val have different classes: only in train: 'b'"],
        ),
        ({"train/a": 3, "test/a": 1}, {}, ["a is the only class", "where: split test"]),
        (
            {"train/a": 3, "train/b": 1, "test/a": 1, "test/b": 1},
            {},
            ["1 class has too few images for train and val: 'b' (1)", "where: split train", "add images"],
        ),
        (
            {"train/a": 3, "train/b": 3, "test/a": 1, "test/b": 1},
            {"dataset": {"max_per_class": 1}},
            ["too few images for train and val: 'a' (1), 'b' (1)", "raise dataset.max_per_class"],
        ),
        ({"a": 2, "b": 9}, {}, ["too few images for train, val and test: 'a' (2)", "add images"]),
    ],
)
def test_prepare_refuses_too_little_data_and_names_split_and_class(
    counts: dict[str, int], changes: dict[str, Any], expected: list[str], tmp_path: Path
) -> None:
    root = _photos(tmp_path / "photos", counts)
    settings = {
        "dataset": {"name": "imagefolder", "path": str(root), **changes.pop("dataset", {})},
        **changes,
    }
    stage_runs.write_params(tmp_path, settings)
    assert stage_runs.run(download.main, "raw", folder=tmp_path).code == 0
    ended = stage_runs.run(prepare.main, "raw", "d.h5", "s.h5", "c.json", folder=tmp_path)
    assert ended.code == 3, ended
    for part in expected:
        assert part in ended.error, ended.error
    assert "fix:" in ended.error
    assert not (tmp_path / "s.h5").exists()


def _one_class(folder: Path) -> None:
    name = class_names_attribute(["cat"])
    for path, kind in [
        (folder / "images/manifest.h5", "image embeddings"),
        *((path, "text embeddings") for path in [*(folder / "texts").iterdir(), folder / "pool.h5"]),
    ]:
        file = container.read(path, kind=kind)
        arrays = {
            key: np.zeros_like(array) if key.endswith(("labels", "class_index")) else array
            for key, array in file.arrays.items()
        }
        own = {key: value for key, value in file.attributes.items() if key not in container._DIGESTS}
        container.write(path, kind=kind, arrays=arrays, attributes={**own, "class_names": name})


def _split_again(folder: Path, choose: Callable[[Labels], NDArray[np.bool_]]) -> None:
    """Another choice of val, made from the train labels."""
    train = read_images(folder / "images").train
    val = choose(train.labels)
    rows = TrainVal(np.flatnonzero(~val), np.flatnonzero(val))
    splits.write_splits(folder / "splits.h5", train.ids, rows, attributes={"dataset_digest": "1"})


def _no_test(folder: Path) -> None:
    images = read_images(folder / "images")
    none = Split(images.test.embeddings[:0], images.test.labels[:0], [])
    write_images(folder / "images", train=images.train, test=none, attributes=images.attributes)


def _test_alone(folder: Path) -> None:
    """As `prepare` leaves a folder that holds test/ and no more."""
    images = read_images(folder / "images")
    none = Split(images.train.embeddings[:0], images.train.labels[:0], [])
    write_images(folder / "images", train=none, test=images.test, attributes=images.attributes)
    rows = TrainVal(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    splits.write_splits(folder / "splits.h5", [], rows, attributes={"dataset_digest": "1"})


TOO_LITTLE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "one class": (_one_class, "cat is the only class", "split test"),
    "nothing to report on": (_no_test, "there are no test images", "split test"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_every_method_refuses_too_little_data_and_names_split_and_class(stage: str, tmp_path: Path) -> None:
    """Each fault in files whose digests are right, as other software could have written them."""
    for name, (spoil, what, where) in TOO_LITTLE.items():
        folder = write_run(tmp_path / name, _balanced(60), _balanced(30))
        spoil(folder)
        ended = run(stage, folder)
        assert ended.code == 3, (name, ended)
        assert what in ended.error, (name, ended.error)
        assert f"where: {where}" in ended.error, (name, ended.error)
        assert not (folder / stage).exists(), name


NOTHING_TO_LEARN_FROM: dict[str, tuple[Callable[[Path], object], str]] = {
    "a class missing from train": (
        lambda folder: _split_again(folder, lambda labels: labels == 1),
        "no train images of dog\n",
    ),
    "val alone": (
        lambda folder: _split_again(folder, lambda labels: labels >= 0),
        "{stage} learns from train images, and this dataset has none: add train/<class>/",
    ),
    "nothing to choose by": (
        lambda folder: _split_again(folder, lambda labels: labels < 0),
        "{stage} chooses by val images, and this dataset has none: add val/<class>/",
    ),
    "test alone": (
        _test_alone,
        "{stage} learns from train images, and this dataset has none: add train/<class>/",
    ),
}


@pytest.mark.parametrize("stage", STAGES)
def test_what_learns_says_in_a_line_what_it_lacks_and_what_does_not_learn_gives_the_same_numbers(
    stage: str, tmp_path: Path
) -> None:
    whole = write_run(tmp_path / "whole", _balanced(60), _balanced(30))
    assert run(stage, whole).code == 0
    for name, (spoil, what) in NOTHING_TO_LEARN_FROM.items():
        folder = write_run(tmp_path / name, _balanced(60), _balanced(30))
        spoil(folder)
        ended = run(stage, folder)
        if stage not in LEARNING_NOTHING:
            assert ended.code == 3, (name, ended)
            assert ended.error.startswith(f"error: {what.format(stage=stage)}"), (name, ended.error)
            assert (ended.error.count("\n") == 1) == ("of dog" not in what), (name, ended.error)
            assert not (folder / stage).exists(), name
            continue
        assert ended.code == 0, (name, ended)
        headlines = {path.name for path in (whole / stage).glob("*.json")}
        assert {file: (folder / stage / file).read_bytes() for file in headlines} == {
            file: (whole / stage / file).read_bytes() for file in headlines
        }, name
        (details,) = (path.read_text() for path in (folder / stage / "details").iterdir())
        assert ("calibrated" in details) == (name in ("a class missing from train", "val alone")), name


# --- rare classes and wrong labels ---------------------------------------------------------------


def test_999_to_1_runs_and_the_balanced_accuracy_and_the_images_of_every_class_are_shown(
    tmp_path: Path,
) -> None:
    train = np.repeat([0, 1, 2], [1998, 2, 2]).astype(np.int64)
    test = np.repeat([0, 1, 2], [999, 1, 1]).astype(np.int64)
    folder = write_run(tmp_path, train, test)
    for method in METHODS:
        found = metrics_of(method, folder)
        recalls = list(found["per_class"].values())
        assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls), abs=1e-5)
        assert found["n"] == 1001
        rows = list(csv.DictReader((folder / method / "plots/per_class.csv").read_text().splitlines()))
        assert [(row["class"], row["n"]) for row in rows] == [("cat", "999"), ("dog", "1"), ("eel", "1")]
        # One image says next to nothing, and its interval says so.
        assert float(rows[1]["high"]) - float(rows[1]["low"]) > 0.7
    # A method that takes everything for the frequent class looks good by one number only.
    scores = np.tile(np.array([[1, 0, 0]], np.float32), (1001, 1))
    blind = results.write(
        "mlp_probe",
        scores,
        read_images(folder / "images"),
        temperature=1.0,
        predictions_path=folder / "p.h5",
        metrics_path=folder / "m.json",
        details_path=folder / "details/m.json",
        plots_folder=folder / "plots",
    )
    assert blind["accuracy"] > 0.99
    assert blind["balanced_accuracy"] == round(1 / 3, 5)


def test_the_report_shows_the_images_of_every_class_and_the_balanced_accuracy(tmp_path: Path) -> None:
    finished_run.write(tmp_path, n=61)
    stage_runs.write_params(tmp_path, {"prompts": {"active": "photo"}})
    ended = stage_runs.run(
        report.main,
        *(
            "metrics",
            "predictions",
            "ranking.json",
            "raw",
            "dataset.h5",
            "model.json",
            "page.html",
            "methods.md",
        ),
        folder=tmp_path,
    )
    assert ended.code == 0, ended.error
    text = (tmp_path / "methods.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert [row[:2] for row in rows if row[0] in ("class", *finished_run.NAMES)] == [
        ["class", "images"],
        ["cat", "21"],
        ["dog", "20"],
        ["eel", "20"],
    ]
    balanced = json.loads((tmp_path / "metrics/zero_shot.json").read_text())["balanced_accuracy"]
    assert f" {balanced:.4f} " in text
    page = (tmp_path / "page.html").read_text()
    assert f"{balanced:.4f}" in page
    assert "balanced" in page


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[str, Any]]]:
    """The metrics of every method on right labels, on permuted ones, and with 40 % of train's wrong."""
    rng = np.random.default_rng(11)
    train, test = rng.permutation(_balanced(600)), rng.permutation(_balanced(900))
    noisy = np.where(rng.random(600) < 0.4, (train + rng.integers(1, 3, 600)) % 3, train)
    assert 0.37 < (noisy != train).mean() < 0.43
    said = {
        "right": (train, test),
        "permuted": (rng.permutation(train), rng.permutation(test)),
        "noisy": (noisy, test),
    }
    found = {}
    for name, labels in said.items():
        folder = write_run(tmp_path_factory.mktemp(name), train, test, said=labels)
        found[name] = {method: metrics_of(method, folder) for method in METHODS}
        found[name]["predicted"] = {method: read_predictions(folder / method / "p.h5") for method in METHODS}
    return found


def _p_of_chance(found: dict[str, Any]) -> float:
    """How likely that many right answers are, or more, for somebody who guesses among three."""
    return float(binomtest(found["n_correct"], found["n"], 1 / 3, alternative="greater").pvalue)


@pytest.mark.parametrize("method", METHODS)
def test_permuted_labels_are_not_taken_for_signal(method: str, learned: Any) -> None:
    permuted = learned["permuted"][method]
    assert _p_of_chance(permuted) > 0.05 / len(METHODS)
    assert permuted["accuracy_ci95"]["low"] < 1 / 3
    zero, own = (learned["permuted"]["predicted"][name] for name in ("zero_shot", method))
    assert compare.paired(zero.predicted == zero.labels, own.predicted == own.labels).p_value > 0.05 / 4
    # Fitting the temperature on val leaves no confidence that is not there.
    assert permuted["calibrated"]["ece"] < 0.08
    assert permuted["calibrated"]["nll"] < np.log(3) + 0.05
    assert _p_of_chance(learned["right"][method]) < 1e-6  # negative control


@pytest.mark.parametrize("method", METHODS)
def test_forty_percent_of_wrong_train_labels_cost_little_on_right_test_labels(
    method: str, learned: Any
) -> None:
    noisy, right = learned["noisy"][method], learned["right"][method]
    assert noisy["accuracy"] > right["accuracy"] - 0.1
    assert _p_of_chance(noisy) < 1e-6
    assert noisy["balanced_accuracy"] == pytest.approx(noisy["accuracy"], abs=1e-4)  # classes are alike here


# --- a solver that does not arrive ---------------------------------------------------------------


def test_three_iterations_are_recorded_left_out_of_the_choice_and_said_aloud(tmp_path: Path) -> None:
    folder = write_run(tmp_path, _balanced(240), _balanced(90))
    _write_params(folder, linear_probe={"c_grid": [1e-4, 1e4, 1e5], "max_iter": 3})
    ended = run("linear_probe", folder)
    assert ended.code == 0
    assert "not converged in 3 iterations, left out of the choice: C = [10000.0, 100000.0]" in ended.output
    written = headline.read(folder / "linear_probe", "m")
    assert written["converged"]["n"] == 1
    assert written["converged"]["n_not"] == 2
    assert written["selected"]["c"] == 1e-4
    assert heads.read(folder / "linear_probe/head.h5")[1]["c"] == 1e-4
    rows = list(csv.DictReader((folder / "linear_probe/plots/validation.csv").read_text().splitlines()))
    assert [row["converged"] for row in rows] == ["True", "False", "False"]


def test_a_refit_that_does_not_converge_is_recorded_and_said_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path, _balanced(240), _balanced(90))
    real = linear_probe.linear_probe.solve
    monkeypatch.setattr(
        linear_probe.linear_probe,
        "solve",
        lambda *rows, **options: replace(real(*rows, **options), converged=False),
    )
    ended = run("linear_probe", folder)
    assert ended.code == 0
    assert "the refit at C = " in ended.output
    assert " did not converge in " in ended.output
    assert headline.read(folder / "linear_probe", "m")["converged"]["refit"] == 0


def test_three_iterations_that_are_too_few_for_every_c_are_exit_2_with_the_setting(tmp_path: Path) -> None:
    folder = write_run(tmp_path, _balanced(240), _balanced(90))
    _write_params(folder, linear_probe={"c_grid": [1e3, 1e4], "max_iter": 3})
    ended = run("linear_probe", folder)
    assert ended.code == 2
    assert "where: params.yaml: linear_probe" in ended.error
    assert "raise linear_probe.max_iter" in ended.error
    assert not (folder / "linear_probe").exists()
