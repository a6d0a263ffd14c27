"""Images embedded on a cluster, to the bytes of a run here.

A task is one part of the rows (`store/parts.py`). It runs the ordinary extraction over that part's shards and
writes the part, both into a folder that all nodes see; what is finished there is skipped, and equal tasks
write equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.backbone.params import EmbedParams
from clipcifar.core.errors import DataError, EnvironmentFault
from clipcifar.core.progress import progress
from clipcifar.embeddings import cluster, provenance
from clipcifar.embeddings.kept import Wanted
from clipcifar.embeddings.shards import ShardFolder
from clipcifar.embeddings.workers import Duty, backbone_of, duty_of
from clipcifar.store import container, parts
from clipcifar.store.container import fingerprint_of
from clipcifar.store.model import ModelDescription, embedding_dim
from clipcifar.store.parts import PART_KIND, PartFolder, Parts, part_name, write_part

if TYPE_CHECKING:  # torch, which who hands out tasks does without
    from clipcifar.backbone.preprocess import Preprocess
    from clipcifar.embeddings.sources import ImageSource


@dataclass(frozen=True)
class _Part:
    """Some rows, their names, what makes their images, and how their part is filed."""

    number: int
    rows: range
    ids: Sequence[str]
    images: Callable[[Preprocess, int], ImageSource]
    fingerprint: str
    embed: EmbedParams


def embed_images(
    file: Wanted, shards: ShardFolder, *, model: ModelDescription, weights: Path, embed: EmbedParams
) -> None:
    """Have all images of a file embedded by workers, and write it; a cluster is connected.

    Args:
        file: what is wanted.
        shards: its folder, which all nodes see; the caller holds its lock.
        model, weights, embed: as `compute.encode` has them.
    """
    rows_of, fingerprint = (
        parts.bounds(len(file.ids)),
        fingerprint_of(provenance.determining(file.attributes)),
    )
    storage: Any = file.attributes.get("storage", "float32")
    embed = replace(embed, storage=storage)
    digests: dict[int, str] = {}

    def finished() -> int:
        """Rows of whole parts, and of the shards of others."""
        whole = [rows_of[number] for number in digests]
        others = [rows for rows in shards.finished() if not any(rows.start in each for each in whole)]
        return sum(map(len, [*whole, *others]))

    with (
        duty_of(file.attributes, model, weights, embed, folder=shards.folder) as duty,
        progress(total=len(file.ids), initial=finished(), unit="images", what=file.what) as bar,
    ):
        tasks = (
            _Part(number, rows, file.ids[rows.start : rows.stop], file.images(rows), fingerprint, embed)
            for number, rows in enumerate(rows_of)
        )
        kind = duty.device[0]
        for number, digest in cluster.results(_embed_part, duty, tasks, embed, kind, bar, finished):
            digests[number] = digest
    in_order, dim = [digests[number] for number in range(len(rows_of))], embedding_dim(weights)
    made = Parts([len(rows) for rows in rows_of], in_order, dim if digests else 0)
    if file.gather is not None:
        file.gather(shards.folder, made, file.contents)
    else:
        folder = PartFolder(shards.folder.joinpath, made, check=lambda *_: None)
        file.write((folder.read(number) for number in range(len(folder))), file.contents)


def _embed_part(duty: Duty, part: _Part, cores: int) -> tuple[int, str]:
    """In a worker: the number of a part, and the content digest of its file."""
    assert duty.folder is not None  # where its shards and its part are
    shards = ShardFolder(duty.folder.parent, part.fingerprint, first=part.rows.start)
    path = shards.folder / part_name(part.number)
    if (digest := _digest_of(path, part)) is None:
        try:
            rows = _extracted(duty, part, shards, cores)
            digest = write_part(shards.folder, rows, number=part.number, storage=part.embed.storage)
        except EnvironmentFault:  # of a node that Ray thought dead the task goes on: it may remove the shards
            if (digest := _digest_of(path, part)) is None:
                raise
    shards.discard(part.rows)
    return part.number, digest


def _extracted(duty: Duty, part: _Part, shards: ShardFolder, cores: int) -> NDArray[np.float32]:
    """In a worker: the rows of a part, (n, D) float32."""
    from clipcifar.backbone import device
    from clipcifar.embeddings.extract import extract

    backbone, embed = backbone_of(duty, part.embed), part.embed
    blocks = extract(
        part.images(backbone.preprocess, cores if embed.workers is None else embed.workers),
        backbone.encode_images,
        ids=part.ids,
        batch_size=embed.batch_size,
        multiple=device.short_batch_multiple(backbone.device, embed.batch_size),
        shards=shards,
    )
    return np.concatenate(list(blocks))


def _digest_of(path: Path, part: _Part) -> str | None:
    """Of the file of a part, where an earlier task has written it."""
    with suppress(DataError):
        file = container.read(path, kind=PART_KIND)
        rows = file.arrays.get("embeddings", ())
        if (file.attributes.get("number"), len(rows)) == (part.number, len(part.ids)):
            return str(file.attributes["content_digest"])
    return None
