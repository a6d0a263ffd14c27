"""Where the extraction gets its pixels: an array in memory, or a folder read by worker processes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from clipcifar.dataset_file import PreparedSplit
from clipcifar.errors import ClipcifarError, DataError, EnvironmentFault
from clipcifar.images import decode
from clipcifar.preprocess import Preprocess, fit

_LIST_AGAIN = "run `dvc repro`, which lists the folder again"


class ImageSource(Protocol):
    """N images in a fixed order, handed out in batches of rows."""

    def __len__(self) -> int: ...

    def batches(self, rows: Sequence[range]) -> Iterator[torch.Tensor]:
        """For each range of rows its images, (rows, 3, H, W) uint8 on the host."""
        ...


class ArraySource:
    """Images of one size in memory, (N, H, W, 3) uint8."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def batches(self, rows: Sequence[range]) -> Iterator[torch.Tensor]:
        for batch in rows:
            yield torch.from_numpy(self._images[batch.start : batch.stop]).permute(0, 3, 1, 2)


class FolderSource:
    """Image files, decoded and fitted to the model's input by worker processes ahead of the model.

    Args:
        root: the folder that the ids are relative to.
        ids: N relative paths.
        digests: N hex sha256; a file that changed since it was listed is an error.
        preprocess: gives the size to fit to.
        workers: number of processes; 0 decodes in this one.
    """

    def __init__(
        self, root: Path, ids: list[str], digests: list[str], *, preprocess: Preprocess, workers: int
    ) -> None:
        self._files = _DecodedFiles(root, ids, digests, preprocess)
        self._workers = workers

    def __len__(self) -> int:
        return len(self._files)

    def batches(self, rows: Sequence[range]) -> Iterator[torch.Tensor]:
        loader = DataLoader(
            self._files,
            batch_sampler=list(rows),  # type: ignore[arg-type]
            num_workers=self._workers,
            collate_fn=_stack,
        )
        with _worker_failure_explained():
            batches = iter(loader)
        try:
            while True:
                with _worker_failure_explained():
                    batch = next(batches, None)
                if batch is None:
                    return
                if isinstance(batch, ClipcifarError):
                    raise batch
                yield batch
        finally:
            # The workers end with the iterator. Left to the garbage collector, which an error raised
            # here would do, their queues may go first, and ending takes five seconds a worker.
            del batches


def source_of(split: PreparedSplit, folder: Path, *, preprocess: Preprocess, workers: int) -> ImageSource:
    """The images of a prepared split: its pixels, or the files that it lists under `folder`."""
    if split.in_memory:
        return ArraySource(split.content)
    digests = [digest.decode() for digest in split.content.tolist()]
    return FolderSource(folder, split.ids, digests, preprocess=preprocess, workers=workers)


@contextmanager
def _worker_failure_explained() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, OSError) as error:  # a killed worker, no shared memory, no handles left
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise EnvironmentFault(
            f"a decoding worker failed: {reason[-1]}",
            where="params.yaml: embed.workers",
            fix="lower embed.workers, 0 needs the least memory; finished work is kept",
        ) from error.with_traceback(None)  # its frames hold the iterator; see above


def _stack(items: list[torch.Tensor | ClipcifarError]) -> torch.Tensor | ClipcifarError:
    """One batch, or the first error of its images.

    Errors travel as values: raised in a worker, they would arrive as the text of its traceback.
    """
    tensors = []
    for item in items:
        if isinstance(item, ClipcifarError):
            return item
        tensors.append(item)
    return torch.stack(tensors)


class _DecodedFiles(Dataset[torch.Tensor | ClipcifarError]):
    def __init__(self, root: Path, ids: list[str], digests: list[str], preprocess: Preprocess) -> None:
        self._root, self._ids, self._digests = root, ids, digests
        self._fit = partial(fit, preprocess=preprocess)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, row: int) -> torch.Tensor | ClipcifarError:
        path = self._root / self._ids[row]
        try:
            return self._read(path, self._digests[row])
        except OSError as error:
            return DataError(f"cannot be read: {error.strerror}", where=str(path), fix=_LIST_AGAIN)
        except ClipcifarError as error:
            return error

    def _read(self, path: Path, digest: str) -> torch.Tensor:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise DataError("changed since it was listed", where=str(path), fix=_LIST_AGAIN)
        pixels = torch.from_numpy(decode(content, str(path)).copy()).permute(2, 0, 1)
        return self._fit(pixels[None])[0].contiguous()
