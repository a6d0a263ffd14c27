"""The `prompts` section of params.yaml, for those who need no more than the active set's name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from clipcifar.core.params import Range


@dataclass(frozen=True)
class PromptsParams:
    """The `prompts` section.

    Attributes:
        active: the name of the set that zero-shot and projection use.
        sets: all sets by name.
        max_sentences: a set of more is left out, unless it is the active one.
    """

    active: str
    sets: dict  # type: ignore[type-arg]  # checked by `expand_sets`
    max_sentences: Annotated[int, Range(1)] = 50_000
