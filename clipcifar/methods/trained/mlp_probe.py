"""MLP probe: one hidden layer on frozen image embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from clipcifar.methods.trained.dropout import Dropout
from clipcifar.methods.trained.training import load_arrays


class MLPProbe(nn.Module):
    """Standardise, hidden layer with GELU and dropout, logits: (N, D) -> (N, C).

    Unit vectors have components of about D ** -0.5 around a common mean, too small for the default
    initialisation; so inputs are standardised with the statistics of the train images.

    Args:
        train_embeddings: (N, D) float32, for the statistics only.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(
        self, train_embeddings: torch.Tensor, *, num_classes: int, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        dim = train_embeddings.shape[1]
        self.register_buffer("mean", train_embeddings.mean(dim=0))
        self.register_buffer("deviation", train_embeddings.std(dim=0).clamp_min(1e-6))
        self.layers = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), Dropout(dropout), nn.Linear(hidden, num_classes)
        )
        self.to(train_embeddings.device)

    @classmethod
    def rebuilt(
        cls, arrays: Mapping[str, NDArray[Any]], *, dim: int, num_classes: int, hidden: int, dropout: float
    ) -> MLPProbe:
        """The head of a file's arrays, its statistics among them; see `load_arrays`."""
        empty = cls(torch.zeros((2, dim)), num_classes=num_classes, hidden=hidden, dropout=dropout)
        return load_arrays(empty, arrays)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        standardised = torch.addcmul(-self.mean / self.deviation, embeddings, 1 / self.deviation)
        logits: torch.Tensor = self.layers(standardised)
        return logits
