"""The `prompts` section of params.yaml, for those who need no more than the active set's name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PromptsParams:
    """The `prompts` section: the active set's name and all sets by name."""

    active: str
    sets: dict  # type: ignore[type-arg]  # checked by `expand_sets`
