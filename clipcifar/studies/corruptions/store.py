"""The embeddings of one corruption: every test image of a choice at every severity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError, made_by
from clipcifar.core.files import Attribute
from clipcifar.store import container
from clipcifar.store.embeddings import SHARED_FIELDS, ImageEmbeddings
from clipcifar.store.fields import check_embeddings, check_ids
from clipcifar.store.names import Names

GENERATED = "generated"  # what corruptions are called that are not the published ones
KIND = "corrupted image embeddings"
STUDY = "corruptions"


@dataclass(frozen=True)
class Corrupted:
    """One corruption.

    Attributes:
        name: of the corruption.
        embeddings: (S, N, D) float32 unit rows.
        severities: the S severities.
        ids: N sample ids.
        examples: (S, H, W, 3) uint8, the first image at every severity, small.
        attributes: what determined the embeddings.
    """

    name: str
    embeddings: NDArray[np.float32]
    severities: list[int]
    ids: Sequence[str]
    examples: NDArray[np.uint8]
    attributes: Mapping[str, Attribute]

    @property
    def source(self) -> str:
        """What the images are called: published or generated."""
        return str(self.attributes["corruption_source"])


def write_corrupted(
    path: Path,
    embeddings: NDArray[np.float32],
    *,
    severities: tuple[int, ...],
    ids: Sequence[str],
    examples: NDArray[np.uint8],
    attributes: Mapping[str, Attribute],
) -> None:
    """Write S N rows, (S N, D) float32, the N images of the mildest severity first."""
    arrays: dict[str, NDArray[Any]] = {
        "embeddings": embeddings,
        "severities": np.array(severities, dtype=np.int64),
        "ids": container.encode_strings(ids),
        "examples": examples,
    }
    container.write(path, kind=KIND, arrays=arrays, attributes=attributes)


@made_by(STUDY)
def read_corrupted(path: Path, images: ImageEmbeddings) -> Corrupted:
    """Read and verify the embeddings of one corruption.

    Raises:
        DataError: the file is damaged, or is not of the images, weights and dataset of `images`.
    """
    with container.reading(path, kind=KIND, what="corrupted images") as file:
        container.require(file.attributes, texts=("corruption", "corruption_source"), numbers=())
        severities = file.arrays["severities"].tolist()
        ids = Names.read(file.arrays["ids"])
        flat, shown = file.arrays["embeddings"], file.arrays["examples"]
        check_ids(ids)
        check_embeddings(flat, [*ids] * len(severities), what="image")
        if shown.dtype != np.uint8 or shown.ndim != 4 or shown.shape[::3] != (len(severities), 3):
            raise DataError(f"examples {shown.dtype} {shown.shape} for {len(severities)} severities")
        corrupted = Corrupted(
            str(file.attributes["corruption"]),
            flat.reshape(len(severities), len(ids), -1),
            severities,
            ids,
            shown,
            file.attributes,
        )
    for field in (*SHARED_FIELDS, "dataset_digest", "precision"):
        if file.attributes.get(field) != images.attributes.get(field):
            raise DataError(
                f"the corrupted images and the clean ones do not belong together: they differ in {field}",
                where=str(path),
                fix="run `dvc repro`, which embeds again what is stale",
            )
    return corrupted
