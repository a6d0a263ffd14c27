"""How to train the image tower: the `finetune` section of params.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from clipcifar.backbone.params import DeviceName, Precision
from clipcifar.core.counts import count_of
from clipcifar.core.errors import ConfigError
from clipcifar.core.params import MAX_SEED, Range

Crop = Literal["none", "pad", "resized"]
Flip = Literal["none", "horizontal"]


@dataclass(frozen=True)
class FinetuneParams:
    """The `finetune` section.

    Attributes:
        unfrozen_blocks: how many of the tower's last blocks are trained, with what follows them; None for
            the whole tower, 0 for the head alone.
        epochs: at most, and the length of the learning-rate schedule.
        patience: epochs without improvement on val.
        learning_rate: of the head and of what follows the last block.
        layer_decay: factor on the rate from each block to the one before it.
        warmup_epochs: of linear warm-up, within `epochs`.
        weight_decay: of matrices and filters; not of biases and norms.
        dropout: of the head's hidden layer.
        batch_size: images per pass forward and backward.
        accumulate: passes per step of the optimiser.
        crop: "pad" shifts by up to an eighth of the side, "resized" zooms into a part.
        smallest_crop: that part's smallest share of the area.
        flip: "horizontal" mirrors every other image, "none" is for digits and letters.
        checkpoint_activations: compute activations twice instead of keeping them, to save memory.
        seed: of the order of images, their augmentation and the dropout.
    """

    unfrozen_blocks: Annotated[int | None, Range(0)]
    epochs: Annotated[int, Range(1, 9_999)]
    patience: Annotated[int, Range(1)]
    learning_rate: Annotated[float, Range(1e-9, 10)]
    layer_decay: Annotated[float, Range(0.01, 1)]
    warmup_epochs: Annotated[float, Range(0)]
    weight_decay: Annotated[float, Range(0, 100)]
    dropout: Annotated[float, Range(0, 0.95)]
    batch_size: Annotated[int, Range(1)]
    accumulate: Annotated[int, Range(1)]
    crop: Crop
    smallest_crop: Annotated[float, Range(0.05, 1)]
    flip: Flip
    checkpoint_activations: bool
    seed: Annotated[int, Range(0, MAX_SEED)]
    precision: Precision
    device: DeviceName

    def __post_init__(self) -> None:
        if self.warmup_epochs > self.epochs:
            raise ConfigError(
                f"a warm-up of {self.warmup_epochs:g} does not fit into {count_of(self.epochs, 'epoch')}",
                where="params.yaml: finetune.warmup_epochs",
                fix="lower it, or raise finetune.epochs",
            )
