"""What a method starts from, and what is said of a dataset that lacks a part of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clipcifar.core.errors import DataError
from clipcifar.store import inputs, splits
from clipcifar.store.splits import TrainVal


def _write_split(path: Path, *, num_train: int, num_val: int) -> Path:
    train, val = np.split(np.arange(num_train + num_val), [num_train])
    ids = [f"train/{i}" for i in range(num_train + num_val)]
    splits.write_splits(path, ids, TrainVal(train, val), attributes={"dataset_digest": "1"})
    return path


@pytest.mark.parametrize(("num_train", "num_val", "part"), [(0, 0, "train"), (0, 2, "train"), (2, 0, "val")])
def test_a_part_that_a_dataset_lacks_is_named_in_one_line(
    num_train: int, num_val: int, part: str, tmp_path: Path
) -> None:
    path = _write_split(tmp_path / "s.h5", num_train=num_train, num_val=num_val)
    with pytest.raises(DataError) as caught:
        inputs.check_split(path, "the study ensemble needs")
    assert caught.value.exit_code == 3
    assert str(caught.value).startswith(
        f"the study ensemble needs {part} images, and this dataset has none: add {part}/<class>/…, or run "
        "`dvc repro zero_shot prompt_sets`"
    )
    assert "\n" not in str(caught.value)


def test_of_a_whole_split_and_of_one_that_cannot_be_read_nothing_is_said(tmp_path: Path) -> None:
    inputs.check_split(_write_split(tmp_path / "s.h5", num_train=1, num_val=1), "a study needs")
    inputs.check_split(tmp_path / "absent.h5", "a study needs")
    (tmp_path / "damaged.h5").write_bytes(b"no HDF5")
    inputs.check_split(tmp_path / "damaged.h5", "a study needs")
