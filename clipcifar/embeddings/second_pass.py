"""Whether a row depends on its image alone, and so whether an image need be embedded again.

That is measured and not assumed of a tower, a device or a library: at the end of every extraction some
images go through the tower a second time, at other places of a batch and beside other images. Where all their
rows are the same bytes, the manifest keeps the digest of every image, and `known.py` finds rows by it. Before
kept rows are used, some of their images go through it again as well: they may be of another processor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from clipcifar.backbone.params import EmbedParams
from clipcifar.core.counts import count_of
from clipcifar.embeddings.kept import Wanted
from clipcifar.embeddings.known import Known

# Rows in order, (n, D) float32 at a time, of some images (None: of all), with what to say of it meanwhile.
Embedded = Callable[[NDArray[np.int64] | None, str], Iterator[NDArray[np.float32]]]
_SAMPLE = (
    32  # images of a second pass, one batch at most; where rows depend on it, about half of them show it
)


def sample(count: int, size: int) -> NDArray[np.int64]:
    """Up to so many of `count` rows for a second pass, (n,) int64: half from everywhere, half the last ones.

    They are in reverse order, so that their places and neighbours are others than in the first pass, and the
    last ones are from a batch that was filled up, if any was.
    """
    size = min(size, _SAMPLE)
    everywhere = np.linspace(0, count - 1, min(count, size - size // 2)).astype(np.int64)
    return np.union1d(everywhere, np.arange(max(0, count - size // 2), count))[::-1].copy()


def write(wanted: Wanted, known: Known | None, embedded: Embedded, *, embed: EmbedParams) -> int:
    """Write wanted embeddings with as few images through the tower as there may be.

    Args:
        known: of `look_up`.
        embedded: embeds some images, or all; told what to say of it.
        embed: how.

    Returns:
        How many images were embedded, besides the sample whose rows are compared.
    """
    count = len(wanted.ids)
    if known is not None:
        some = known.known[sample(len(known.known), embed.batch_size)]
        again = np.concatenate(list(embedded(some, "embedding known images again")))
        gap = difference(known.at(some), again.astype(embed.storage).astype(np.float32))
        unknown = known.unknown
        if gap is None:
            print(
                f"{len(unknown):,} of {count_of(count, 'image')} to embed; the others are known", flush=True
            )
            wanted.write(known.joined(embedded(unknown, "embedding images")), wanted.contents)
            return len(unknown)
        print(
            f"all {count_of(count, 'image')} to embed: of {len(known.known):,} there are rows, but not those "
            f"that this machine gives, by up to {gap:.0e}",
            flush=True,
        )
    if not count or not wanted.beside:
        wanted.write(embedded(None, "embedding images"), dict)
        return count
    some, rows = sample(count, embed.batch_size), dict[int, NDArray[np.float32]]()

    def contents() -> Mapping[str, NDArray[np.uint8]]:
        again = np.concatenate(list(embedded(some, "embedding some images again")))
        gap = difference(np.stack([rows[image] for image in some.tolist()]), again)
        if gap is None:
            return wanted.contents()
        print(
            f"rows of this model depend on their batch, by up to {gap:.0e}: where images change, all are "
            "embedded again",
            flush=True,
        )
        return {}

    wanted.write(_remembering(embedded(None, "embedding images"), some, rows), contents)
    return count


def _remembering(
    blocks: Iterator[NDArray[np.float32]], images: NDArray[np.int64], rows: dict[int, NDArray[np.float32]]
) -> Iterator[NDArray[np.float32]]:
    """The same blocks, while the rows of some images are kept."""
    start = 0
    for block in blocks:
        here = images[(images >= start) & (images < start + len(block))]
        rows.update((image, block[image - start].copy()) for image in here.tolist())
        yield block
        start += len(block)


def difference(first: NDArray[np.float32], second: NDArray[np.float32]) -> float | None:
    """How far rows that should be the same are apart at most; None where all their bytes are the same."""
    return None if first.tobytes() == second.tobytes() else float(np.abs(first - second).max())
