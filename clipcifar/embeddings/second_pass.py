"""Whether a row depends on its image alone, and so whether an image need be embedded again.

That is measured and not assumed of a tower, a device or a library: at the end of every extraction some
images go through the tower a second time, at other places of a batch and beside other images. Where all their
rows are the same bytes, the manifest keeps the digest of every image, and `known.py` finds rows by it. Before
kept rows are used beside others, some images of each place go through it again as well: they may be of
another processor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.backbone.params import EmbedParams
from clipcifar.core.counts import count_of
from clipcifar.embeddings.kept import Contents, Wanted
from clipcifar.embeddings.known import Known
from clipcifar.store.parts import PartFolder, Parts
from clipcifar.store.rows import Rows

_SAMPLE = 32  # images of a second pass, one batch at most; where rows depend on it, half of them show it


def sample(count: int, size: int) -> NDArray[np.int64]:
    """Up to so many of `count` rows for a second pass, (n,) int64: half from everywhere, half the last ones.

    They are in reverse order, so that their places and neighbours are others than in the first pass, and the
    last ones are from a batch that was filled up, if any was.
    """
    size = min(size, _SAMPLE)
    everywhere = np.linspace(0, count - 1, min(count, size - size // 2)).astype(np.int64)
    return np.union1d(everywhere, np.arange(max(0, count - size // 2), count))[::-1].copy()


def write(wanted: Wanted, known: Known | None, run: Callable[[Wanted], None], *, embed: EmbedParams) -> int:
    """Write wanted embeddings with as few images through the tower as there may be.

    Args:
        known: of `look_up`.
        run: computes embeddings and has them written.
        embed: how.

    Returns:
        How many images were embedded, besides the sample whose rows are compared.
    """
    count = len(wanted.ids)
    if known is not None:
        places = [np.flatnonzero(known.place == number) for number in range(len(known.kept))]
        some = np.concatenate([rows[sample(len(rows), embed.batch_size)] for rows in places])
        unknown = known.unknown
        gap = difference(known.at(some), _again(wanted, some, run, embed))
        if gap is None:
            all_images = count_of(count, "image")
            print(f"{len(unknown):,} of {all_images} to embed; the others are known", flush=True)
            if len(unknown):
                run(_some(wanted, unknown, lambda rows: write_known(wanted, known, rows)))
            else:
                write_known(wanted, known, iter(()))
            return len(unknown)
        print(
            f"all {count_of(count, 'image')} to embed: of {len(known.known):,} there are rows, but not those "
            f"that this machine gives, by up to {gap:.0e}",
            flush=True,
        )
    some = sample(count, embed.batch_size)

    def contents(made: Parts) -> Mapping[str, NDArray[np.uint8]]:
        parts = PartFolder(wanted.path.joinpath, made, check=lambda *_: None, as_stored=True)
        gap = difference(Rows(parts, np.arange(count))[some], _again(wanted, some, run, embed))
        if gap is None:
            return wanted.digests()
        print(
            f"rows of this model depend on their batch, by up to {gap:.0e}: where images change, all are "
            "embedded again",
            flush=True,
        )
        return {}

    run(replace(wanted, contents=contents) if count else wanted)
    return count


def write_known(wanted: Wanted, known: Known, embedded: Iterator[NDArray[np.float32]]) -> None:
    """Write wanted embeddings from rows that are known and, in order, those of the other images."""
    wanted.write(known.joined(embedded), lambda _: wanted.digests())


def _again(
    wanted: Wanted, images: NDArray[np.int64], run: Callable[[Wanted], None], embed: EmbedParams
) -> NDArray[np.float32]:
    """Rows of some images, embedded anew, as they would be stored."""
    blocks: list[NDArray[Any]] = []
    sampled = _some(wanted, images, blocks.extend)
    run(replace(sampled, what="embedding some images again"))
    return np.concatenate(blocks).astype(embed.storage).astype(np.float32)


def _some(
    wanted: Wanted, images: NDArray[np.int64], write: Callable[[Iterator[NDArray[np.float32]]], None]
) -> Wanted:
    """Embeddings of some of the images, of rows that nothing has rounded."""

    def handed(rows: Iterator[NDArray[np.float32]], _: Contents) -> None:
        write(rows)

    digest = hashlib.sha256(images.tobytes()).hexdigest()
    return replace(
        wanted,
        attributes={**wanted.attributes, "storage": "float32", "some_images": digest},
        ids=[wanted.ids[image] for image in images.tolist()],
        images=lambda rows: wanted.images(images[rows[0] : rows[-1] + 1]),
        write=handed,
        gather=None,
    )


def difference(first: NDArray[np.float32], second: NDArray[np.float32]) -> float | None:
    """How far rows that should be the same are apart at most; None where all their bytes are the same."""
    return None if first.tobytes() == second.tobytes() else float(np.abs(first - second).max())
