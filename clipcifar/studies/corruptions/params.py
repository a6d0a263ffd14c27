"""Which corruptions to look at: the `corruptions` section of params.yaml."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from clipcifar.core.errors import ConfigError
from clipcifar.core.params import MAX_SEED, NO_PATH, Range, nearest


@dataclass(frozen=True)
class CorruptionParams:
    """The `corruptions` section.

    Attributes:
        names: of the corruptions; None for all that the source has.
        severities: of 1 to 5, the mildest first.
        path: CIFAR-10-C.tar or its folder; `params.NO_PATH` to generate.
        max_per_class: at most so many test images per class to generate corruptions of, or None for all.
        published_per_class: the same of the published arrays; their published means are over all.
        seed: of that choice, and of the random numbers of generated corruptions.
        naming: by corruption, templates that name it.
    """

    names: tuple[str, ...] | None
    severities: Annotated[tuple[int, ...], Range(1, 5)]
    path: str
    max_per_class: Annotated[int | None, Range(1, 10**9)]
    published_per_class: Annotated[int | None, Range(1, 10**9)]
    seed: Annotated[int, Range(0, MAX_SEED)]
    naming: dict  # type: ignore[type-arg]  # checked by `naming_prompts`

    def __post_init__(self) -> None:
        if list(self.severities) != sorted(set(self.severities)):
            raise ConfigError(
                f"the severities {list(self.severities)} are not ascending",
                where="params.yaml: corruptions.severities",
                fix="write each once, the mildest first",
            )
        if self.names is not None and len(set(self.names)) != len(self.names):
            raise ConfigError(
                "a corruption is named twice", where="params.yaml: corruptions.names", fix="keep one"
            )

    @property
    def published(self) -> Path | None:
        """Where the published arrays are; None where corruptions are generated."""
        return None if self.path == NO_PATH else Path(self.path)

    @property
    def most_per_class(self) -> int | None:
        """Test images per class at most, of the source that was asked for; None for all."""
        return self.max_per_class if self.published is None else self.published_per_class

    def generated_names(self, known: tuple[str, ...]) -> tuple[str, ...]:
        """The names asked for among those that can be generated; ConfigError for another."""
        for name in self.names or ():
            if name not in known:
                raise ConfigError(
                    f"the corruption {name!r} cannot be generated",
                    where="params.yaml: corruptions.names",
                    fix=offered(name, known),
                )
        return self.names or known


def offered(wrong: str, generated: Iterable[str], published: Iterable[str] = ()) -> str:
    """A fix line for a name that no corruption has: the nearest, all that can be generated, the others."""
    generated, published = list(generated), list(published)
    near = nearest(wrong, generated + published)
    others = [name for name in published if name not in generated]
    return (
        (f"did you mean {near}? " if near else "")
        + f"what can be generated: {', '.join(generated)}"
        + (f"; of published images alone: {', '.join(others)}" if others else "")
    )
