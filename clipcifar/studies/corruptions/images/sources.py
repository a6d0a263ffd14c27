"""The test images under one corruption, severity after severity: where the extraction gets their pixels.

Of N images and S severities there are S N rows, the mildest severity first. An image is corrupted
when its turn comes, so that no more of them are in memory than a few batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from clipcifar.backbone.preprocess import Preprocess
from clipcifar.core.errors import ClipcifarError
from clipcifar.embeddings.sources import ImageSource, WorkerSource, fitted, read_photograph
from clipcifar.store.dataset import PreparedSplit
from clipcifar.studies.corruptions.images.generated import corrupt

_THUMBNAIL = 96  # pixels of the longer side of an example


class CorruptedSource(ImageSource, Protocol):
    """Images to extract, which can also be looked at."""

    def pixels(self, row: int) -> NDArray[np.uint8]:
        """One corrupted image, (H, W, 3) uint8."""
        ...


@dataclass(frozen=True)
class Originals:
    """The N uncorrupted images.

    Attributes:
        split: pixels, or the digests of image files.
        root: the folder that those files are in.
        preprocess: what files are fitted to after they are corrupted; arrays of one size are left.
    """

    split: PreparedSplit
    root: Path
    preprocess: Preprocess

    def read(self, i: int) -> NDArray[np.uint8]:
        """One image at its own size, (H, W, 3) uint8."""
        if self.split.in_memory:
            return np.asarray(self.split.content[i])
        return read_photograph(self.split, self.root, i)


@dataclass(frozen=True)
class _Generated:
    originals: Originals
    name: str
    severities: tuple[int, ...]
    seed: int

    def __len__(self) -> int:
        return len(self.severities) * len(self.originals.split.ids)

    def corrupted(self, row: int) -> NDArray[np.uint8]:
        ids = self.originals.split.ids
        step, i = divmod(row, len(ids))
        severity, sample_id = self.severities[step], ids[i]
        return corrupt(self.originals.read(i), self.name, severity, seed=self.seed, sample_id=sample_id)

    def __getitem__(self, row: int) -> torch.Tensor | ClipcifarError:
        try:
            pixels = self.corrupted(row)
        except ClipcifarError as error:
            return error
        if self.originals.split.in_memory:
            return torch.from_numpy(pixels.copy()).permute(2, 0, 1)
        return fitted(pixels, self.originals.preprocess)


class GeneratedSource(WorkerSource):
    """Images corrupted here, by worker processes ahead of the model.

    Args:
        originals: the N images.
        name: a key of `corruptions.CORRUPTIONS`.
        severities: S of 1 to 5.
        seed: of their random numbers.
        workers: number of processes; 0 works in this one.
    """

    def __init__(
        self, originals: Originals, *, name: str, severities: tuple[int, ...], seed: int, workers: int
    ) -> None:
        self._made = _Generated(originals, name, severities, seed)
        super().__init__(self._made, workers=workers)

    def pixels(self, row: int) -> NDArray[np.uint8]:
        """One corrupted image, (H, W, 3) uint8."""
        return self._made.corrupted(row)


class PublishedSource:
    """Images of a published array, which holds five severities of all official test images.

    Args:
        images: (5 M, H, W, 3) uint8, mapped from disk.
        rows: (N,) positions of the wanted among the M images.
        severities: S of 1 to 5.
    """

    def __init__(
        self, images: NDArray[np.uint8], rows: NDArray[np.int64], *, severities: tuple[int, ...]
    ) -> None:
        per_severity = len(images) // 5
        self._images = images
        self._rows = np.concatenate([(severity - 1) * per_severity + rows for severity in severities])

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self, rows: Sequence[range]) -> Iterator[torch.Tensor]:
        for batch in rows:
            chosen = np.asarray(self._images[self._rows[batch.start : batch.stop]])
            yield torch.from_numpy(chosen).permute(0, 3, 1, 2)

    def pixels(self, row: int) -> NDArray[np.uint8]:
        """One corrupted image, (H, W, 3) uint8."""
        return np.array(self._images[self._rows[row]])


def examples(source: CorruptedSource, num_severities: int) -> NDArray[np.uint8]:
    """The first image at every severity, small: (S, H, W, 3) uint8."""
    per_severity = len(source) // num_severities
    pictures = []
    for step in range(num_severities):
        picture = Image.fromarray(source.pixels(step * per_severity))
        picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
        pictures.append(np.asarray(picture))
    return np.stack(pictures)
