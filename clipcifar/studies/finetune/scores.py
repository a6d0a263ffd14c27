"""What fine-tuning hands on: the chosen model's scores on val and test by sample id, without labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError, made_by
from clipcifar.core.files import Attribute
from clipcifar.store import container
from clipcifar.store.fields import class_names_of

_KIND, _STUDY = "fine-tuned scores", "finetune"


@dataclass(frozen=True)
class FinetuneScores:
    """The scores of the chosen epoch.

    Attributes:
        val, test: (n, C) float32 logits.
        val_ids, test_ids: n sample ids each.
        attributes: which embeddings' images they are of, the parameters, and what val chose.
    """

    val: NDArray[np.float32]
    val_ids: list[str]
    test: NDArray[np.float32]
    test_ids: list[str]
    attributes: Mapping[str, Attribute]

    def write(self, path: Path) -> None:
        arrays = {
            "val/scores": self.val,
            "val/ids": container.encode_strings(self.val_ids),
            "test/scores": self.test,
            "test/ids": container.encode_strings(self.test_ids),
        }
        container.write(path, kind=_KIND, arrays=arrays, attributes=self.attributes)

    @classmethod
    def read(cls, path: Path) -> FinetuneScores:
        """Read and verify; DataError names what is wrong with the file."""
        with made_by(_STUDY):
            return cls._read(path)

    @classmethod
    def _read(cls, path: Path) -> FinetuneScores:
        file = container.read(path, kind=_KIND)
        try:
            found = cls(
                file.arrays["val/scores"],
                container.decode_strings(file.arrays["val/ids"]),
                file.arrays["test/scores"],
                container.decode_strings(file.arrays["test/ids"]),
                file.attributes,
            )
            for scores, ids in ((found.val, found.val_ids), (found.test, found.test_ids)):
                _check(scores, ids, num_classes=len(class_names_of(file.attributes)))
            return found
        except (KeyError, DataError) as error:
            raise DataError(
                f"not fine-tuned scores: {error}", where=str(path), fix="run `dvc repro`"
            ) from error


def _check(scores: NDArray[np.float32], ids: list[str], *, num_classes: int) -> None:
    if scores.dtype != np.float32 or scores.shape != (len(ids), num_classes) or not len(ids):
        raise DataError(f"expected float32 scores of {len(ids)} images, found {scores.dtype} {scores.shape}")
    if not np.isfinite(scores).all():
        raise DataError("a score is not finite")
    if len(set(ids)) != len(ids):
        raise DataError("a sample id occurs twice")


def positions(wanted: list[str], found: list[str], *, where: str) -> NDArray[np.int64]:
    """Where each wanted id stands among the found ones, (n,) int64.

    Raises:
        DataError: an id is missing.
    """
    rows = {sample_id: row for row, sample_id in enumerate(found)}
    missing = [sample_id for sample_id in wanted if sample_id not in rows]
    if missing:
        raise DataError(
            f"{len(missing)} images are not among them, {missing[0]!r} for one",
            where=where,
            fix=f"run `clipcifar study {_STUDY}`",
        )
    return np.array([rows[sample_id] for sample_id in wanted], dtype=np.int64)
