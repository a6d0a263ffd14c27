"""Every image through the frozen tower once: resumable, checked batch by batch, memory-bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from clipcifar.backbone.device import Download, out_of_memory_explained
from clipcifar.core.errors import EnvironmentFault
from clipcifar.core.progress import progress
from clipcifar.embeddings.shards import ShardFolder
from clipcifar.embeddings.sources import ImageSource
from clipcifar.store import parts
from clipcifar.store.fields import check_embeddings

SHARD_ROWS = 1024  # at least; a shard holds whole batches


class _Encode(Protocol):
    def __call__(self, images: torch.Tensor) -> torch.Tensor: ...


def extract(
    source: ImageSource,
    encode: _Encode,
    *,
    ids: Sequence[str],
    batch_size: int,
    multiple: int,
    shards: ShardFolder,
    what: str = "embedding images",
) -> Iterator[NDArray[np.float32]]:
    """Embed all images of `source`, going on from the shards of an earlier run.

    A shard ends where a batch ends, so a resumed run computes the same batches as one that was
    never stopped, and returns the same bits. For the same reason the batch size is part of what
    embeddings are filed under. Shards and batches end where a part of the stored rows does (`PART_ROWS`),
    so that who computes one part alone computes the same, too. A short batch is filled up by repetition:
    its rows then come from the kernels that those of full batches come from, and depend as little on how
    many images there are.

    Args:
        source: N images.
        encode: (B, 3, H, W) uint8 -> (B, D) float32 unit rows on any device.
        ids: N names, for messages.
        batch_size: B; the last batch of a part may be shorter.
        multiple: of how many images a short batch is made one, at most of B.
        shards: where finished rows are kept; the caller holds its lock.
        what: is done, for the progress bar.

    Returns:
        Their rows in order, (n, D) float32 at a time, finite and of unit length: all are embedded then, and
        are read back shard by shard, so that memory does not grow with N.

    Raises:
        DataError: an embedding is not a unit vector; names the image.
        EnvironmentFault: memory ran out, or the scratch folder cannot be written or read back.
    """
    shard_rows = batch_size * max(1, -(-SHARD_ROWS // batch_size))
    bounds = [
        range(i, min(i + shard_rows, part.stop))
        for part in parts.bounds(len(source))
        for i in range(part.start, part.stop, shard_rows)
    ]
    missing = [rows for rows in bounds if shards.read(rows.start, rows.stop) is None]
    finished = len(source) - sum(len(rows) for rows in missing)
    with progress(total=len(source), initial=finished, unit="images", what=what) as bar:
        full = partial(_filled_up, encode, batch_size, multiple)
        _write_beside(_shards_of(source, full, missing, batch_size, ids, bar.update), shards)
    return _read_back(shards, bounds, ids)


def _write_beside(computed: Iterator[tuple[range, NDArray[np.float32]]], shards: ShardFolder) -> None:
    """Write each shard while the next one is computed, lest the device wait for the disk."""
    with ThreadPoolExecutor(1) as beside:
        writing: Future[None] | None = None
        for rows, embeddings in computed:
            if writing is not None:
                writing.result()
            writing = beside.submit(shards.write, rows.start, rows.stop, embeddings)
        if writing is not None:
            writing.result()


def _filled_up(encode: _Encode, batch_size: int, multiple: int, images: torch.Tensor) -> torch.Tensor:
    """The rows of some images, encoded with as many of the last one beside them as make the batch whole."""
    whole = min(batch_size, -(-len(images) // multiple) * multiple)
    if len(images) == whole:
        return encode(images)
    beside = images[-1:].expand(whole - len(images), *images.shape[1:])
    return encode(torch.cat([images, beside]))[: len(images)]


def _read_back(shards: ShardFolder, bounds: list[range], ids: Sequence[str]) -> Iterator[NDArray[np.float32]]:
    for rows in bounds:
        part = shards.read(rows.start, rows.stop)
        if part is None:
            raise EnvironmentFault(
                f"the finished rows {rows.start} to {rows.stop} cannot be read back",
                fix="run the same command again; check the disk if it happens twice",
            )
        check_embeddings(part, ids[rows.start : rows.stop], what="image")
        yield part


def _shards_of(
    source: ImageSource,
    encode: _Encode,
    shards: list[range],
    batch_size: int,
    ids: Sequence[str],
    on_rows: Callable[[int], object],
) -> Iterator[tuple[range, NDArray[np.float32]]]:
    """Compute shards one by one. A batch is fetched and checked while the next one runs on the device."""
    batches = [
        range(i, min(i + batch_size, s.stop)) for s in shards for i in range(s.start, s.stop, batch_size)
    ]
    ends = {shard.stop: shard for shard in shards}
    collected: list[NDArray[np.float32]] = []

    def collect(rows: range, embeddings: Download) -> Iterator[tuple[range, NDArray[np.float32]]]:
        batch = embeddings.wait().numpy()
        check_embeddings(batch, ids[rows.start : rows.stop], what="image")
        collected.append(batch)
        on_rows(len(rows))
        if rows.stop in ends:
            yield ends[rows.stop], np.concatenate(collected)
            collected.clear()

    pending: tuple[range, Download] | None = None
    with out_of_memory_explained("embed.batch_size"):
        for rows, images in zip(batches, source.batches(batches), strict=True):
            queued = Download(encode(images))
            if pending is not None:
                yield from collect(*pending)
            pending = rows, queued
        if pending is not None:
            yield from collect(*pending)
