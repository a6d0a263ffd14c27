from __future__ import annotations

import multiprocessing
import random
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from clipcifar.core.errors import DataError, EnvironmentFault
from clipcifar.embeddings import extract as extract_module
from clipcifar.embeddings.shards import ShardFolder
from clipcifar.embeddings.sources import ArraySource

N, BATCH = 23, 4
IMAGES = np.random.default_rng(0).integers(1, 256, (N, 5, 5, 3), dtype=np.uint8)
IDS = [f"photo-{i:02d}" for i in range(N)]
PROJECTION = torch.randn(75, 6, generator=torch.Generator().manual_seed(0))


def embed(images: torch.Tensor) -> torch.Tensor:
    """A stand-in for the tower, (B, 3, 5, 5) uint8 -> (B, 6) float32 unit rows.

    The mean of the batch goes in, so that the result shows which images were computed together.
    """
    pixels = images.flatten(1).float()
    return F.normalize((pixels + pixels.mean(0)) @ PROJECTION, dim=-1)


class Stub:
    """A stub encoder that counts what it is asked and misbehaves on request."""

    def __init__(self, fail_at: int | None = None, error: type[BaseException] = RuntimeError) -> None:
        self.rows: list[int] = []
        self._fail_at, self._error = fail_at, error

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        if len(self.rows) == self._fail_at:
            raise self._error("stub")
        self.rows.append(len(images))
        return embed(images)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batches of four to a shard: shards 0-8, 8-16 and 16-23."""
    monkeypatch.setattr(extract_module, "SHARD_ROWS", 8)


def extract(*arguments: Any, **named: Any) -> NDArray[np.float32]:
    """All rows of `extract_module.extract` as one array."""
    return np.concatenate([np.empty((0, 6), np.float32), *extract_module.extract(*arguments, **named)])


def shard_folder(root: Path) -> ShardFolder:
    return ShardFolder(root, "ab" * 32)


def run(
    root: Path, encode: Any = None, batch_size: int = BATCH, images: Any = IMAGES, multiple: int = 1
) -> NDArray[np.float32]:
    return extract(
        ArraySource(images),
        encode or Stub(),
        ids=IDS[: len(images)],
        batch_size=batch_size,
        multiple=multiple,
        shards=shard_folder(root),
    )


def reference(batch_size: int = BATCH) -> NDArray[np.float32]:
    pixels = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)
    return np.concatenate([embed(pixels[i : i + batch_size]).numpy() for i in range(0, N, batch_size)])


def shard_names(root: Path) -> list[str]:
    return sorted(path.stem for path in root.glob("*/*.shard"))


@pytest.mark.parametrize("batch_size", [1, 3, 4, 7, 23, 100])
def test_every_image_is_embedded_once_in_order_and_in_batches_of_the_size_asked_for(
    batch_size: int, tmp_path: Path
) -> None:
    stub = Stub()
    found = run(tmp_path, stub, batch_size)
    assert found.dtype == np.float32
    assert found.tobytes() == reference(batch_size).tobytes()
    assert stub.rows == [min(batch_size, N - i) for i in range(0, N, batch_size)]


@pytest.mark.parametrize(
    ("images", "batch_size", "multiple", "sizes"),
    [
        (23, 4, 4, [4] * 6),
        (23, 20, 8, [20, 8]),
        (20, 16, 8, [16, 8]),
        (23, 12, 8, [12, 12]),  # never more than the batch size
        (3, 100, 8, [8]),
        (3, 100, 100, [100]),
        (23, 1, 1, [1] * 23),
    ],
)
def test_a_short_batch_is_filled_up_and_gives_its_own_rows_alone(
    images: int, batch_size: int, multiple: int, sizes: list[int], tmp_path: Path
) -> None:
    stub = Stub()
    rows = run(tmp_path, stub, batch_size, IMAGES[:images], multiple)
    assert stub.rows == sizes
    padded = np.concatenate([IMAGES[:images], np.repeat(IMAGES[images - 1 : images], 100, axis=0)])
    pixels, start, expected = torch.from_numpy(padded).permute(0, 3, 1, 2), 0, []
    for size in sizes:
        expected.append(embed(pixels[start : start + size]).numpy())
        start += size
    assert rows.tobytes() == np.concatenate(expected)[:images].tobytes()


def test_the_batches_show_in_the_numbers() -> None:
    # Else the tests here could not tell a resumed run with other batches from the same run.
    assert reference(4).tobytes() != reference(3).tobytes()


def test_shards_end_where_batches_end(tmp_path: Path) -> None:
    run(tmp_path)
    assert shard_names(tmp_path) == ["000000000-000000008", "000000008-000000016", "000000016-000000023"]
    run(tmp_path / "other", batch_size=5)  # 8 rows at least, in whole batches of 5
    assert shard_names(tmp_path / "other") == [
        "000000000-000000010",
        "000000010-000000020",
        "000000020-000000023",
    ]


def test_an_empty_source_gives_no_rows(tmp_path: Path) -> None:
    stub = Stub()
    assert len(run(tmp_path, stub, images=IMAGES[:0])) == 0
    assert stub.rows == []


def test_a_second_run_computes_nothing_again(tmp_path: Path) -> None:
    first = run(tmp_path)
    stub = Stub()
    assert run(tmp_path, stub).tobytes() == first.tobytes()
    assert stub.rows == []


@given(
    stops=st.lists(st.integers(0, 6), max_size=4),
    lost=st.sets(st.integers(0, 2)),
)
@settings(max_examples=25)
def test_any_schedule_of_stops_and_lost_shards_gives_the_same_bytes(
    stops: list[int], lost: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("shards")
    for stop in stops:
        finished = shard_names(root)
        stub = Stub(fail_at=stop, error=KeyboardInterrupt)
        try:
            run(root, stub)
        except KeyboardInterrupt:
            pass
        else:
            assert len(stub.rows) <= stop
        assert set(finished) <= set(shard_names(root))
    for path in sorted(root.glob("*/*.shard")):
        if int(path.stem[:9]) // 8 in lost:
            path.write_bytes(path.read_bytes()[:-1])
    kept = [name for name in shard_names(root) if int(name[:9]) // 8 not in lost]
    stub = Stub()
    assert run(root, stub).tobytes() == reference().tobytes()
    assert sum(stub.rows) == N - sum(int(name[10:]) - int(name[:9]) for name in kept)


class SlowStub:
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        time.sleep(0.03)
        return embed(images)


def _run_slowly(root: Path) -> None:
    torch.set_num_threads(1)
    with shard_folder(root).locked():
        run(root, SlowStub())


def test_runs_killed_at_random_moments_end_in_the_bytes_of_a_run_that_was_not(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")  # as the test has patched it, and without an import
    rng = random.Random(0)
    kills, ended_early = 8, 0
    for _ in range(kills):
        finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.shard")}
        process = context.Process(target=_run_slowly, args=(tmp_path,))
        process.start()
        process.join(rng.uniform(0.02, 0.15))
        ended_early += process.exitcode is not None
        process.kill()
        process.join()
        for path, written in finished.items():
            assert path.stat().st_mtime_ns == written, "a finished shard was computed again"
        if len(shard_names(tmp_path)) == 3:
            next(iter(tmp_path.glob("*/*.shard"))).unlink()  # leave something to be killed at
    assert ended_early < kills
    with shard_folder(tmp_path).locked():
        found = run(tmp_path)
    assert found.tobytes() == reference().tobytes()


class Spoilt:
    """Spoils one row of what the stub gives."""

    def __init__(self, row: int, value: float) -> None:
        self._row, self._value = row, value
        self.seen = 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        rows = embed(images)
        if self.seen <= self._row < self.seen + len(images):
            rows[self._row - self.seen] = self._value
        self.seen += len(images)
        return rows


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, 1.0])
@pytest.mark.parametrize("row", [0, 2, 9, 22])
def test_a_row_that_is_no_unit_vector_stops_the_run_at_its_batch_and_names_its_image(
    row: int, value: float, tmp_path: Path
) -> None:
    spoilt = Spoilt(row, value)
    with pytest.raises(DataError, match=f"image 'photo-{row:02d}' is not a unit vector") as caught:
        run(tmp_path, spoilt)
    assert caught.value.exit_code == 3
    # One batch is under way while the one before it is checked.
    assert spoilt.seen <= (row // BATCH + 2) * BATCH
    assert shard_names(tmp_path) == ["000000000-000000008", "000000008-000000016"][: row // 8]


def test_rows_of_another_number_or_type_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected 4 float32 rows"):
        run(tmp_path, lambda images: embed(images)[1:])
    with pytest.raises(DataError, match="expected 4 float32 rows, found float64"):
        run(tmp_path, lambda images: embed(images).double())


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
@pytest.mark.parametrize("largest", [0, 3])
def test_memory_that_runs_out_names_the_batch_size_to_lower(
    error: type[BaseException], largest: int, tmp_path: Path
) -> None:
    def encode(images: torch.Tensor) -> torch.Tensor:
        if len(images) > largest:
            raise error("no memory")
        return embed(images)

    with pytest.raises(EnvironmentFault, match="out of memory") as caught:
        run(tmp_path, encode)
    assert caught.value.exit_code == 4
    assert "embed.batch_size" in caught.value.where
    assert "lower embed.batch_size" in caught.value.fix
    if largest:
        assert run(tmp_path, encode, batch_size=largest).tobytes() == reference(largest).tobytes()


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
def test_memory_that_runs_out_late_keeps_the_finished_shards(
    error: type[BaseException], tmp_path: Path
) -> None:
    with pytest.raises(EnvironmentFault, match="out of memory"):
        run(tmp_path, Stub(fail_at=4, error=error))
    assert shard_names(tmp_path) == ["000000000-000000008"]
    stub = Stub()
    assert run(tmp_path, stub).tobytes() == reference().tobytes()
    assert stub.rows == [4, 4, 4, 3]


def test_the_host_allocators_message_is_memory_too(tmp_path: Path) -> None:
    def encode(_: torch.Tensor) -> torch.Tensor:
        return torch.empty(2**62, dtype=torch.uint8)

    with pytest.raises(EnvironmentFault, match="out of memory"):
        run(tmp_path, encode)


@pytest.mark.parametrize("error", [RuntimeError, NotImplementedError, RecursionError, ValueError])
def test_another_error_of_the_tower_is_not_taken_for_memory(
    error: type[BaseException], tmp_path: Path
) -> None:
    with pytest.raises(error, match="stub"):
        run(tmp_path, Stub(fail_at=0, error=error))


class ShortSource(ArraySource):
    """Hands out a batch less than asked for."""

    def batches(self, rows: Sequence[range]) -> Iterator[torch.Tensor]:
        return super().batches(rows[:-1])


def test_a_source_that_ends_early_is_never_taken_for_a_whole_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zip"):
        extract(
            ShortSource(IMAGES), Stub(), ids=IDS, batch_size=BATCH, multiple=1, shards=shard_folder(tmp_path)
        )


def test_a_scratch_folder_that_cannot_be_written_is_an_environment_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="cannot use"):
        run(tmp_path / "file")


def test_shards_with_rows_that_are_no_unit_vectors_are_not_merged(tmp_path: Path) -> None:
    # A shard that passes its own check, written by something that did not check its rows.
    shard_folder(tmp_path).write(0, 8, np.zeros((8, 6), np.float32))
    with pytest.raises(DataError, match="image 'photo-00' is not a unit vector"):
        run(tmp_path)


def test_a_shard_that_is_gone_at_the_end_is_an_error_and_not_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = ShardFolder.read

    def forgetful(self: ShardFolder, start: int, stop: int) -> NDArray[np.float32] | None:
        return None if start == 8 else read(self, start, stop)

    monkeypatch.setattr(ShardFolder, "read", forgetful)
    with pytest.raises(EnvironmentFault, match="rows 8 to 16 cannot be read back"):
        run(tmp_path)


def test_finished_shards_are_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While images are computed and read back, memory is that of a few shards, never of all rows."""
    monkeypatch.setattr(extract_module, "SHARD_ROWS", 100)
    n, dim = 2000, 512
    images = np.zeros((n, 2, 2, 3), np.uint8)
    during: list[int] = []

    def wide(batch: torch.Tensor) -> torch.Tensor:
        during.append(tracemalloc.get_traced_memory()[0])
        return torch.full((len(batch), dim), dim**-0.5)

    tracemalloc.start()
    try:
        blocks = extract_module.extract(
            ArraySource(images),
            wide,
            ids=[str(i) for i in range(n)],
            batch_size=100,
            multiple=100,
            shards=shard_folder(tmp_path),
        )
        assert [len(rows) for rows in blocks] == [100] * 20
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    shard, everything = 100 * dim * 4, n * dim * 4
    assert max(during) - during[0] < 5 * shard  # one is computed while another is written
    assert shard < peak < 12 * shard < everything
