"""Files of no dataset through the tower, beside what the extraction makes of the same files."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import signal
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader

from clipcifar.backbone.params import EmbedParams
from clipcifar.backbone.towers import Backbone
from clipcifar.core.errors import DataError, EnvironmentFault
from clipcifar.datasets import decode
from clipcifar.embeddings import loading, photographs
from clipcifar.embeddings.extract import extract
from clipcifar.embeddings.photographs import Batch, embed_files, read_image
from clipcifar.embeddings.shards import ShardFolder
from clipcifar.embeddings.sources import FolderSource
from tests.support.waiting import PATIENCE_S

N, MEGAPIXELS = 11, 1


@pytest.fixture(scope="module")
def backbone(tiny_clip: Path) -> Backbone:
    return Backbone.load(tiny_clip, torch.device("cpu"))


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Eleven images of different sizes and kinds."""
    rng = np.random.default_rng(0)
    for i in range(N):
        pixels = rng.integers(0, 256, (20 + 7 * i, 90 - 4 * i, 4), dtype=np.uint8)
        image = Image.fromarray(pixels) if i % 3 == 2 else Image.fromarray(pixels[:, :, :3])
        image.save(tmp_path / f"{i:02d}.png")
    return sorted(tmp_path.iterdir())


def params(batch_size: int = 4, workers: int = 0) -> EmbedParams:
    return EmbedParams("cpu", "fp32", batch_size, workers, "float32")


def embedded(paths: list[Path], backbone: Backbone, batch_size: int = 4, workers: int = 0) -> list[Batch]:
    embed = params(batch_size, workers)
    return list(embed_files(paths, backbone, embed=embed, max_megapixels=MEGAPIXELS))


def rows_of(batches: list[Batch]) -> NDArray[np.float32]:
    return np.concatenate([batch.embeddings for batch in batches])


def extracted(paths: list[Path], backbone: Backbone, scratch: Path, batch_size: int) -> NDArray[np.float32]:
    """What the stage makes of these files."""
    ids = [path.name for path in paths]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    source = FolderSource(paths[0].parent, ids, digests, preprocess=backbone.preprocess, workers=0)
    shards = ShardFolder(scratch, "ab" * 32)
    blocks = extract(
        source, backbone.encode_images, ids=ids, batch_size=batch_size, multiple=1, shards=shards
    )
    return np.concatenate(list(blocks))


def test_workers_wait_for_nothing_that_another_thread_held_when_they_were_forked(
    photos: list[Path], backbone: Backbone
) -> None:
    with ThreadPoolExecutor(1) as threads:
        try:
            with decode._opening, decode._large:  # as a thread of a service that decodes an image itself
                batches = threads.submit(embedded, photos, backbone, workers=2).result(timeout=PATIENCE_S)
        finally:
            for worker in multiprocessing.active_children():  # else a failure would wait for them for ever
                worker.kill()
    assert sum(len(batch.rows) for batch in batches) == N


@pytest.mark.parametrize("workers", [0, 2])
def test_equal_batches_give_the_bytes_of_the_extraction_and_others_the_same_direction(
    workers: int, photos: list[Path], backbone: Backbone, tmp_path_factory: pytest.TempPathFactory
) -> None:
    reference = extracted(photos, backbone, tmp_path_factory.mktemp("scratch"), 4)
    batches = embedded(photos, backbone, 4, workers)
    assert [batch.rows for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert rows_of(batches).tobytes() == reference.tobytes()
    assert [batch.failed for batch in batches] == [[], [], []]
    for batch_size in (1, 5, 100):
        rows = rows_of(embedded(photos, backbone, batch_size, workers))
        assert (rows * reference).sum(axis=1).min() >= 1 - 1e-6
    assert (reference @ reference.T - np.eye(N)).max() < 1 - 1e-4  # else any row would do for any other


def test_the_order_is_that_of_the_paths_and_a_path_may_come_twice(
    photos: list[Path], backbone: Backbone
) -> None:
    order = [7, 0, 7, 3, 10, 3]
    rows = rows_of(embedded([photos[i] for i in order], backbone, 1))
    assert rows.tobytes() == rows_of(embedded(photos, backbone, 1))[order].tobytes()


def refused(path: Path) -> dict[str, str]:
    """Files that cannot be read, by name, with what is said of them."""
    image = Image.new("RGB", (1200, 900), "red")
    image.save(path / "large.png")
    image.resize((400, 300)).save(path / "cut.jpg")
    whole = (path / "cut.jpg").read_bytes()
    (path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (path / "text.jpg").write_text("no image\n")
    (path / "empty.png").touch()
    (path / "folder.png").mkdir()
    os.mkfifo(path / "pipe.png")
    (path / "dead.png").symlink_to("nowhere")
    return {
        "large.png": r"1200 x 900 pixels, more than dataset\.max_megapixels: 1",
        "cut.jpg": "cannot be decoded: .*truncated",
        "text.jpg": "not an image of a known format",
        "empty.png": "empty, or not an image",
        "folder.png": "a folder, no image",
        "pipe.png": "not a file: a pipe, a socket or a device",
        "dead.png": "cannot be read: No such file or directory",
        "missing.png": "cannot be read: No such file or directory",
        "zero\0byte.png": "cannot be read: .*null",
    }


@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_read_is_told_of_in_its_place_and_the_others_go_on(
    workers: int, photos: list[Path], backbone: Backbone, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("odd")
    reasons = refused(folder)
    paths = [*photos[:2], *(folder / name for name in reasons), *photos[2:]]
    batches = embedded(paths, backbone, 3, workers)
    first, last = 2, 2 + len(reasons)
    assert [row for batch in batches for row in batch.rows] == [0, 1, *range(last, len(paths))]
    failed = [item for batch in batches for item in batch.failed]
    assert [row for row, _ in failed] == list(range(first, last))
    for (row, error), (name, reason) in zip(failed, reasons.items(), strict=True):
        assert isinstance(error, DataError)
        assert error.where == str(paths[row]) == str(folder / name)
        with pytest.raises(DataError, match=reason):
            raise error
    assert all(len(batch.embeddings) == len(batch.rows) for batch in batches)
    assert [] in [batch.rows for batch in batches]  # a whole batch, whose rows have their width all the same
    alone = rows_of(embedded(photos, backbone, 3))
    assert (rows_of(batches) * alone).sum(axis=1).min() >= 1 - 1e-6


def test_a_file_without_the_right_to_read_it_is_told_of(
    photos: list[Path], backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.read_bytes

    def read_bytes(path: Path) -> bytes:  # to an administrator, every file can be read
        if path == photos[1]:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    (batch,) = embedded(photos[:3], backbone)
    assert batch.rows == [0, 2]
    assert [(row, error.what) for row, error in batch.failed] == [(1, "cannot be read: Permission denied")]


def test_a_file_beyond_any_image_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "huge.png", "wb") as file:
        file.truncate(1_000_000_001)  # takes no room
    tracemalloc.start()
    with pytest.raises(DataError, match="1,000,000,001 bytes, more than 1,000,000,000"):
        read_image(tmp_path / "huge.png", max_megapixels=MEGAPIXELS)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_no_paths_are_no_batches(backbone: Backbone) -> None:
    assert embedded([], backbone, workers=2) == []


def test_a_stream_is_consumed_lazily_and_counts_every_path(photos: list[Path], backbone: Backbone) -> None:
    """While a batch is looked at, the next one has been begun, and none behind it."""
    asked, counted = [], []

    class Watched:
        preprocess = backbone.preprocess

        def encode_images(self, images: torch.Tensor) -> torch.Tensor:
            asked.append(len(images))
            return backbone.encode_images(images)

    paths = [*photos[:5], photos[0].with_name("missing.png"), *photos[5:]]
    stream = embed_files(
        paths,
        Watched(),  # type: ignore[arg-type]
        embed=params(2),
        max_megapixels=MEGAPIXELS,
        on_image=counted.append,
    )
    assert asked == []
    next(stream)
    assert (asked, counted) == ([2, 2], [2])
    next(stream)
    assert (asked, counted) == ([2, 2, 1], [2, 2])
    assert len(list(stream)) == 4
    assert counted == [2] * 6


def test_the_workers_end_with_the_iterator(photos: list[Path], backbone: Backbone) -> None:
    stream = embed_files(photos, backbone, embed=params(1, 2), max_megapixels=MEGAPIXELS)
    next(stream)
    assert len(multiprocessing.active_children()) == 2
    stream.close()
    assert multiprocessing.active_children() == []


def test_no_more_workers_are_started_than_there_are_batches(
    photos: list[Path], backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def loader(*arguments: Any, num_workers: int, **options: Any) -> DataLoader[Any]:
        asked.append(num_workers)
        return DataLoader(*arguments, num_workers=0, **options)

    monkeypatch.setattr(loading, "DataLoader", loader)
    for batch_size in (1, 2, 3):
        embedded(photos[:3], backbone, batch_size, workers=2)
    assert asked == [2, 2, 0]  # one batch has nothing to be ahead of


@pytest.mark.parametrize(
    ("n", "batch_size", "workers", "sizes"),
    [
        (1000, 256, 2, [8, 16, 32, 64, 128, 256, 256, 240]),
        (100, 256, 16, [8] * 12 + [4]),  # so few that all processes have some
        (100, 4, 2, [4] * 25),  # never more than memory is said to have room for
        (3, 256, 0, [3]),
        (0, 256, 2, []),
    ],
)
def test_batches_that_are_waited_for_begin_small_and_become_those_of_the_extraction(
    n: int, batch_size: int, workers: int, sizes: list[int]
) -> None:
    bounds = photographs.soon(n, params(batch_size, workers))
    assert [len(rows) for rows in bounds] == sizes
    assert [row for rows in bounds for row in rows] == list(range(n))


def test_batches_may_be_given(photos: list[Path], backbone: Backbone) -> None:
    given = [range(0, 1), range(1, 4), range(4, N)]
    stream = embed_files(photos, backbone, embed=params(), max_megapixels=MEGAPIXELS, bounds=given)
    assert [batch.rows for batch in stream] == [list(rows) for rows in given]


def test_a_worker_that_is_killed_is_the_environments_fault(
    photos: list[Path], backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        assert multiprocessing.parent_process() is not None
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("clipcifar.embeddings.photographs.decode", killed)
    with pytest.raises(EnvironmentFault, match=r"a decoding worker failed: .*worker") as caught:
        embedded(photos, backbone, workers=1)
    assert "\n" not in caught.value.what


def test_rows_that_are_no_unit_vectors_are_refused_by_name(photos: list[Path], backbone: Backbone) -> None:
    class Broken:
        preprocess = backbone.preprocess

        def encode_images(self, images: torch.Tensor) -> torch.Tensor:
            return backbone.encode_images(images) * torch.tensor([[1.0], [float("nan")]])

    stream = embed_files(photos[:2], Broken(), embed=params(2), max_megapixels=MEGAPIXELS)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"01\.png' is not a unit vector"):
        list(stream)


def test_an_image_is_read_by_the_rules_of_the_datasets(tmp_path: Path) -> None:
    """Rotated as its EXIF says and laid on white."""
    image = Image.new("RGBA", (30, 20), (0, 0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    image.save(stream, "PNG", exif=exif)
    (tmp_path / "a.png").write_bytes(stream.getvalue())
    pixels = read_image(tmp_path / "a.png", max_megapixels=MEGAPIXELS)
    assert pixels.shape == (30, 20, 3)
    assert (pixels == 255).all()
