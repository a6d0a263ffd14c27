"""What is promised of every method: test labels choose nothing, equal runs are equal, metrics recompute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipcifar.evaluation import headline, metrics
from clipcifar.store import heads
from clipcifar.store.predictions import read_predictions
from stages import gda, linear_probe, mlp_probe, projection, prompt_sets, prompt_weighting, zero_shot
from tests.search.test_outcome import write_search as write_embeddings
from tests.support.made import NAMES

TRAINING = {
    "hidden": 8,
    "dropout": 0.1,
    "learning_rate": 0.01,
    "weight_decay": 0.0,
    "batch_size": 64,
    "max_epochs": 4,
    "patience": 2,
    "seeds": [0, 1, 2],
    "device": "cpu",
}
SETTINGS: dict[str, Any] = {
    "model": {"name": "tiny", "pretrained": None, "path": "data/none", "seed": 0, "allow_pickle": False},
    "prompts": {"active": "photo", "max_sentences": 50_000, "sets": {}},
    "gda": {"alphas": [0, 0.1, 1, 10]},
    "linear_probe": {"c_grid": [0.1, 1, 10, 100], "max_iter": 500},
    "mlp_probe": TRAINING,
    "projection": TRAINING,
}
METHODS = ("zero_shot", "prompt_weighting", "gda", "linear_probe", "mlp_probe", "projection")


def _run_all(folder: Path, settings: dict[str, Any] | None = None) -> None:
    settings = settings or SETTINGS
    images, texts, split = folder / "images", folder / "texts", folder / "splits.h5"

    def numbers(name: str) -> tuple[Path, Path]:
        return folder / f"{name}.json", folder / "details" / f"{name}.json"

    def outputs(method: str) -> tuple[Path, ...]:
        return folder / f"{method}.pred.h5", *numbers(method), folder / "plots" / method

    zero_shot.main(settings, images, texts, split, *outputs("zero_shot"))
    prompt_sets.main(settings, images, texts, split, folder / "sets.h5", *numbers("prompt_sets"))
    weighted = folder / "prompt_weighting.head.h5"
    prompt_weighting.main(
        settings,
        images,
        folder / "prompts",
        texts,
        folder / "pool.h5",
        split,
        weighted,
        *outputs("prompt_weighting"),
    )
    gda.main(settings, images, texts, split, folder / "gda.head.h5", *outputs("gda"))
    linear_probe.main(settings, images, split, folder / "linear_probe.head.h5", *outputs("linear_probe"))
    mlp_probe.main(settings, images, split, folder / "mlp_probe.head.h5", *outputs("mlp_probe"))
    projection.main(settings, images, texts, split, folder / "projection.head.h5", *outputs("projection"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    write_embeddings(folder)
    _run_all(folder)
    return folder


def _metrics(folder: Path, method: str) -> dict[str, Any]:
    return headline.read(folder, method)


def test_test_labels_choose_nothing(finished: Path, tmp_path: Path) -> None:
    write_embeddings(tmp_path, permute_test_labels=True)
    _run_all(tmp_path)
    for method in METHODS[1:]:
        assert _metrics(tmp_path, method)["selected"] == _metrics(finished, method)["selected"]
        temperatures = {_metrics(f, method)["calibrated"]["temperature"] for f in (tmp_path, finished)}
        assert len(temperatures) == 1
        assert _metrics(tmp_path, method)["accuracy"] < 0.45 < _metrics(finished, method)["accuracy"]
        for name, array in heads.read(finished / f"{method}.head.h5")[0].items():
            np.testing.assert_array_equal(array, heads.read(tmp_path / f"{method}.head.h5")[0][name])
    curves = ("prompt_weighting/weights.csv", "gda/validation.csv", "linear_probe/validation.csv")
    for curve in (*curves, "mlp_probe/training.csv", "projection/training.csv"):
        assert (tmp_path / "plots" / curve).read_bytes() == (finished / "plots" / curve).read_bytes()
    for name, entry in _metrics(finished, "prompt_sets").items():
        assert _metrics(tmp_path, "prompt_sets")[name]["train"] == entry["train"]
        cooled = _metrics(tmp_path, "prompt_sets")[name]["test"]["calibrated"]["temperature"]
        assert cooled == entry["test"]["calibrated"]["temperature"]
    chosen = [_metrics(folder, "zero_shot")["calibrated"]["temperature"] for folder in (finished, tmp_path)]
    assert chosen[0] == chosen[1]


def test_two_runs_give_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    write_embeddings(tmp_path)
    _run_all(tmp_path)
    files = [path.relative_to(finished) for path in finished.rglob("*") if path.is_file()]
    assert len(files) > 20
    for file in files:
        assert (finished / file).read_bytes() == (tmp_path / file).read_bytes(), file


@pytest.mark.parametrize("method", METHODS)
def test_metrics_recompute_from_the_stored_predictions(finished: Path, method: str) -> None:
    predictions = read_predictions(finished / f"{method}.pred.h5")
    scores, labels = predictions.scores, predictions.labels
    temperature = float(predictions.attributes["temperature"])
    again = metrics.summarise(scores, labels, class_names=NAMES)
    again["calibrated"] = metrics.calibrated(scores, labels, temperature=temperature)
    again = metrics.rounded(again)
    stored = _metrics(finished, method)
    assert {key: stored[key] for key in again} == again


def _leaves(value: Any) -> list[Any]:
    return [leaf for item in value.values() for leaf in _leaves(item)] if isinstance(value, dict) else [value]


def test_metrics_are_nested_numbers_with_the_same_keys_for_every_method(finished: Path) -> None:
    common = set(_metrics(finished, "zero_shot"))
    assert {
        "accuracy",
        "accuracy_ci95",
        "balanced_accuracy",
        "ece",
        "nll",
        "calibrated",
        "n",
        "n_correct",
        "per_class",
    } <= common
    for method in METHODS:
        found = _metrics(finished, method)
        assert common <= set(found)
        assert all(type(leaf) in (int, float) and np.isfinite(leaf) for leaf in _leaves(found))
        assert "photo" not in json.dumps(found)


def test_seeds_are_reported_beside_one_models_accuracy(finished: Path) -> None:
    for method in ("mlp_probe", "projection"):
        found = _metrics(finished, method)
        assert found["seeds"]["n"] == 3
        assert found["n_correct"] / found["n"] == pytest.approx(found["accuracy"], abs=1e-5)
