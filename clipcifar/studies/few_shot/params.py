"""How to draw and what to try: the `few_shot` section of params.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from clipcifar.core.errors import ConfigError
from clipcifar.core.params import MAX_SEED, Range, check_distinct

_LISTS = (
    "shots",
    "seeds",
    "c_grid",
    "neighbours",
    "text_weights",
    "gda_weights",
    "sharpness",
    "cache_weights",
)


@dataclass(frozen=True)
class FewShotParams:
    """The `few_shot` section.

    Attributes:
        shots: images per class to learn from; all images come on top.
        seeds: one draw each, at least two.
        val_per_class: most val images per class that choose for a draw; None for all of val at every k.
        c_grid, max_iter: of the linear probes.
        text_weights: weights of the zero-shot logits beside the probe.
        sharpness, cache_weights: beta and alpha of Tip-Adapter.
        epochs, learning_rate, batch_size: of Tip-Adapter-F.
        finetuned_per_class: most keys per class that it learns; it learns them from all images.
        neighbours: how many nearest neighbours to ask, where there are so many.
        gda_weights: weights of GDA's discriminant beside zero-shot.
        clap_length: length of the text embeddings at which CLAP's penalty is measured.
    """

    shots: Annotated[tuple[int, ...], Range(1)]
    seeds: Annotated[tuple[int, ...], Range(0, MAX_SEED)]
    val_per_class: Annotated[int | None, Range(1)]
    c_grid: Annotated[tuple[float, ...], Range(1e-4, 1e8)]
    max_iter: Annotated[int, Range(1)]
    text_weights: Annotated[tuple[float, ...], Range(0, 100)]
    sharpness: Annotated[tuple[float, ...], Range(1e-3, 1e4)]
    cache_weights: Annotated[tuple[float, ...], Range(0, 1e6)]
    epochs: Annotated[int, Range(1)]
    learning_rate: Annotated[float, Range(1e-8, 10)]
    batch_size: Annotated[int, Range(1)]
    finetuned_per_class: Annotated[int, Range(1)]
    neighbours: Annotated[tuple[int, ...], Range(1, 10_000)] = (1, 2, 4, 8, 16, 32, 64)
    gda_weights: Annotated[tuple[float, ...], Range(0, 1e6)] = (0.01, 0.03, 0.1, 0.3, 1, 3, 10)
    clap_length: Annotated[float, Range(0, 1e4)] = 10

    def __post_init__(self) -> None:
        for name in _LISTS:
            check_distinct(getattr(self, name), f"few_shot.{name}")
        if len(self.seeds) < 2:
            raise ConfigError(
                "one draw says nothing of others", where="params.yaml: few_shot.seeds", fix="give two or more"
            )
        if not max(self.cache_weights) > 0:
            raise ConfigError(
                "without a weight above 0 the cache is never asked",
                where="params.yaml: few_shot.cache_weights",
            )
