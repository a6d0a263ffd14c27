"""Image files of no dataset, embedded as the extraction embeds those of one, and never kept.

Files are decoded and fitted by the same functions, and worker processes do it ahead of the tower. One that
cannot be read is told of and the others go on; the extraction, which vouches for a whole dataset, stops.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from clipcifar.backbone.device import Download, out_of_memory_explained
from clipcifar.backbone.params import EmbedParams
from clipcifar.backbone.preprocess import Preprocess
from clipcifar.backbone.towers import Backbone
from clipcifar.core.errors import ClipcifarError, DataError
from clipcifar.datasets.checking import MAX_BYTES
from clipcifar.datasets.decode import decode
from clipcifar.embeddings.loading import loaded
from clipcifar.embeddings.sources import fitted
from clipcifar.store.fields import check_embeddings

_FIRST = 8  # images of a batch whose answers are waited for


@dataclass(frozen=True)
class Batch:
    """What has become of some paths that stand next to each other.

    Attributes:
        rows: n positions in the paths, of those that could be read.
        embeddings: (n, D) float32 unit rows; n may be 0.
        failed: the other positions, each with what is wrong with its file.
    """

    rows: list[int]
    embeddings: NDArray[np.float32]
    failed: list[tuple[int, ClipcifarError]]


def embed_files(
    paths: Sequence[Path],
    backbone: Backbone,
    *,
    embed: EmbedParams,
    max_megapixels: int,
    on_image: Callable[[int], object] = lambda n: None,
    bounds: Sequence[range] | None = None,
) -> Generator[Batch, None, None]:
    """Embed image files, batch by batch in the order of the paths.

    While a batch is handed out the next one runs on the device, and those behind it are decoded: no more is
    done ahead, so that memory does not grow with the paths. Equal batches of the extraction give equal
    bytes; in others a row may differ in its last bits.

    Args:
        paths: N files.
        backbone: the tower.
        embed: batch size, and how many processes decode.
        max_megapixels: a file that claims more is not read.
        on_image: told how many paths are done, after each batch.
        bounds: the positions of each batch, where they shall not all have the batch size.

    Raises:
        DataError: an embedding is not a unit vector, which is the model's fault; names the image.
        EnvironmentFault: memory ran out, or a worker process died.
    """
    blank = torch.zeros((1, 3, *backbone.preprocess.size), dtype=torch.uint8)
    if bounds is None:
        starts = range(0, len(paths), embed.batch_size)
        bounds = [range(i, min(i + embed.batch_size, len(paths))) for i in starts]

    def fetched(rows: list[int], embeddings: Download, failed: list[tuple[int, ClipcifarError]]) -> Batch:
        batch = embeddings.wait().numpy()[: len(rows)]
        check_embeddings(batch, [str(paths[row]) for row in rows], what="image")
        on_image(len(rows) + len(failed))
        return Batch(rows, batch, failed)

    pending: tuple[list[int], Download, list[tuple[int, ClipcifarError]]] | None = None
    items = _Files(paths, backbone.preprocess, max_megapixels)
    workers = min(embed.worker_count, len(bounds)) if len(bounds) > 1 else 0  # ahead of which nothing is done
    decoded = loaded(items, bounds, _together, workers=workers)
    with out_of_memory_explained("embed.batch_size"), closing(decoded):
        for batch_rows, (images, errors) in zip(bounds, decoded, strict=True):
            rows = [row for row in batch_rows if row not in errors]
            # Of nothing a tower may refuse to tell how long its rows are; a blank image tells it.
            queued = Download(backbone.encode_images(blank if images is None else images))
            if pending is not None:
                yield fetched(*pending)
            pending = rows, queued, sorted(errors.items())
        if pending is not None:
            yield fetched(*pending)


def soon(n: int, embed: EmbedParams) -> list[range]:
    """Batches of N images that somebody waits for.

    The first is small, so that answers begin, and each is twice as large as the one before: soon they are the
    extraction's, which cost a tower least. None is so large that a process which decodes gets no other.
    """
    largest = min(embed.batch_size, max(_FIRST, -(-n // max(1, embed.worker_count))))
    bounds: list[range] = []
    rows = range(0)
    while rows.stop < n:
        rows = range(rows.stop, min(n, rows.stop + min(largest, _FIRST << len(bounds))))
        bounds.append(rows)
    return bounds


def read_image(path: Path, *, max_megapixels: int) -> NDArray[np.uint8]:
    """Decode an image file that nobody has listed or checked before, (H, W, 3) uint8.

    Raises:
        DataError: it is not there, is no plain file or no image, or is larger than it may be.
        EnvironmentFault: memory ran out.
    """
    try:
        status = path.stat()  # before it is opened: at a pipe that would wait for ever
        if not stat.S_ISREG(status.st_mode):
            is_folder = stat.S_ISDIR(status.st_mode)
            raise DataError("a folder, no image" if is_folder else "not a file: a pipe, a socket or a device")
        if status.st_size > MAX_BYTES:
            raise DataError(f"{status.st_size:,} bytes, more than {MAX_BYTES:,}")
        content = path.read_bytes()
    except DataError as error:
        error.where = str(path)
        raise
    except (OSError, ValueError) as error:  # the latter of a name that holds a zero byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"cannot be read: {reason}", where=str(path)) from error
    return decode(content, str(path), max_megapixels=max_megapixels)


_Item = tuple[int, torch.Tensor | ClipcifarError]
_Decoded = tuple[torch.Tensor | None, dict[int, ClipcifarError]]


def _together(items: list[_Item]) -> _Decoded:
    """One batch, (n, 3, height, width) uint8 of the images that could be read, and the errors.

    Errors travel as values: raised in a worker, they would arrive as text.
    """
    images = [item for _, item in items if isinstance(item, torch.Tensor)]
    errors = {row: item for row, item in items if isinstance(item, ClipcifarError)}
    return torch.stack(images) if images else None, errors


class _Files:
    """N image files by row, each (3, height, width) uint8 or what is wrong with it."""

    def __init__(self, paths: Sequence[Path], preprocess: Preprocess, max_megapixels: int) -> None:
        self._paths, self._preprocess, self._max_megapixels = paths, preprocess, max_megapixels

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, row: int) -> _Item:
        try:
            pixels = read_image(self._paths[row], max_megapixels=self._max_megapixels)
        except ClipcifarError as error:
            return row, error
        return row, fitted(pixels, self._preprocess)
