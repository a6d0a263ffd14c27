"""The `ensemble` section of params.yaml; read also where no ensemble is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from clipcifar.core.params import Range


@dataclass(frozen=True)
class EnsembleParams:
    """The `ensemble` section: into how many steps the mixing coefficient goes from 0 to 1."""

    steps: Annotated[int, Range(1, 1000)]
