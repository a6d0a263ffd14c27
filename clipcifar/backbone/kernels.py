"""The backbone's own arithmetic, arranged so that a CPU reaches its matrix-product rate, and its start.

Two things are replaced, each by the same sum in another order (differences of float32 rounding).
Attention: `nn.MultiheadAttention` hands its products transposed views, which a CPU multiplies
matrix by matrix. Linear layers: oneDNN instead of BLAS, whose packing of the weights costs much
where a batch has few rows. benchmarks/README.md has what each brings.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode


def replace_attention(model: nn.Module) -> None:
    """Let every plain self-attention of a model in evaluation mode work on contiguous rows.

    Other uses of `nn.MultiheadAttention` (cross-attention, returned weights, masks over keys) and
    other attention modules keep their own code.
    """
    for module in model.modules():
        if not isinstance(module, nn.MultiheadAttention) or "forward" in vars(module):
            continue
        joint = module.in_proj_weight is not None and module.bias_k is None and not module.add_zero_attn
        if joint and module.batch_first:
            # The instance's attribute comes before the class's; the module's state stays as it is.
            module.forward = partial(_attention, module, module.forward)  # type: ignore[method-assign]


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
    heads = joint.view(batch, length, 3, module.num_heads, dim // module.num_heads).permute(2, 0, 3, 1, 4)
    if attn_mask is not None:  # the two interfaces disagree on what True means
        attn_mask = ~attn_mask if attn_mask.dtype == torch.bool else attn_mask.to(heads.dtype)
    attended = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], attn_mask=attn_mask)
    return module.out_proj(attended.transpose(1, 2).reshape(batch, length, dim)), None


class _OneDNNLinear(TorchFunctionMode):
    """`F.linear` in float32 by oneDNN, all else untouched."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.linear:
            return _linear(*args, **kwargs)
        return func(*args, **kwargs)


def _linear(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    plain = input.dtype == weight.dtype == torch.float32 and input.numel() and weight.dim() == 2
    if bias is not None:  # oneDNN reads a bias as contiguous whether it is or not
        plain = plain and bias.dtype == torch.float32 and bias.is_contiguous()
    if plain and not torch.is_grad_enabled():
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
        return out
    return F.linear(input, weight, bias)


def fast_linear(device: torch.device) -> AbstractContextManager[object]:
    """Within it, linear layers on a CPU run through oneDNN where this torch has it."""
    there = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    there = there and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return _OneDNNLinear() if device.type == "cpu" and there else nullcontext()


class Undrawn(TorchFunctionMode):
    """Within it, no parameter is drawn at random: for a model whose every parameter is loaded next.

    Drawing ViT-B/32's 151 million numbers takes as long as all the rest of its loading.

    Args:
        mapped: whether a parameter becomes the tensor that it is loaded from, instead of a copy: mapped from
            a file, it is read when it is used. Where sentences are wanted the image tower never is; images
            would take a hundredth longer from a file's small pages.
    """

    def __init__(self, *, mapped: bool = False) -> None:
        super().__init__()
        self._mapped = mapped

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "").endswith(("uniform_", "normal_")):
            return args[0] if args else kwargs["tensor"]
        if self._mapped and func is torch.Tensor.copy_ and len(args) == 2 and _may_become(*args):
            return args[0].set_(args[1])
        return func(*args, **kwargs)


def _may_become(parameter: torch.Tensor, loaded: torch.Tensor) -> bool:
    """Whether the first is a parameter, and the second of the same kind."""
    kinds = [(t.dtype, t.device, t.shape, t.stride()) for t in (parameter, loaded)]
    return kinds[0] == kinds[1] and isinstance(parameter, nn.Parameter)
