"""Images for training, in any order and as often as wanted, as uint8 batches on the device.

An array lies on the device as a whole (184 MB for CIFAR's 60,000 images); photographs are decoded
anew each time, a few batches ahead, so that memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from clipcifar.backbone import device as devices
from clipcifar.backbone.preprocess import Preprocess
from clipcifar.embeddings.sources import source_of
from clipcifar.store.dataset import PreparedSplit


class Pixels(Protocol):
    """The images of one official split."""

    def batches(self, rows: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        """For each (B,) int64 rows on the host their images, (B, 3, H, W) uint8 on the device."""
        ...


class ResidentPixels:
    """Images of one size, (N, H, W, 3) uint8, kept on the device."""

    def __init__(self, images: NDArray[np.uint8], device: torch.device) -> None:
        self._images = torch.from_numpy(images).to(device)

    def batches(self, rows: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        for batch in rows:
            yield self._images[batch.to(self._images.device)].permute(0, 3, 1, 2)


class StreamedPixels:
    """Image files, decoded and fitted to the model's input by worker processes; see `FolderSource`."""

    def __init__(
        self, split: PreparedSplit, root: Path, *, preprocess: Preprocess, workers: int, device: torch.device
    ) -> None:
        self._split, self._root = split, root
        self._preprocess, self._workers, self._device = preprocess, workers, device

    def batches(self, rows: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        wanted = self._split.take(torch.cat(list(rows)).numpy())  # a source hands out rows in their order
        source = source_of(wanted, self._root, preprocess=self._preprocess, workers=self._workers)
        ends = np.cumsum([len(batch) for batch in rows]).tolist()
        bounds = [range(end - len(batch), end) for end, batch in zip(ends, rows, strict=True)]
        for images in source.batches(bounds):
            yield devices.upload(images, self._device)


def of_split(
    split: PreparedSplit, *, root: Path, preprocess: Preprocess, workers: int, device: torch.device
) -> Pixels:
    """The images of an official split, from the prepared dataset or from its folder `root`."""
    if split.in_memory:
        return ResidentPixels(split.content, device)
    return StreamedPixels(split, root, preprocess=preprocess, workers=workers, device=device)
