"""The few-shot study at the size of CIFAR-10: `python few_shot.py` prints its row of the table."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import CLASSES, ROOT, WORK, call, clip_like, peak_mb, row, timed, unit_rows

from clipcifar.core import params
from clipcifar.methods.linear import of_zero_shot
from clipcifar.store import heads, splits
from clipcifar.store.embeddings import Split, write_texts
from clipcifar.store.fields import class_names_attribute
from clipcifar.store.images import read_images, write_images
from clipcifar.store.predictions import inherited

FOLDER = WORK / "few_shot"
TRAIN, TEST = slice(0, 50_000), slice(50_000, 60_000)  # rows; a tenth of train is val
ATTRIBUTES: dict[str, Any] = {
    "model": "ViT-B-32",
    "pretrained": "",
    "weights_sha256": "",
    "preprocess": "{}",
    "logit_scale": 100.0,
    "class_names": class_names_attribute(CLASSES),
    "dataset": "made",
    "dataset_digest": "made",
    "max_per_class": 0,
}


def write_inputs() -> None:
    """Embeddings, a prompt set near the class means, and the split."""
    rows, labels = clip_like(60_000)
    ids = [f"{i:05d}" for i in range(60_000)]
    train, test = (Split(rows[part], labels[part], ids[part]) for part in (TRAIN, TEST))
    means = unit_rows([train.embeddings[train.labels == label].mean(axis=0) for label in range(len(CLASSES))])
    noise = unit_rows(np.random.default_rng(2).standard_normal(means.shape))
    write_images(FOLDER / "images", train=train, test=test, attributes=ATTRIBUTES)
    text = unit_rows(means + 0.1 * noise)
    images = read_images(FOLDER / "images")
    weighted = of_zero_shot(text, logit_scale=images.logit_scale)
    heads.write(FOLDER / "weighted.h5", "prompt_weighting", weighted.arrays, inherited(images.attributes))
    write_texts(
        FOLDER / "texts" / "photo.h5",
        embeddings=text,
        class_index=np.arange(len(CLASSES)),
        sentences=CLASSES,
        attributes=ATTRIBUTES,
    )
    split = splits.stratified_split(train.labels, train.ids, class_names=CLASSES, val_fraction=0.1, seed=0)
    splits.write_splits(FOLDER / "splits.h5", train.ids, split, attributes={"dataset_digest": "made"})


def stage() -> dict[str, Any]:
    """The stage with the settings of params.yaml, from its files to its page."""
    from studies.few_shot import stage as few_shot

    settings = params.load(ROOT / "params.yaml")
    settings["model"] = {**settings["model"], "pretrained": None}
    inputs: list[Path] = [FOLDER / name for name in ("images", "texts", "weighted.h5", "splits.h5")]
    with contextlib.redirect_stdout(sys.stderr):
        few_shot.main(settings, *inputs, FOLDER / "out", FOLDER / "few_shot.html")
    asked = settings["few_shot"]
    return {"draws": len(asked["shots"]) * len(asked["seeds"]) + 1, "peak_mb": peak_mb()}


def main() -> None:
    write_inputs()
    printed: list[dict[str, Any]] = []
    seconds = timed(lambda: printed.append(call("stage", script="few_shot.py")))
    row(
        "few-shot study on 45,000 train images",
        seconds,
        None,
        unit="s",
        target="≤ 120 s",
        reached=bool(seconds <= 120),
        note=f"512 dimensions, 5,000 val and 10,000 test images; {printed[0]['draws']} draws, eight methods "
        "with the settings of params.yaml, their scores and the page; one run in a fresh process, its "
        f"imports included; peak {printed[0]['peak_mb']:.0f} MB",
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["stage"]:
        print(json.dumps(stage()), flush=True)
        os._exit(0)
    main()
