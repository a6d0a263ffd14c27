"""The images of a split as they come, in arrays: no object is kept of any."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clipcifar.store.dataset import PreparedSplit
from clipcifar.store.members import Members, Shard
from clipcifar.store.names import Gathered, Names


class Part:
    """The images of a split; the class of each is known by a number, which becomes a label at the end."""

    def __init__(self) -> None:
        self.numbers, self._places = array("q"), array("q")
        self._ids, self._digests = Gathered(), Gathered()
        self._pixels: list[NDArray[np.uint8]] = []

    def add(
        self,
        number: int,
        sample_id: str,
        content: NDArray[np.uint8] | str,
        place: tuple[int, int, int] | None = None,
    ) -> None:
        """Add an image, as `Sample` in `datasets/source.py` has it."""
        self.numbers.append(number)
        self._places.extend(place or ())
        self._ids.append(sample_id.encode())
        if isinstance(content, str):
            self._digests.append(content.encode())
        else:
            self._pixels.append(content)

    def prepared(self, labels: NDArray[np.int64], shards: Sequence[Shard]) -> PreparedSplit:
        """All of them; `labels` are those of the classes by their numbers."""
        content = np.stack(self._pixels) if self._pixels else self._digests.array()
        members = Members.of(shards, self._places) if shards else None
        own = labels[np.frombuffer(self.numbers, dtype=np.int64)]
        return PreparedSplit(content, own, Names(self._ids.array()), members)
