"""The `near_duplicates` section of params.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from clipcifar.core.params import Range


@dataclass(frozen=True)
class NearDuplicatesParams:
    """The `near_duplicates` section: the cosine from which a pair counts, and the pairs on the page."""

    threshold: Annotated[float, Range(-1, 1)]
    shown: Annotated[int, Range(1, 200)]
