"""One dataset file, the train/val split and the class names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clipcifar.core import files, params
from clipcifar.datasets import download, imagefolder
from clipcifar.datasets.params import DatasetParams, photograph_folder
from clipcifar.datasets.plain_files import shortened
from clipcifar.datasets.registry import located, registered
from clipcifar.evaluation import metrics
from clipcifar.store import splits
from clipcifar.store.dataset import PreparedSplit, write_dataset
from clipcifar.store.splits import SplitParams, TrainVal
from stages import run


def main(
    settings: dict[str, Any], raw: Path, dataset_path: Path, splits_path: Path, classes_path: Path
) -> None:
    dataset = params.read(settings, "dataset", DatasetParams)
    split = params.read(settings, "split", SplitParams)
    print(f"reading {dataset.name}", flush=True)
    train, test, class_names = _load(dataset, raw)
    splits.check_classes(train.labels, class_names=class_names, split="train")
    metrics.metric_keys(class_names)  # refuses names that metrics could not tell apart
    if dataset.max_per_class is not None:
        limit = {"max_per_class": dataset.max_per_class, "seed": dataset.seed}
        train = train.take(splits.seeded_subset(train.labels, train.ids, **limit))
        test = test.take(splits.seeded_subset(test.labels, test.ids, **limit))
    digest = write_dataset(
        dataset_path,
        train,
        test,
        class_names=class_names,
        name=dataset.name,
        max_per_class=dataset.max_per_class or 0,
    )
    own_val = splits.own_val(train.ids)
    if own_val.any():
        rows = TrainVal(np.flatnonzero(~own_val), np.flatnonzero(own_val))
    else:
        rows = splits.stratified_split(
            train.labels, train.ids, class_names=class_names, val_fraction=split.val_fraction, seed=split.seed
        )
    splits.write_splits(splits_path, train.ids, rows, attributes={"dataset_digest": digest})
    files.write_json(classes_path, {"dataset": dataset.name, "class_names": class_names})
    counts = f"{len(rows.train):,} train, {len(rows.val):,} val, {len(test.ids):,} test"
    print(f"{dataset.name}: {counts} images of {len(class_names)} classes")


def _load(dataset: DatasetParams, raw: Path) -> tuple[PreparedSplit, PreparedSplit, list[str]]:
    entry = registered(dataset.name)
    if entry.load is None:
        folder = imagefolder.list_folder(photograph_folder(dataset, raw), on_bad_image=dataset.on_bad_image)
        if folder.bad:
            print("\n    ".join([f"skipped {len(folder.bad)} images:", *shortened(folder.bad)]))
        train, test = (
            PreparedSplit(np.array(part.digests, dtype="S64"), part.labels, part.ids)
            for part in (folder.train, folder.test)
        )
        return train, test, folder.class_names
    archive = None
    for known in entry.archives:
        archive = located(known, dataset, raw)
        download.check(archive, known)
    arrays = entry.load(archive)
    train, test = (PreparedSplit(part.images, part.labels, part.ids) for part in (arrays.train, arrays.test))
    return train, test, arrays.class_names


if __name__ == "__main__":
    run(main)
