from __future__ import annotations

import errno
import gc
import hashlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import _utils as loading

from clipcifar.backbone.params import EmbedParams
from clipcifar.backbone.preprocess import fit
from clipcifar.core.errors import DataError, EnvironmentFault
from clipcifar.datasets import decode as decoding
from clipcifar.datasets.decode import decode
from clipcifar.embeddings.sources import ArraySource, FolderSource, WorkerSource
from tests.support.small_input import PREPROCESS
from tests.support.waiting import PATIENCE_S

ROWS = [range(0, 3), range(3, 6), range(6, 7)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven images of different sizes."""
    rng = np.random.default_rng(0)
    for i in range(7):
        pixels = rng.integers(0, 256, (8 + 3 * i, 20 - i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    return tmp_path


def folder_source(root: Path, workers: int) -> FolderSource:
    ids = sorted(path.name for path in root.glob("*.png"))
    digests = [hashlib.sha256((root / name).read_bytes()).hexdigest() for name in ids]
    return FolderSource(root, ids, digests, preprocess=PREPROCESS, workers=workers)


class Patched:
    """The images of a source, read with a function replaced, in the worker itself: not all are forked."""

    def __init__(self, source: FolderSource, target: str, replacement: Callable[..., object]) -> None:
        self._items, self._target, self._replacement = source._items, target, replacement

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, row: int) -> object:
        with mock.patch(self._target, self._replacement):
            return self._items[row]


def patched(root: Path, workers: int, target: str, replacement: Callable[..., object]) -> WorkerSource:
    return WorkerSource(Patched(folder_source(root, workers), target, replacement), workers=workers)  # type: ignore[arg-type]


@pytest.fixture(params=multiprocessing.get_all_start_methods())
def start_method(request: pytest.FixtureRequest) -> Iterator[str]:
    """How workers are started: Linux forks up to Python 3.13 and asks a server from 3.14 on, macOS spawns."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


def test_an_array_is_handed_out_by_rows_with_channels_first() -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 4, 5, 3), dtype=np.uint8)
    source = ArraySource(images)
    batches = list(source.batches(ROWS))
    assert (len(source), [tuple(batch.shape) for batch in batches]) == (
        7,
        [(3, 3, 4, 5), (3, 3, 4, 5), (1, 3, 4, 5)],
    )
    np.testing.assert_array_equal(torch.cat(batches).numpy(), np.moveaxis(images, 3, 1))
    assert batches[0].dtype == torch.uint8
    (only,) = source.batches([range(5, 6)])
    np.testing.assert_array_equal(only[0].numpy(), np.moveaxis(images[5], 2, 0))


def decoded(photos: Path) -> torch.Tensor:
    return torch.cat(
        [
            fit(
                torch.from_numpy(decode((photos / f"{i}.png").read_bytes(), "").copy()).permute(2, 0, 1)[
                    None
                ],
                PREPROCESS,
            )
            for i in range(7)
        ]
    )


def test_files_are_decoded_and_fitted_in_the_order_of_the_ids_with_or_without_workers(photos: Path) -> None:
    expected = decoded(photos)
    for workers in (0, 2):
        source = folder_source(photos, workers)
        batches = list(source.batches(ROWS))
        assert len(source) == 7
        assert [len(batch) for batch in batches] == [3, 3, 1]
        assert torch.equal(torch.cat(batches), expected)


def test_workers_may_be_started_in_any_way(start_method: str, photos: Path) -> None:
    source, expected = folder_source(photos, 1), decoded(photos)
    (photos / "4.png").unlink()
    batches = source.batches(ROWS)
    assert torch.equal(next(batches), expected[:3])
    with pytest.raises(DataError, match="cannot be read: No such file") as caught:
        next(batches)
    assert caught.value.where == str(photos / "4.png")
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [0, 2])
def test_no_batches_of_no_files_are_no_fault(workers: int, tmp_path: Path) -> None:
    assert list(folder_source(tmp_path, workers).batches([])) == []


FAULTS = {
    "changed": (lambda path: Image.new("RGB", (9, 9)).save(path), "changed since it was listed"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "changed since it was listed"),
    "deleted": (lambda path: path.unlink(), "cannot be read: No such file"),
    "a folder now": (lambda path: (path.unlink(), path.mkdir()), "cannot be read: Is a directory"),
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_is_not_what_was_listed_is_refused_by_path_in_one_line(
    fault: str, workers: int, photos: Path
) -> None:
    source = folder_source(photos, workers)
    change, reason = FAULTS[fault]
    change(photos / "4.png")
    batches = source.batches(ROWS)
    assert len(next(batches)) == 3  # what comes before it is not lost
    with pytest.raises(DataError) as caught:
        list(batches)
    error = caught.value
    assert (error.exit_code, error.where) == (3, str(photos / "4.png"))
    assert reason in error.what
    assert "\n" not in error.what
    assert "Traceback" not in str(error)
    assert "dvc repro" in error.fix


def test_the_workers_are_told_to_end_with_the_error(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An iterator left to the garbage collector may lose its queues first; workers notice seconds later."""
    monkeypatch.setattr(loading.worker, "MP_STATUS_CHECK_INTERVAL", 1e6)  # never, where they are forked
    monkeypatch.setattr(loading, "MP_STATUS_CHECK_INTERVAL", PATIENCE_S)  # until one that stays is terminated
    process, terminated = multiprocessing.process.BaseProcess, []
    end = process.terminate
    monkeypatch.setattr(process, "terminate", lambda self: (terminated.append(self), end(self)))
    source = folder_source(photos, 2)
    (photos / "4.png").unlink()
    with pytest.raises(DataError):
        list(source.batches(ROWS))
    gc.collect()
    assert multiprocessing.active_children() == []
    assert terminated == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_listed_file_that_is_no_image_is_refused_by_path(workers: int, photos: Path) -> None:
    (photos / "4.png").write_bytes(b"<html>")
    with pytest.raises(DataError, match="not an image of a known format") as caught:
        list(folder_source(photos, workers).batches(ROWS))
    assert caught.value.where == str(photos / "4.png")


def test_the_first_of_several_faults_of_a_batch_is_reported(photos: Path) -> None:
    source = folder_source(photos, 0)
    (photos / "4.png").unlink()
    (photos / "5.png").unlink()
    with pytest.raises(DataError) as caught:
        list(source.batches(ROWS))
    assert caught.value.where == str(photos / "4.png")


def exhausted(*_: object) -> None:
    raise MemoryError


def killed(*_: object) -> None:
    assert multiprocessing.parent_process() is not None
    os.kill(os.getpid(), signal.SIGKILL)  # as the system does when memory runs out


def broken(*_: object) -> None:
    raise RuntimeError("no space left\non the shared memory")


@pytest.mark.parametrize("workers", [0, 2])
def test_memory_that_ran_out_while_decoding_is_the_environments_fault(workers: int, photos: Path) -> None:
    source = patched(photos, workers, "clipcifar.datasets.decode._to_rgb", exhausted)
    with pytest.raises(EnvironmentFault, match="out of memory") as caught:
        list(source.batches(ROWS))
    assert caught.value.exit_code == 4
    assert "Traceback" not in str(caught.value)


def test_a_killed_worker_is_reported_in_one_line(photos: Path) -> None:
    source = patched(photos, 1, "clipcifar.embeddings.sources.decode", killed)
    with pytest.raises(EnvironmentFault, match=r"a decoding worker failed: .*worker") as caught:
        list(source.batches(ROWS))
    assert caught.value.exit_code == 4
    assert "\n" not in caught.value.what
    assert "embed.workers" in caught.value.where


def test_an_unforeseen_error_in_a_worker_is_its_last_line(photos: Path) -> None:
    for workers in (0, 1):
        reason = ""
        try:  # pytest.raises would keep the frames, and with them the worker, alive
            list(patched(photos, workers, "clipcifar.embeddings.sources.decode", broken).batches(ROWS))
        except EnvironmentFault as error:
            reason = error.what
        assert reason == "a decoding worker failed: on the shared memory"
        assert multiprocessing.active_children() == []


def test_workers_wait_for_nothing_that_another_thread_held_when_they_were_forked(photos: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        try:
            with decoding._opening, decoding._large:
                rows = threads.submit(list, folder_source(photos, 2).batches(ROWS)).result(timeout=PATIENCE_S)
        finally:
            for worker in multiprocessing.active_children():  # else a failure would wait for them for ever
                worker.kill()
    assert torch.equal(torch.cat(rows), decoded(photos))


@pytest.mark.parametrize("asked", [None, 3])
def test_workers_are_as_many_as_asked_for_or_as_there_are_cores(
    asked: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = EmbedParams("cpu", "fp32", 16, asked, "float32")
    assert embed.worker_count == (asked or len(os.sched_getaffinity(0)))
    monkeypatch.delattr(os, "sched_getaffinity")  # which only Linux has
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert embed.worker_count == (asked or 7)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert embed.worker_count == (asked or 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_photograph_that_cannot_be_read_now_is_not_called_bad(
    workers: int, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name == "4.png":
            raise OSError(errno.EIO, "Input/output error")
        return real(path)

    source = folder_source(photos, workers)
    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    batches = source.batches(ROWS)
    next(batches)
    with pytest.raises(EnvironmentFault, match="Input/output error") as caught:
        next(batches)
    assert caught.value.exit_code == 4
