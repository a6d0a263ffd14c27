"""The page of every study by its own code, from small made-up data: a few seconds for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from clipcifar.core.files import canonical_json, write_atomically
from clipcifar.evaluation import plots
from clipcifar.methods import classifiers, zero_shot
from clipcifar.methods.linear import of_zero_shot
from clipcifar.methods.linear_probe import LinearProbeParams
from clipcifar.store import heads
from clipcifar.store.dataset import PreparedSplit, write_dataset
from clipcifar.store.embeddings import ImageEmbeddings, read_texts
from clipcifar.store.images import read_images
from clipcifar.store.inputs import train_val_of
from clipcifar.store.predictions import inherited, read_predictions
from clipcifar.studies.corruptions.judge import findings as of_corruptions, page as corruptions_page
from clipcifar.studies.corruptions.store import Corrupted
from clipcifar.studies.finetune.scores import FinetuneScores
from clipcifar.studies.models import findings as of_models, page as models_page
from clipcifar.studies.models.params import OWN
from clipcifar.studies.models.study import evaluate
from stages import gda, zero_shot as zero_shot_stage
from studies.ensemble import stage
from studies.few_shot import stage as few_shot
from studies.finetune import report as finetune_report
from studies.label_errors import stage as label_errors
from studies.near_duplicates import stage as near_duplicates
from tests.studies.ensemble import test_mix
from tests.studies.few_shot import test_methods
from tests.support import finetuning
from tests.support.made import write_embeddings
from tests.support.synthetic import unit

STUDIES = ("few_shot", "ensemble", "models", "label_errors", "near_duplicates", "corruptions", "finetune")
SIDE = 8
SETTINGS: dict[str, Any] = {
    **test_mix.SETTINGS,
    "gda": {"alphas": [0, 0.3, 1]},
    "few_shot": test_methods.SMALL,
    "label_errors": {"folds": 3, "seed": 0, "planted": 0.02, "shown": 6},
    "near_duplicates": {"threshold": 0.6, "shown": 6},
    "dataset": {
        "name": "digits",
        "path": "data/none",
        "max_per_class": None,
        "seed": 0,
        "on_bad_image": "error",
    },
}


def write(folder: Path, *, class_names: list[str]) -> None:
    """`<study>.html` in `folder` for every study; three class names."""
    write_run(folder, class_names=class_names)
    images = read_images(folder / "images")
    given = {"images": folder / "images", **{name: folder / f"{name}.h5" for name in ("splits", "dataset")}}
    texts, heads_folder, predictions = (folder / name for name in ("texts", "heads", "predictions"))
    out = {study: (folder / study, folder / f"{study}.html") for study in STUDIES}
    probe = heads_folder / "linear_probe.h5"
    weighted = folder / "weighted.h5"
    test_methods.write_weighted(folder, weighted)
    few_shot.main(SETTINGS, given["images"], texts, weighted, given["splits"], *out["few_shot"])
    stage.main(SETTINGS, given["images"], texts, given["splits"], heads_folder, *out["ensemble"])
    label_errors.main(
        SETTINGS, folder, given["images"], texts, probe, predictions, given["dataset"], *out["label_errors"]
    )
    near_duplicates.main(
        SETTINGS, folder, given["images"], predictions, given["dataset"], *out["near_duplicates"]
    )
    write_atomically(out["models"][1], _models(folder, images).encode())
    write_atomically(out["corruptions"][1], _corruptions(folder, images).encode())
    _finetuned(folder, images, out["finetune"][0])
    finetune_report.main(SETTINGS, given["images"], predictions / "mlp_probe.h5", *out["finetune"])


Place = tuple[int, int]  # of an image: 0 for train or 1 for test, and its row


def write_run(folder: Path, *, class_names: list[str], copies: Mapping[Place, Place] | None = None) -> None:
    """What the default pipeline leaves: dataset, embeddings, splits, heads, predictions of all methods.

    The pixels of an image in `copies` are those of the other one; embeddings and labels are not.
    """
    write_embeddings(folder, class_names=class_names)  # for its labels and ids
    images, rng = read_images(folder / "images"), np.random.default_rng(0)
    parts = [
        PreparedSplit(
            rng.integers(0, 255, (len(split.ids), SIDE, SIDE, 3), dtype=np.uint8), split.labels, split.ids
        )
        for split in (images.train, images.test)
    ]
    for (part, row), (other, source) in (copies or {}).items():
        parts[part].content[row] = parts[other].content[source]
    digest = write_dataset(
        folder / "dataset.h5", *parts, class_names=class_names, name="made", max_per_class=0
    )
    write_embeddings(folder, class_names=class_names, dataset_digest=digest)
    test_mix.train_heads(folder)
    gda.main(
        SETTINGS,
        *(folder / name for name in ("images", "texts", "splits.h5", "heads/gda.h5")),
        *(folder / name for name in ("predictions/gda.h5", "gda.json", "details/gda.json", "plots/gda")),
    )
    images = read_images(folder / "images")
    other = zero_shot.classifier(read_texts(folder / "texts" / "other.h5"))
    heads.write(
        folder / "heads" / "prompt_weighting.h5",
        "prompt_weighting",
        of_zero_shot(other, logit_scale=images.logit_scale)._asdict(),
        inherited(images.attributes),
    )
    for method, active in (("zero_shot", "photo"), ("rank_prompts", "other"), ("prompt_weighting", "other")):
        zero_shot_stage.main(
            {**SETTINGS, "prompts": {"active": active, "max_sentences": 50_000, "sets": {}}},
            *(folder / name for name in ("images", "texts", "splits.h5")),
            folder / "predictions" / f"{method}.h5",
            folder / f"{method}.json",
            folder / "details" / f"{method}.json",
            folder / "plots" / method,
        )


def _models(folder: Path, images: ImageEmbeddings) -> str:
    rows = train_val_of(images, folder / "splits.h5", learner="models")
    outcomes, rng = {}, np.random.default_rng(0)
    for label, shift in ((OWN, 0.0), ("a-backbone-with-a-long-label-1", 0.2), ("worse", 2.0)):
        weights = zero_shot.classifier(read_texts(folder / "texts" / "photo.h5"))
        weights = unit(weights + shift * rng.standard_normal(weights.shape) / 5)
        outcomes[label] = evaluate(images, weights, rows, probe=LinearProbeParams((0.1, 1.0), 500))
    size = dict.fromkeys(
        ("n_parameters", "n_image_parameters", "n_bytes", "input_height", "input_width", "dimension"), 10**8
    )
    found = of_models.measure(
        outcomes, dict.fromkeys(outcomes, size), images.test.labels, class_names=images.class_names
    )
    speeds = dict(zip(outcomes, (12.5, 1234.0, 3.0), strict=True))
    return models_page.render(
        found,
        {"device": "cpu", "precision": "fp32", "batch_size": 16, "images_per_s": speeds},
        descriptions=dict.fromkeys(outcomes, "hf-hub:an-organisation/" + "a-model-of-many-letters" * 3),
        active="photo",
        attributes=images.attributes,
    )


def _corruptions(folder: Path, images: ImageEmbeddings) -> str:
    severities, rng, test = [1, 3, 5], np.random.default_rng(0), images.test

    def corrupted(name: str, strength: float) -> Corrupted:
        noise = rng.standard_normal((3, *test.embeddings.shape)) * strength
        rows = np.stack([unit(test.embeddings + s * part) for s, part in zip(severities, noise, strict=True)])
        examples = rng.integers(0, 255, (3, SIDE, SIDE, 3), dtype=np.uint8)
        about = {"corruption": name, "corruption_source": "generated", "corruption_ids": "ab"}
        attributes = {**images.attributes, **about, "corruption_severities": "[1,3,5]"}
        return Corrupted(name, rows, severities, test.ids, examples, attributes)

    photo, other = (
        of_corruptions.text_classifier(
            zero_shot.classifier(read_texts(folder / "texts" / f"{name}.h5")), images
        )
        for name in ("photo", "other")
    )
    found = {
        "zero_shot": photo,
        "rank_prompts": other,
        **classifiers.heads_in(folder / "heads", images),
    }
    outcome = of_corruptions.measure(
        (corrupted(name, s) for name, s in (("gaussian_noise", 0.02), ("elastic_transform", 0.1))),
        images,
        found,
        {"gaussian_noise": (6, other), "elastic_transform": (3, photo)},
    )
    return corruptions_page.render(outcome, images, active="photo")


def _finetuned(folder: Path, images: ImageEmbeddings, out: Path) -> None:
    """What the stage `finetune` leaves for its page: a tower that is a little better than the probe."""
    frozen = read_predictions(folder / "predictions" / "mlp_probe.h5")
    rng, labels, val = np.random.default_rng(0), images.test.labels, images.train.labels[:40]
    better = np.where(rng.random(len(labels)) < 0.3, labels, frozen.scores.argmax(axis=1))
    eye = np.eye(3, dtype=np.float32)
    attributes = {
        **inherited(images.attributes),
        "epoch": 2,
        "epochs": 3,
        "n_trained": 137_738,
        "n_parameters": 1_137_738,
        "params": canonical_json(finetuning.FINETUNE),
    }
    tuned = FinetuneScores(2 * eye[val], images.train.ids[:40], 2 * eye[better], frozen.ids, attributes)
    replace(tuned, val=tuned.val + 1).write(out / "scores.h5")
    curve = [
        {"epoch": epoch, "train_loss": 0.9 - 0.1 * epoch, "val_loss": 0.8 / (1 + epoch), "val_accuracy": 0.7}
        for epoch in range(4)
    ]
    plots.write_csv(out / "training.csv", curve)
    layers = [{"layer": f"block {i}", "parameters": 49_984, "share_of_rate": 0.8**i} for i in range(3)]
    plots.write_csv(out / "layers.csv", layers)
