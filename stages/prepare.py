"""One dataset file, the train/val split and the class names; everything that lay there is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar.core import files, params
from clipcifar.core.counts import count_of
from clipcifar.datasets.divide import divide
from clipcifar.datasets.params import DatasetParams
from clipcifar.datasets.plain_files import shortened
from clipcifar.datasets.registry import source_of
from clipcifar.datasets.source import UNREADABLE, collect
from clipcifar.datasets.twins import find
from clipcifar.evaluation import metrics
from clipcifar.store.classes import check_readings
from clipcifar.store.dataset import counted, write_dataset
from clipcifar.store.splits import SplitParams, write_splits
from stages import run


def main(
    settings: dict[str, Any], raw: Path, dataset_path: Path, splits_path: Path, classes_path: Path
) -> None:
    dataset = params.read(settings, "dataset", DatasetParams)
    split = params.read(settings, "split", SplitParams)
    print(f"reading {dataset.name}", flush=True)
    collected = collect(source_of(dataset, raw), on_bad_image=dataset.on_bad_image)
    metrics.metric_keys(collected.class_names)  # refuses names that metrics could not tell apart
    check_readings(collected.class_names, where=f"params.yaml: dataset.path: {dataset.path}")
    divided = divide(collected, dataset, split)
    twins = find(divided.train, divided.test, val=divided.rows.val).lines(collected.class_names)
    notes = [*divided.notes, *twins]
    digest = write_dataset(
        dataset_path,
        divided.train,
        divided.test,
        class_names=collected.class_names,
        name=dataset.name,
        max_per_class=dataset.max_per_class or 0,
        left_out=divided.left_out,
        notes=[note for note in notes if not note.startswith(" ")],  # without the copies by name
    )
    write_splits(splits_path, divided.train.ids, divided.rows, attributes={"dataset_digest": digest})
    files.write_json(classes_path, {"dataset": dataset.name, "class_names": collected.class_names})
    if n := collected.left_out[UNREADABLE]:
        told = shortened(collected.unreadable, of=n)
        print("\n    ".join([f"skipped {count_of(n, 'image')}:", *told]))
    print("".join(f"{line}\n" for line in [*collected.named, *notes]), end="")
    train, val = map(len, divided.rows)
    counts = f"{train:,} train, {val:,} val, {count_of(len(divided.test.ids), 'test image')}"
    classes = f"{counts} of {len(collected.class_names)} classes"
    left_out = counted(divided.left_out)
    print(f"{dataset.name}: {classes}; {f'left out: {left_out}' if left_out else 'nothing left out'}")


if __name__ == "__main__":
    run(main)
