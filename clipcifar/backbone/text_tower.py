"""Rows of tokens to features, without the part of a row that the result does not depend on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from itertools import groupby, islice
from typing import Any, TypeVar

import open_clip
import torch
from open_clip.transformer import TextTransformer, Transformer, text_global_pool
from torch import nn

from clipcifar.backbone import blocks

TEXT_ROWS = 32  # rows of every batch of sentences; see `Backbone.encode_sentences`
_EARLIER_TOKENS = 4  # of "a photo of a cat" its start and "a photo of"; benchmarks/README.md has others
_KEPT_BYTES = 2**28  # of beginnings; a batch of them has 6 MB for ViT-B/32 in float32
_Item = TypeVar("_Item")


def in_batches(items: Iterable[_Item], *, key: Callable[[_Item], object]) -> Iterator[list[_Item]]:
    """At most `TEXT_ROWS` neighbours at a time that have one key."""
    for _, alike in groupby(items, key):
        while batch := list(islice(alike, TEXT_ROWS)):
            yield batch


def filled(batch: list[_Item]) -> list[_Item]:
    """`TEXT_ROWS` items: the last one repeated."""
    return batch + [batch[-1]] * (TEXT_ROWS - len(batch))


class TextTower(nn.Module):
    """The text side of a model, which takes shorter rows too where that is proven to change nothing."""

    def __init__(self, model: Any, context_length: int) -> None:
        super().__init__()
        self._model = model
        self._context_length = context_length
        self._causal = self._sees_no_later_token()
        self._in_parts = (
            self._causal
            and self._read_of(torch.zeros((1, context_length), dtype=torch.long)) is not None
            and self._has_plain_blocks()
        )

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

    def _read_of(self, tokens: torch.Tensor) -> torch.Tensor | None:
        """(S,) the position of each row whose vector is its result; None where it is not that of one.

        open_clip's own pooling is asked to pool the positions themselves.

        Args:
            tokens: (S, context) int64, whole rows.
        """
        part, prefix = self._part, "text_" if self._part is self._model else ""
        pool_type, eos_id = (getattr(part, f"{prefix}{name}") for name in ("pool_type", "eos_id"))
        positions = torch.arange(tokens.shape[1]).expand(tokens.shape)
        taken: torch.Tensor = text_global_pool(positions, tokens, pool_type, eos_token_id=eos_id)
        return taken if taken.shape == tokens.shape[:1] else None

    def _has_plain_blocks(self) -> bool:
        """Whether `blocks.block_of` computes what every block does, with a mask that is added as it is."""
        part = self._part
        plain = all(map(blocks.is_plain, part.transformer.resblocks)) and part.transformer.batch_first
        return plain and not getattr(part, "use_pad_mask", False)

    def lengths(self, tokens: torch.Tensor) -> list[int]:
        """How many tokens of each row its result depends on.

        The last of them is the one whose vector is read. Where ids are equal the first of them is, so that a
        cut row gives the same position.

        Args:
            tokens: (S, context) int64, whole rows.
        """
        read = self._read_of(tokens) if self._causal else None
        if read is None:
            return [tokens.shape[1]] * len(tokens)
        return [position + 1 for position in read.tolist()]

    def earlier(self, length: int) -> int:
        """How many tokens of cut rows of a length may be embedded beforehand, once for all that begin so."""
        return min(_EARLIER_TOKENS, length - 1) if self._in_parts else 0

    def beginnings_kept(self) -> int:
        """How many batches of beginnings may be kept: as many as `_KEPT_BYTES` hold."""
        if not self._in_parts:
            return 0
        row = self._part.positional_embedding[:_EARLIER_TOKENS].nbytes
        return int(max(1, _KEPT_BYTES // (TEXT_ROWS * 2 * len(self._part.transformer.resblocks) * row)))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, L) token ids to (B, D) features."""
        features: torch.Tensor = self._model.encode_text(tokens)
        return features

    @torch.inference_mode()
    def begin(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, P) first tokens to (layers, 2, B, heads, P, D / heads): keys and values, for later ones."""
        return torch.stack(self._at(tokens, 0, None)[1])

    @torch.inference_mode()
    def encode(self, tokens: torch.Tensor, begun: torch.Tensor | None = None) -> torch.Tensor:
        """(B, L) token ids to (B, D) features.

        Args:
            tokens: rows cut to what `lengths` gave for them; of the last position alone the result is read.
            begun: (layers, 2, B, heads, P, D / heads), what `begin` gave for the first P tokens of each row.
        """
        first = 0 if begun is None else begun.shape[4]
        return self._at(tokens[:, first:], first, begun)[0]

    def _at(
        self, tokens: torch.Tensor, first: int, begun: torch.Tensor | None
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """(B, L) token ids from a position on, to (B, D) features and every block's keys and values."""
        part, end = self._part, first + tokens.shape[1]
        narrowed = {}
        if (first, end) != (0, self._context_length):
            place = "_model" if part is self._model else "_model.text"
            narrowed = {
                f"{place}.positional_embedding": part.positional_embedding[first:end],
                f"{place}.attn_mask": part.attn_mask[first:end, :end],
            }
        kept: list[torch.Tensor] = []

        def block_of(block: Any, rows: torch.Tensor, attn_mask: torch.Tensor | None = None) -> torch.Tensor:
            last = block is all_blocks[-1]  # whose last position alone is read: `lengths` cut the row there
            given = None if begun is None else begun[len(kept)]
            out, own = blocks.block_of(block, rows, mask=attn_mask, earlier=given, only=-1 if last else None)
            kept.append(own)
            return torch.cat([rows[:, :-1], out], dim=1) if last else out

        all_blocks = part.transformer.resblocks if self._in_parts else []
        try:
            for block in all_blocks:
                block.forward = partial(block_of, block)
            features: torch.Tensor = torch.func.functional_call(self, narrowed, (tokens,), tie_weights=False)
        finally:
            for block in all_blocks:
                vars(block).pop("forward", None)
        return features, kept


class Beginnings:
    """What rows need of their first tokens, computed once for all rows that begin alike.

    Attention is causal, so nothing that follows changes it. Like sentences, beginnings are embedded
    `TEXT_ROWS` of one length at a time, and each alike whatever its neighbours.

    Args:
        beginnings: of all rows, best in the order in which `of` is asked for them: as many batches are kept
            as `_KEPT_BYTES` hold.
    """

    def __init__(self, tower: TextTower, beginnings: Iterable[tuple[int, ...]], device: torch.device) -> None:
        batches = list(in_batches(sorted(dict.fromkeys(beginnings), key=len), key=len))
        self._place = {ids: (i, j) for i, batch in enumerate(batches) for j, ids in enumerate(batch)}

        @lru_cache(tower.beginnings_kept())
        def begun(i: int) -> torch.Tensor:
            """Those of a batch, as `TextTower.begin` gives them."""
            return tower.begin(torch.tensor(filled(batches[i]), device=device))

        self._begun = begun

    def knows(self, beginnings: Iterable[tuple[int, ...]]) -> bool:
        """Whether `of` may be asked for all of these."""
        return self._place.keys() >= {*beginnings}

    def of(self, rows: list[tuple[int, ...]]) -> torch.Tensor | None:
        """(layers, 2, B, heads, P, D / heads) of B beginnings of P tokens; None where P is 0."""
        if not rows[0]:
            return None
        places = [self._place[ids] for ids in rows]
        return torch.stack([self._begun(i)[:, :, j] for i, j in places], dim=2)
