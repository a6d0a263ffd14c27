"""Projection heads on both sides: images and classes move into one learned space.

Each side is a residual head, x + MLP(x), whose last layer starts at zero; so epoch 0 is the
zero-shot classifier, and training can only start from there. The form follows CLIP-Adapter
(Gao et al. 2021, https://arxiv.org/abs/2110.04544), with heads on both sides.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from clipcifar.methods.trained.dropout import Dropout


class ResidualHead(nn.Module):
    """(N, D) unit rows -> (N, D) unit rows, the identity at first."""

    def __init__(self, dim: int, *, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), Dropout(dropout), nn.Linear(hidden, dim)
        )
        last = self.layers[-1]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self._scale = math.sqrt(dim)  # gives the components of a unit vector a deviation of about one

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        return F.normalize(embeddings + self.layers(embeddings * self._scale) / self._scale, dim=-1)


class Projection(nn.Module):
    """Cosine logits with a learned temperature: (N, D) image embeddings -> (N, C).

    Args:
        class_weights: (C, D) float32 unit rows, the zero-shot classifier.
        logit_scale: the backbone's factor on cosine similarities, where the temperature starts.
    """

    class_weights: torch.Tensor

    def __init__(
        self, class_weights: torch.Tensor, *, logit_scale: float, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        dim = class_weights.shape[1]
        self.register_buffer("class_weights", class_weights)
        self.image_head = ResidualHead(dim, hidden=hidden, dropout=dropout)
        self.text_head = ResidualHead(dim, hidden=hidden, dropout=dropout)
        self.log_scale = nn.Parameter(torch.tensor(math.log(logit_scale)))
        self.to(class_weights.device)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        images, classes = self.image_head(embeddings), self.text_head(self.class_weights)
        logits: torch.Tensor = self.log_scale.exp() * (images @ classes.T)
        return logits
