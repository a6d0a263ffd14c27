"""The image tower with gradients: the same sums as `backbone/`, by torch's own layers.

`Backbone` is frozen and its arithmetic is arranged for inference on a CPU; its source belongs to the
fingerprint of every embedding. So the tower that is trained is made here, and text is left out.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from clipcifar.backbone import device as devices
from clipcifar.backbone.params import Precision
from clipcifar.backbone.preprocess import Preprocess, model_input
from clipcifar.backbone.towers import load_model
from clipcifar.core.errors import ConfigError


class ImageTower(nn.Module):
    """(B, 3, H, W) uint8 on the device -> (B, D) float32 unit rows.

    The tower stays in evaluation mode when it is trained: batch norm keeps the statistics that it
    was trained with, so that a row's gradient does not depend on the rows beside it, and what was
    random in pre-training (dropped patches, dropped layers) stays off, as it was for the embeddings.

    Args:
        visual: open_clip's image tower.
        precision: of the tower; what it returns is float32 in any case.
    """

    def __init__(self, visual: nn.Module, preprocess: Preprocess, *, precision: Precision) -> None:
        super().__init__()
        self.visual = visual.eval()
        self.preprocess = preprocess
        self._precision: Precision = precision

    def train(self, mode: bool = True) -> ImageTower:
        """Stay in evaluation mode."""
        super().train(False)
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            pixels = model_input(images, self.preprocess)
        with devices.autocast(images.device, self._precision, key="finetune.precision"):
            features = self.visual(pixels)
        if isinstance(features, tuple):  # CoCa hands out tokens too
            features = features[0]
        return F.normalize(features.float(), dim=-1)


def load_image_tower(folder: Path, device: torch.device, *, precision: Precision) -> ImageTower:
    """The image tower of the model in a folder of open_clip's format; errors as of `load_model`."""
    model, preprocess = load_model(folder, torch.device("cpu"), key="finetune.device")
    # The layout that convolutions are fastest in, by a third on a CPU; a transformer has but one.
    visual = model.visual.to(memory_format=torch.channels_last)
    return ImageTower(visual, preprocess, precision=precision).to(device)


def checkpoint_activations(tower: ImageTower) -> None:
    """Compute the blocks' activations a second time for the gradient instead of keeping them.

    Raises:
        ConfigError: this kind of tower does not offer it.
    """
    transformer = getattr(tower.visual, "transformer", None)
    if not hasattr(transformer, "grad_checkpointing"):
        raise ConfigError(
            "this image tower does not offer checkpointing, which is for transformers",
            where="params.yaml: finetune.checkpoint_activations",
            fix="set it to false and lower finetune.batch_size",
        )
    tower.visual.set_grad_checkpointing(True)  # type: ignore[operator]
