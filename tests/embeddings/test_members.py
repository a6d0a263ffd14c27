"""Members of tar files as the extraction and all others read them, against the same images as files."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clipcifar.core.errors import ClipcifarError, DataError
from clipcifar.datasets import tar_shards
from clipcifar.datasets.imagefolder import image_folder
from clipcifar.datasets.source import collect
from clipcifar.datasets.tarfolder import tar_folder
from clipcifar.embeddings.sources import read_photograph, source_of
from clipcifar.render.pictures import Pictures
from clipcifar.store.dataset import PreparedSplit
from tests.support.shards import tar_of, write
from tests.support.small_input import PREPROCESS

ROWS = [range(0, 4), range(4, 8), range(8, 9)]


@pytest.fixture
def images(tmp_path: Path) -> dict[str, bytes]:
    """Nine images of different sizes, by name."""
    rng = np.random.default_rng(0)
    made = {}
    for i in range(9):
        path = tmp_path / "one.png"
        Image.fromarray(rng.integers(0, 256, (8 + 3 * i, 30 - i, 3), dtype=np.uint8)).save(path)
        made[f"{'ab'[i > 4]}/{i}.png"] = path.read_bytes()
    return made


@pytest.fixture
def folder(images: dict[str, bytes], tmp_path: Path) -> Path:
    """They as files, and as members of two shards."""
    write(tmp_path / "files", {f"test/{name}": content for name, content in images.items()})
    halves = dict([*images.items()][:5]), dict([*images.items()][5:])
    return write(tmp_path, {f"tar/test/{i}.tar": tar_of(half) for i, half in enumerate(halves)})


def members(folder: Path) -> PreparedSplit:
    return collect(tar_folder(folder / "tar", max_megapixels=250), on_bad_image="error").splits["test"]


def files(folder: Path) -> PreparedSplit:
    return collect(image_folder(folder / "files", max_megapixels=250), on_bad_image="error").splits["test"]


@pytest.mark.parametrize("workers", [0, 2])
def test_members_become_the_tensors_that_files_become(workers: int, folder: Path) -> None:
    expected = source_of(files(folder), folder / "files", preprocess=PREPROCESS, workers=0)
    source = source_of(members(folder), folder / "tar", preprocess=PREPROCESS, workers=workers)
    assert len(source) == 9
    for got, wanted in zip(source.batches(ROWS), expected.batches(ROWS), strict=True):
        assert torch.equal(got, wanted)


def test_rows_in_any_order_and_of_a_part_are_those_of_the_files(folder: Path) -> None:
    chosen = np.array([8, 0, 3, 7, 1])
    expected = source_of(files(folder).take(chosen), folder / "files", preprocess=PREPROCESS, workers=0)
    source = source_of(members(folder).take(chosen), folder / "tar", preprocess=PREPROCESS, workers=0)
    (got,), (wanted,) = source.batches([range(5)]), expected.batches([range(5)])
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_workers_may_be_started_in_any_way(method: str, folder: Path) -> None:
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(method, force=True)
    try:
        batches = source_of(members(folder), folder / "tar", preprocess=PREPROCESS, workers=1).batches(ROWS)
        assert [len(batch) for batch in batches] == [4, 4, 1]
    finally:
        multiprocessing.set_start_method(before, force=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_whose_bytes_changed_is_named_by_shard_member_and_digest(workers: int, folder: Path) -> None:
    split = members(folder)
    assert split.members is not None
    path = folder / "tar/test/1.tar"
    content = bytearray(path.read_bytes())
    content[int(split.members.offset[6]) + 40] ^= 1
    path.write_bytes(content)
    batches = source_of(split, folder / "tar", preprocess=PREPROCESS, workers=workers).batches(ROWS)
    assert len(next(batches)) == 4  # what comes before it is not lost
    with pytest.raises(DataError, match="its shard changed since prepare read it") as caught:
        list(batches)
    assert caught.value.where == "test/1.tar/b/6.png"
    assert "where its list gives its sha256" in caught.value.fix
    assert split.digests[6] in caught.value.what
    with pytest.raises(DataError, match="its shard changed"):
        read_photograph(split, folder / "tar", 6)
    assert read_photograph(split, folder / "tar", 5).shape == (23, 25, 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_that_went_or_grew_is_named(workers: int, folder: Path) -> None:
    split, path = members(folder), folder / "tar/test/1.tar"
    path.write_bytes(path.read_bytes() + bytes(512))
    for expected in ("bytes, and had", "the shard is not there"):
        source = source_of(split, folder / "tar", preprocess=PREPROCESS, workers=workers)
        with pytest.raises(DataError, match=expected) as caught:
            list(source.batches(ROWS))
        assert caught.value.where == str(path)
        path.unlink(missing_ok=True)


def test_pages_show_members_and_leave_a_place_for_those_that_are_gone(folder: Path) -> None:
    shown, expected = Pictures(members(folder), folder / "tar"), Pictures(files(folder), folder / "files")
    assert not shown.small
    for row in range(9):
        assert shown.data_uri(row) == expected.data_uri(row) != ""
    (folder / "tar/test/1.tar").unlink()
    assert shown.data_uri(0) != ""
    assert shown.data_uri(7) == ""


def test_a_piece_that_is_cut_short_is_no_image(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size alone is not believed: a file may shrink while it is read."""
    split, read = members(folder), tar_shards.ShardFile._read
    monkeypatch.setattr(tar_shards.ShardFile, "_read", lambda self, start, n: read(self, start, n)[:-1])
    with pytest.raises(ClipcifarError, match="cut off"):
        read_photograph(split, folder / "tar", 0)
