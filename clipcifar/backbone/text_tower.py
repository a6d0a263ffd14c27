"""Rows of tokens to features, without the part of a row that the result does not depend on."""

from __future__ import annotations

from typing import Any

import open_clip
import torch
from open_clip.transformer import TextTransformer, Transformer, text_global_pool
from torch import nn


class TextTower(nn.Module):
    """The text side of a model, which takes shorter rows too where that is proven to change nothing."""

    def __init__(self, model: Any, context_length: int) -> None:
        super().__init__()
        self._model = model
        self._context_length = context_length
        self._causal = self._sees_no_later_token()

    @property
    def _part(self) -> Any:
        """Where the text tower lies; open_clip's CLIP has it unpacked into itself."""
        return getattr(self._model, "text", self._model)

    def _sees_no_later_token(self) -> bool:
        """Whether no token can change what the tower makes of the tokens before it.

        In open_clip's own transformer only attention mixes positions, and it adds the mask to its scores:
        minus infinity at every later position makes their weights zero, exactly.
        """
        part, length = self._part, self._context_length
        known = isinstance(part, (open_clip.CLIP, TextTransformer)) and isinstance(
            part.transformer, Transformer
        )
        mask = getattr(part, "attn_mask", None)
        if not known or mask is None or mask.shape != (length, length) or not mask.is_floating_point():
            return False
        later = torch.ones_like(mask, dtype=torch.bool).triu(1)
        # A class embedding would be appended to the row, and read there.
        return getattr(part, "cls_emb", None) is None and bool((mask[later] == -torch.inf).all())

    def lengths(self, tokens: torch.Tensor) -> list[int]:
        """How many tokens of each row its result depends on.

        The last of them is the one whose vector open_clip's own pooling takes: it is asked to pool the
        positions themselves. Of equal ids it takes the first, so that a cut row gives the same position.

        Args:
            tokens: (S, context) int64, whole rows.
        """
        count, length = tokens.shape
        if self._causal:
            part, prefix = self._part, "text_" if self._part is self._model else ""
            pool_type, eos_id = (getattr(part, f"{prefix}{name}") for name in ("pool_type", "eos_id"))
            positions = torch.arange(length).expand(count, length)
            taken: torch.Tensor = text_global_pool(positions, tokens, pool_type, eos_token_id=eos_id)
            if taken.shape == (count,):  # else every position is
                return [position + 1 for position in taken.tolist()]
        return [length] * count

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, L) token ids to (B, D) features."""
        features: torch.Tensor = self._model.encode_text(tokens)
        return features

    @torch.inference_mode()
    def encode(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, L) token ids to (B, D) features; L is the context length or one that `lengths` gave."""
        part, length = self._part, tokens.shape[1]
        if length == self._context_length:
            return self.forward(tokens)
        place = "_model" if part is self._model else "_model.text"
        narrowed = {
            f"{place}.positional_embedding": part.positional_embedding[:length],
            f"{place}.attn_mask": part.attn_mask[:length, :length],
        }
        features: torch.Tensor = torch.func.functional_call(self, narrowed, (tokens,))
        return features
