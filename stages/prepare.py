"""One dataset file, the train/val split and the class names; everything that lay there is counted."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from clipcifar.core import files, params
from clipcifar.core.errors import ConfigError
from clipcifar.datasets import array_sets, download, source
from clipcifar.datasets.divide import divide
from clipcifar.datasets.imagefolder import image_folder
from clipcifar.datasets.params import DatasetParams, photograph_folder
from clipcifar.datasets.plain_files import shortened
from clipcifar.datasets.registry import located, registered
from clipcifar.evaluation import metrics
from clipcifar.project import dvc_project
from clipcifar.store.dataset import counted, write_dataset
from clipcifar.store.splits import SplitParams, write_splits
from stages import run


def main(
    settings: dict[str, Any], raw: Path, dataset_path: Path, splits_path: Path, classes_path: Path
) -> None:
    dataset = params.read(settings, "dataset", DatasetParams)
    split = params.read(settings, "split", SplitParams)
    print(f"reading {dataset.name}", flush=True)
    collected = source.collect(_source(dataset, raw), on_bad_image=dataset.on_bad_image)
    metrics.metric_keys(collected.class_names)  # refuses names that metrics could not tell apart
    divided = divide(collected, dataset, split)
    digest = write_dataset(
        dataset_path,
        divided.train,
        divided.test,
        class_names=collected.class_names,
        name=dataset.name,
        max_per_class=dataset.max_per_class or 0,
        left_out=divided.left_out,
        notes=divided.notes,
    )
    write_splits(splits_path, divided.train.ids, divided.rows, attributes={"dataset_digest": digest})
    files.write_json(classes_path, {"dataset": dataset.name, "class_names": collected.class_names})
    if collected.unreadable:
        print(
            "\n    ".join([f"skipped {len(collected.unreadable)} images:", *shortened(collected.unreadable)])
        )
    for note in divided.notes:
        print(note)
    counts = (
        f"{len(divided.rows.train):,} train, {len(divided.rows.val):,} val, {len(divided.test.ids):,} test"
    )
    classes = f"{counts} images of {len(collected.class_names)} classes"
    left_out = counted(divided.left_out)
    print(f"{dataset.name}: {classes}; {f'left out: {left_out}' if left_out else 'nothing left out'}")


def _source(dataset: DatasetParams, raw: Path) -> source.Source:
    entry = registered(dataset.name)
    if entry.load is None:
        return image_folder(
            photograph_folder(dataset, raw),
            max_megapixels=dataset.max_megapixels,
            caches=_caches,
            ours=[download.SOURCE_FILE],
        )
    archive = None
    for known in entry.archives:
        archive = located(known, dataset, raw)
        download.check(archive, known)
    return array_sets.stream(entry.load(archive), where=str(archive or dataset.name))


def _caches() -> Sequence[Path]:
    with suppress(ConfigError):  # of no DVC that can be asked: then every link out is an error
        return [dvc_project.cache_of(Path())]
    return []


if __name__ == "__main__":
    run(main)
