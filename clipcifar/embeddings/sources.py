"""Where the extraction gets its pixels: an array in memory, or files and shards read by worker processes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from clipcifar.backbone.preprocess import Preprocess, fit
from clipcifar.core.errors import ClipcifarError, DataError
from clipcifar.core.files import fault_behind
from clipcifar.datasets.decode import decode
from clipcifar.datasets.tar_shards import READ_AGAIN, ShardReader, read_member
from clipcifar.embeddings.loading import LESS, Items, loaded
from clipcifar.store.dataset import PreparedSplit

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


class Excerpt:
    """Some rows of another source, which are here counted from 0."""

    def __init__(self, source: ImageSource, rows: range) -> None:
        self._source, self._rows = source, rows

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self, rows: Sequence[range]) -> Iterator[torch.Tensor]:
        return self._source.batches([self._rows[batch.start : batch.stop] for batch in rows])


# Images, each (3, H, W) uint8; an error that a person is meant to read is returned.
ImageItems: TypeAlias = Items[torch.Tensor | ClipcifarError]


class WorkerSource:
    """Images made one by one, by worker processes ahead of the model.

    Args:
        items: where they come from; within a batch all are of one size.
        workers: number of processes; 0 works in this one.
    """

    def __init__(self, items: ImageItems, *, workers: int) -> None:
        self._items, self._workers = items, workers

    def __len__(self) -> int:
        return len(self._items)

    def batches(self, rows: Sequence[range]) -> Iterator[torch.Tensor]:
        made = loaded(self._items, rows, _stack, workers=self._workers, fix=f"{LESS}; finished work is kept")
        with closing(made) as batches:
            for batch in batches:
                if isinstance(batch, ClipcifarError):
                    raise batch
                yield batch


class FolderSource(WorkerSource):
    """Image files, decoded and fitted to the model's input.

    Args:
        root: the folder that the ids are relative to.
        ids: N relative paths.
        digests: N hex sha256; a file that changed since it was listed is an error.
        preprocess: gives the size to fit to.
        workers: number of processes; 0 decodes in this one.
    """

    def __init__(
        self, root: Path, ids: Sequence[str], digests: Sequence[str], *, preprocess: Preprocess, workers: int
    ) -> None:
        super().__init__(_DecodedFiles(root, ids, digests, preprocess), workers=workers)


def source_of(split: PreparedSplit, folder: Path, *, preprocess: Preprocess, workers: int) -> ImageSource:
    """The images of a prepared split: its pixels, or the files or shards that it lists under `folder`."""
    if split.in_memory:
        return ArraySource(split.content)
    if split.members is not None:
        return WorkerSource(_DecodedMembers(split, folder, preprocess), workers=workers)
    return FolderSource(folder, split.ids, split.digests, preprocess=preprocess, workers=workers)


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


def read_photograph(split: PreparedSplit, folder: Path, row: int) -> NDArray[np.uint8]:
    """Decode an image file of a split, or a member of a tar file, (H, W, 3) uint8.

    Raises:
        DataError: it is gone, changed since it was listed, or is not an image.
        EnvironmentFault: it is there and cannot be read.
    """
    if split.members is not None:
        content = read_member(folder, split.members, row)
        return _decoded_member(content, split.ids[row], split.digests[row])
    return _read_file(folder / split.ids[row], split.digests[row])


def _read_file(path: Path, digest: str) -> NDArray[np.uint8]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise fault_behind(error, path) or DataError(
            f"cannot be read: {error.strerror}", where=str(path), fix=_LIST_AGAIN
        ) from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise DataError("changed since it was listed", where=str(path), fix=_LIST_AGAIN)
    return decode(content, str(path))


def _decoded_member(content: bytes, sample_id: str, digest: str) -> NDArray[np.uint8]:
    if (sha256 := hashlib.sha256(content).hexdigest()) != digest:
        raise DataError(
            f"its shard changed since prepare read it: sha256 {sha256} in place of {digest}",
            where=sample_id,
            fix=READ_AGAIN,
        )
    return decode(content, sample_id)


def fitted(pixels: NDArray[np.uint8], preprocess: Preprocess) -> torch.Tensor:
    """One image, (H, W, 3) uint8, at the model's input size, (3, height, width) uint8."""
    return fit(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None], preprocess)[0].contiguous()


class _DecodedFiles:
    def __init__(
        self, root: Path, ids: Sequence[str], digests: Sequence[str], preprocess: Preprocess
    ) -> None:
        self._root, self._ids, self._digests, self._preprocess = root, ids, digests, preprocess

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, row: int) -> torch.Tensor | ClipcifarError:
        try:
            pixels = _read_file(self._root / self._ids[row], self._digests[row])
        except ClipcifarError as error:
            return error
        return fitted(pixels, self._preprocess)


class _DecodedMembers:
    """Members of tar files; those of a batch that lie side by side come in one piece."""

    def __init__(self, split: PreparedSplit, folder: Path, preprocess: Preprocess) -> None:
        assert split.members is not None
        self._split, self._preprocess = split, preprocess
        self._reader = ShardReader(folder, split.members)  # opens nothing before a worker asks it

    def __len__(self) -> int:
        return len(self._split.ids)

    def __getitem__(self, row: int) -> torch.Tensor | ClipcifarError:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: list[int]) -> list[torch.Tensor | ClipcifarError]:
        images: dict[int, torch.Tensor] = {}
        try:
            for i, content in self._reader.read(rows):
                pixels = _decoded_member(content, self._split.ids[rows[i]], self._split.digests[rows[i]])
                images[i] = fitted(pixels, self._preprocess)
        except ClipcifarError as error:
            return [error]
        return [images[i] for i in range(len(rows))]
