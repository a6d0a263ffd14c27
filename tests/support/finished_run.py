"""A finished run of made-up scores: everything that the report reads, on disk, in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clipcifar.core import files
from clipcifar.core.files import Attribute
from clipcifar.evaluation import results
from clipcifar.evaluation.names import METHODS
from clipcifar.report import facts
from clipcifar.report.facts import Facts
from clipcifar.store.dataset import PreparedSplit, write_dataset
from clipcifar.store.embeddings import ImageEmbeddings, Split
from clipcifar.store.fields import class_names_attribute
from clipcifar.store.model import ModelDescription
from clipcifar.store.predictions import write_set_predictions

N = 60
NAMES = ["cat", "dog", "eel"]
SETS = ["photo", "scenes", "wide"]
KEPT = {  # of a ranking, where the search keeps the first set
    "kind": "active",
    "chosen": "the active set photo",
    "verdict": "The search keeps the active set photo: val prefers no other prompts.",
    "set": None,
    "gain": {"train": 0.0, "val": 0.0, "test": 0.0, "optimism": 0.0},
}
TEMPLATES = ["a photo of a {classname}.", "a {classname} at sea."]
MODEL = ModelDescription(
    model="ViT-B-32",
    pretrained="tag",
    source="a file",
    revision="",
    weights_sha256="ab" * 32,
    config_sha256="cd" * 32,
    preprocess={},
    context_length=77,
    logit_scale=100.0,
    libraries=[],
)


def write(
    folder: Path,
    *,
    class_names: list[str] = NAMES,
    sets: list[str] = SETS,
    templates: list[str] = TEMPLATES,
    n: int = N,
    dataset: str = "toy",
) -> None:
    """All files of a run with `n` test images, spread evenly over the classes; the first set is active."""
    rng, num_classes = np.random.default_rng(0), len(class_names)
    labels = np.arange(n) % num_classes
    ids = [f"test/{i:05d}" for i in range(n)]
    pixels = rng.integers(0, 255, (n, 8, 8, 3), dtype=np.uint8)
    split = PreparedSplit(pixels, labels, ids)
    digest = write_dataset(
        folder / "dataset.h5", split, split, class_names=class_names, name=dataset, max_per_class=0
    )
    attributes: dict[str, Attribute] = {
        "model": MODEL.model,
        "pretrained": MODEL.pretrained,
        "weights_sha256": MODEL.weights_sha256,
        "dataset": dataset,
        "dataset_digest": digest,
        "max_per_class": 0,
        "class_names": class_names_attribute(class_names),
        "fingerprint": "ef" * 32,
        "version_numpy": "1.2.3",
        "device": "cpu",
        "precision": "fp32",
    }
    test = Split(np.tile(np.eye(1, 4, dtype=np.float32), (n, 1)), labels, ids)
    images = ImageEmbeddings(test, test, attributes)

    def scores() -> np.ndarray[Any, np.dtype[np.float32]]:
        return (rng.normal(size=(n, num_classes)) + 1.5 * np.eye(num_classes)[labels]).astype(np.float32)

    for method in METHODS:
        seeds = {"n": 3, "accuracy_mean": 0.5, "accuracy_std": 0.01}
        results.write(
            method,
            scores(),
            images,
            temperature=1.5,
            predictions_path=folder / "predictions" / f"{method}.h5",
            metrics_path=folder / "metrics" / f"{method}.json",
            details_path=folder / "metrics" / "details" / f"{method}.json",
            plots_folder=folder / "plots" / method,
            extra_metrics={"seeds": seeds} if method == "mlp_probe" else {},
        )
    of_set = {"accuracy": 0.5, "accuracy_ci95": {"low": 0.4, "high": 0.6}, "balanced_accuracy": 0.5}
    results.write_sets(
        folder / "metrics" / "prompt_sets.json",
        folder / "metrics" / "details" / "prompt_sets.json",
        {name: {"n_sentences": 3, "train": {"accuracy": 0.5}, "test": of_set} for name in sets},
    )
    write_set_predictions(
        folder / "predictions" / "prompt_sets.h5", {name: scores() for name in sets}, images
    )
    row = {"sets": [sets[0]], "accuracy": 0.5, "difference": 0.01, "p_holm": 0.4}
    bar = {"set": sets[0], "accuracy": 0.5, "points": 1.0, "low": -0.5, "high": 2.5}
    ranking = {
        "active": sets[0],
        "kind": "ensemble",
        "by": "accuracy",
        "shown": {"val": False, "test": False},
        "chosen": "the ensemble of 2 templates",
        "verdict": f"no difference shown between the ensemble of 2 templates and {sets[0]}: +0.5 points.",
        "n": {"train": 40, "test": n},
        "gain": {"train": 0.02, "val": 0.01, "test": 0.005, "optimism": 0.015},
        "val_accuracy": {"active": 0.51, "average": 0.5, "weighted": 0.505, "ensemble": 0.52},
        "set": {"template_mode": "shared", "templates": templates},
        "best": [{"template": template, **bar} for template in templates],
        "candidates": [{"template": template, **row} for template in templates],
    }
    files.write_json(folder / "ranking.json", ranking)
    MODEL.write(folder / "model.json")


def read(folder: Path, *, active: str = SETS[0]) -> Facts:
    """The facts as the stage reads them."""
    return facts.read(
        folder / "metrics",
        folder / "predictions",
        folder / "ranking.json",
        folder / "dataset.h5",
        folder / "model.json",
        active=active,
    )
