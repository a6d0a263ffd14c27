"""The blocks of open_clip's own transformer, computed only for the positions whose result is used.

An image's vector is that of its class token, a sentence's that of its last token: of the last block no
other is read. And where attention is causal, what sentences begin with can be computed once.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import nn

from clipcifar.backbone import kernels

# One or two queries are multiplied by 65 keys and more in an order that depends on where in memory they lie.
_FEWEST_QUERIES = 4


def is_plain(block: nn.Module) -> bool:
    """Whether `block_of` computes what this block of open_clip's does."""
    attention = getattr(block, "attn", None)
    return (
        type(block) is ResidualAttentionBlock
        and not hasattr(block, "ln_1_kv")
        and isinstance(attention, nn.MultiheadAttention)
        and kernels.is_joint(attention)
    )


def block_of(
    block: Any,
    rows: torch.Tensor,
    *,
    mask: torch.Tensor | None = None,
    earlier: torch.Tensor | None = None,
    only: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A residual block of open_clip's transformer, where the result of every position or of one is used.

    Args:
        rows: (B, L, D), the positions after the P earlier ones.
        mask: (L, P + L), added to the scores.
        earlier: (2, B, heads, P, D / heads), what the block gave for the P positions before.
        only: the one position whose result is used; keys and values are always those of all.

    Returns:
        (B, L, D), or (B, 1, D) of the one position; and (2, B, heads, L, D / heads) keys and values.
    """
    attention, (batch, _, width) = block.attn, rows.shape
    taken = slice(None) if only is None else slice(only, only + 1 or None)
    normed, weight, bias = block.ln_1(rows), attention.in_proj_weight, attention.in_proj_bias

    if only is None:
        joint = kernels.heads_of(F.linear(normed, weight, bias), attention)
        query, own = joint[0], joint[1:]
    else:
        parts = (None, None) if bias is None else (bias[:width], bias[width:])
        query = kernels.heads_of(F.linear(normed[:, taken], weight[:width], parts[0]), attention)[0]
        own = kernels.heads_of(F.linear(normed, weight[width:], parts[1]), attention)
    key, value = own if earlier is None else torch.cat([earlier, own], dim=3)
    mask = None if mask is None else mask[taken].to(rows.dtype)
    asked = query.shape[2]
    if asked < _FEWEST_QUERIES:
        repeated = [*range(asked), *[asked - 1] * (_FEWEST_QUERIES - asked)]
        query, mask = query[:, :, repeated], None if mask is None else mask[repeated]
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)[:, :, :asked]
    attended = attended.transpose(1, 2).reshape(batch, -1, width)
    out = rows[:, taken] + block.ls_1(attention.out_proj(attended))
    return out + block.ls_2(block.mlp(block.ln_2(out))), own


def take_class_token(model: Any) -> None:
    """Let the last block of an image tower answer for the class token alone, where no other is used.

    Only open_clip's own tower that takes this token's vector is changed.
    """
    tower: Any = getattr(model, "visual", None)
    if type(tower) is not VisionTransformer or tower.attn_pool is not None or tower.output_tokens:
        return
    block = tower.transformer.resblocks[-1]
    if tower.pool_type == "tok" and tower.transformer.batch_first and is_plain(block):
        block.forward = partial(_class_token, block)


def _class_token(block: Any, rows: torch.Tensor, attn_mask: torch.Tensor | None = None) -> torch.Tensor:
    """(B, L, D) to (B, 1, D)."""
    return block_of(block, rows, mask=attn_mask, only=0)[0]
