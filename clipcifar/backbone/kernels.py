"""The backbone's own arithmetic, arranged so that a CPU reaches its matrix-product rate, and its start.

What is replaced gives the same sums in another order (differences of rounding).
Attention: `nn.MultiheadAttention` hands its products transposed views, which a CPU multiplies
matrix by matrix; and in low precision it takes longer there than in float32. Linear layers: oneDNN
instead of BLAS, whose packing of the weights costs much where a batch has few rows.
benchmarks/README.md has what each brings.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

_CACHED_NUMBERS = 320_000  # of queries, keys or values; eight images of ViT-B/32, or a batch of sentences


def replace_attention(model: nn.Module) -> None:
    """Let every plain self-attention of a model in evaluation mode work on contiguous rows.

    Other uses of `nn.MultiheadAttention` (cross-attention, returned weights, masks over keys) and
    other attention modules keep their own code.
    """
    for module in model.modules():
        if not isinstance(module, nn.MultiheadAttention) or "forward" in vars(module):
            continue
        if is_joint(module):
            # The instance's attribute comes before the class's; the module's state stays as it is.
            module.forward = partial(_attention, module, module.forward)  # type: ignore[method-assign]


def is_joint(attention: nn.MultiheadAttention) -> bool:
    """Whether one product gives its queries, keys and values, batches first, and nothing is added to them."""
    joint = attention.in_proj_weight is not None and attention.bias_k is None and not attention.add_zero_attn
    return joint and attention.batch_first


def heads_of(projected: torch.Tensor, attention: nn.MultiheadAttention) -> torch.Tensor:
    """(B, L, n D) side by side to (n, B, heads, L, D / heads)."""
    batch, length, _ = projected.shape
    return projected.view(batch, length, -1, attention.num_heads, attention.head_dim).permute(2, 0, 3, 1, 4)


def _attention(
    module: nn.MultiheadAttention,
    original: Callable[..., Any],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *args: Any,
    need_weights: bool = True,
    attn_mask: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(B, L, D) to (B, L, D), as `nn.MultiheadAttention.forward` returns it."""
    usual = query is key is value and query.dim() == 3 and (attn_mask is None or attn_mask.dim() == 2)
    if args or kwargs or need_weights or not usual or module.training:
        out: tuple[torch.Tensor, torch.Tensor | None] = original(
            query, key, value, *args, need_weights=need_weights, attn_mask=attn_mask, **kwargs
        )
        return out
    batch, length, dim = query.shape
    joint = F.linear(query, module.in_proj_weight, module.in_proj_bias)
    heads = heads_of(joint, module)
    if attn_mask is not None:  # the two interfaces disagree on what True means
        attn_mask = ~attn_mask if attn_mask.dtype == torch.bool else attn_mask.to(heads.dtype)
    attended = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], attn_mask=attn_mask)
    return module.out_proj(attended.transpose(1, 2).reshape(batch, length, dim)), None


class _FastOnCPU(TorchFunctionMode):
    """`F.linear` by oneDNN and attention in float32, all else untouched."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.linear:
            return _linear(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return _attend(*args, **kwargs)
        return func(*args, **kwargs)


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    *options: Any,
    **named: Any,
) -> torch.Tensor:
    """`F.scaled_dot_product_attention`, in low precision by float32 on a few sequences at a time.

    So both scores and their softmax are float32, and what is cast stays in the processor's cache.
    """
    several = attn_mask is not None and attn_mask.dim() > 2  # a mask for every sequence
    if query.dtype not in (torch.bfloat16, torch.float16) or query.dim() < 3 or several:
        return F.scaled_dot_product_attention(query, key, value, attn_mask, *options, **named)
    if attn_mask is not None and attn_mask.is_floating_point():
        attn_mask = attn_mask.float()
    shape = *query.transpose(-3, -2).shape[:-1], value.shape[-1]
    out = query.new_empty(shape).transpose(-3, -2)  # callers want heads side by side next
    at_once = max(1, _CACHED_NUMBERS // max(1, key[:1].numel()))
    parts = (torch.split(tensor, at_once) for tensor in (query, key, value, out))
    for asked, keys, values, target in zip(*parts, strict=True):
        heads = asked.float(), keys.float(), values.float()
        target.copy_(F.scaled_dot_product_attention(*heads, attn_mask, *options, **named))
    return out


def _linear(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    known = weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and _knows_bf16())
    plain = known and input.dtype == weight.dtype and input.numel() and weight.dim() == 2
    if bias is not None:  # oneDNN reads a bias as contiguous whether it is or not
        plain = plain and bias.dtype == weight.dtype and bias.is_contiguous()
    if plain and not torch.is_grad_enabled():
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
        return out
    return F.linear(input, weight, bias)


@lru_cache
def _knows_bf16() -> bool:
    known: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return known


def fast_on_cpu(device: torch.device) -> AbstractContextManager[object]:
    """Within it, a CPU's linear layers run through oneDNN where torch has it, and attention in float32."""
    there = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    there = there and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return _FastOnCPU() if device.type == "cpu" and there else nullcontext()


class Undrawn(TorchFunctionMode):
    """Within it, no parameter is drawn at random: for a model whose every parameter is loaded next.

    Drawing ViT-B/32's 151 million numbers takes as long as all the rest of its loading.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "").endswith(("uniform_", "normal_")):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
