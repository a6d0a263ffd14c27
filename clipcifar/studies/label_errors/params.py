"""The `label_errors` section of params.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from clipcifar.core.params import MAX_SEED, Range


@dataclass(frozen=True)
class LabelErrorsParams:
    """The `label_errors` section.

    Attributes:
        folds: of the cross-validated probe on train.
        seed: of the folds, and of the labels that are flipped.
        planted: share of train labels that is flipped on purpose, to see how many are found.
        shown: pictures of either split on the page.
    """

    folds: Annotated[int, Range(2, 100)]
    seed: Annotated[int, Range(0, MAX_SEED)]
    planted: Annotated[float, Range(0.0001, 0.5)]
    shown: Annotated[int, Range(1, 200)]
