"""What fine-tuning hands on: the chosen model's scores on val and test by sample id, without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import made_by
from clipcifar.core.files import Attribute
from clipcifar.store import container
from clipcifar.store.fields import class_names_of
from clipcifar.store.names import Names
from clipcifar.store.predictions import check_scores

STUDY, _KIND = "finetune", "fine-tuned scores"


@dataclass(frozen=True)
class FinetuneScores:
    """The scores of the chosen epoch.

    Attributes:
        val, test: (n, C) float32 logits.
        val_ids, test_ids: n sample ids each.
        attributes: which embeddings' images they are of, the parameters, and what val chose.
    """

    val: NDArray[np.float32]
    val_ids: Sequence[str]
    test: NDArray[np.float32]
    test_ids: Sequence[str]
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
    @made_by(STUDY)
    def read(cls, path: Path) -> FinetuneScores:
        """Read and verify; DataError names what is wrong with the file."""
        with container.reading(path, kind=_KIND, what=_KIND) as file:
            tuned = cls(
                file.arrays["val/scores"],
                Names.read(file.arrays["val/ids"]),
                file.arrays["test/scores"],
                Names.read(file.arrays["test/ids"]),
                file.attributes,
            )
            for scores, ids in ((tuned.val, tuned.val_ids), (tuned.test, tuned.test_ids)):
                check_scores(scores, ids, num_classes=len(class_names_of(file.attributes)))
            return tuned
