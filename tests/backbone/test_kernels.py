"""The replaced arithmetic against the modules it stands for."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clipcifar.backbone import kernels

CPU = torch.device("cpu")
CAUSAL = torch.full((5, 5), float("-inf")).triu(1)


def _pair(**options: object) -> tuple[nn.MultiheadAttention, nn.MultiheadAttention]:
    """The module as torch has it, and the same one with its attention replaced."""
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(12, 3, batch_first=True, **options).eval()  # type: ignore[arg-type]
    nn.init.normal_(theirs.in_proj_bias)
    ours = copy.deepcopy(theirs)
    kernels.replace_attention(nn.Sequential(ours))
    return theirs, ours


@pytest.mark.parametrize("mask", [None, CAUSAL, CAUSAL.bool()], ids=["none", "float", "bool"])
def test_attention_is_torchs(mask: torch.Tensor | None) -> None:
    theirs, ours = _pair()
    assert "forward" in vars(ours)
    rows = torch.randn(4, 5, 12)
    with torch.no_grad():
        expected, _ = theirs(rows, rows, rows, need_weights=False, attn_mask=mask)
        found, weights = ours(rows, rows, rows, need_weights=False, attn_mask=mask)
        unmasked, _ = theirs(rows, rows, rows, need_weights=False)
    assert weights is None
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    if mask is not None:  # negative control: the mask matters
        assert float((found - unmasked).abs().max()) > 1e-2


def test_what_is_not_plain_self_attention_is_left_to_torch() -> None:
    theirs, ours = _pair()
    rows, other = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    padding = torch.tensor([[False] * 6 + [True]] * 2)
    with torch.no_grad():
        for arguments in (
            {"key_padding_mask": padding, "need_weights": False},
            {"need_weights": True},
        ):
            for expected, found in zip(
                theirs(rows, other, other, **arguments), ours(rows, other, other, **arguments), strict=True
            ):
                assert (expected is None) == (found is None)
                if expected is not None:
                    torch.testing.assert_close(found, expected)
    train = ours.train()(rows, rows, rows, need_weights=False)[0]
    torch.testing.assert_close(train, theirs.train()(rows, rows, rows, need_weights=False)[0])


@pytest.mark.parametrize("option", [{"add_bias_kv": True}, {"add_zero_attn": True}, {"kdim": 6, "vdim": 6}])
def test_unusual_modules_keep_their_own_forward(option: dict[str, object]) -> None:
    assert "forward" not in vars(_pair(**option)[1])


def test_replacing_twice_is_replacing_once() -> None:
    _, ours = _pair()
    once = ours.forward
    kernels.replace_attention(nn.Sequential(ours))
    assert ours.forward is once


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """The dtypes of what was multiplied by oneDNN."""
    seen = []
    pointwise = torch.ops.mkldnn._linear_pointwise

    def spy(rows: torch.Tensor, *arguments: object) -> torch.Tensor:
        seen.append(rows.dtype)
        out: torch.Tensor = pointwise(rows, *arguments)
        return out

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", spy)
    return seen


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(9, 24), (3, 5, 24), (24,)])
def test_a_linear_layer_is_torchs_and_goes_through_onednn(
    shape: tuple[int, ...], bias: bool, onednn: list[torch.dtype]
) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(24, 7, bias=bias)
    rows, strided = torch.randn(shape), torch.randn(24, 9).T
    with torch.inference_mode():
        expected = layer(rows), layer(strided)
        assert not onednn
        with kernels.fast_on_cpu(CPU):
            found = layer(rows), layer(strided)
    assert onednn == [torch.float32] * 2
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_what_onednn_would_get_wrong_goes_torchs_way(onednn: list[torch.dtype]) -> None:
    torch.manual_seed(0)
    rows, weight, long_bias = torch.randn(3, 4), torch.randn(7, 4), torch.randn(21)
    cases: list[tuple[torch.Tensor, ...]] = [
        (rows, weight, long_bias[::3]),
        (rows, weight, torch.randn(1).expand(7)),
        (rows, torch.randn(4)),
        (rows.double(), weight.double(), long_bias[:7].double()),
        (rows.half(), weight.half()),
        (torch.randn(0, 4), weight),
    ]
    for case in cases:
        with torch.inference_mode():
            expected = F.linear(*case)
            with kernels.fast_on_cpu(CPU):
                found = F.linear(*case)
        assert torch.equal(found, expected)
    with kernels.fast_on_cpu(CPU):  # oneDNN's operator knows no gradients
        F.linear(rows, weight.requires_grad_()).sum().backward()
    assert weight.grad is not None
    with torch.inference_mode(), kernels.fast_on_cpu(torch.device("cuda")):
        F.linear(rows, weight)
    assert not onednn


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN has no bf16 here")
def test_low_precision_goes_through_onednn_where_it_has_kernels(
    onednn: list[torch.dtype], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer, rows = nn.Linear(24, 7), torch.randn(9, 24)
    exact = layer(rows).detach()
    layer, rows = layer.bfloat16(), rows.bfloat16()
    with torch.inference_mode(), kernels.fast_on_cpu(CPU):
        out = layer(rows)
        monkeypatch.setattr(kernels, "_knows_bf16", lambda: False)  # older processors
        torchs = layer(rows)
    assert onednn == [torch.bfloat16]
    for low in (out, torchs):
        assert low.dtype == torch.bfloat16
        torch.testing.assert_close(low.float(), exact, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("mask", [None, CAUSAL, CAUSAL.bfloat16(), CAUSAL == 0], ids=str)
@pytest.mark.parametrize("heads", [(), (3,)], ids=["one head", "three"])
@pytest.mark.parametrize("part", [0, 8, 100])
def test_attention_in_low_precision_is_that_of_float32_rounded_once(
    mask: torch.Tensor | None, heads: tuple[int, ...], part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    several = [(6 * torch.randn(19, *heads, 5, 16)).bfloat16() for _ in range(3)]
    monkeypatch.setattr(kernels, "_CACHED_NUMBERS", part * several[0][0].numel())
    exact = F.scaled_dot_product_attention(
        *(part.float() for part in several), attn_mask=_in(mask, torch.float32)
    )
    inner, at_once = F.scaled_dot_product_attention, []

    def seen(query: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        at_once.append(len(query))
        return inner(query, *others)

    with kernels.fast_on_cpu(CPU):
        ours = F.scaled_dot_product_attention(*several, attn_mask=mask)
    assert torch.equal(ours, exact.bfloat16())
    with monkeypatch.context() as inside:
        inside.setattr(F, "scaled_dot_product_attention", seen)
        assert torch.equal(kernels._attend(*several, mask), ours)
    assert at_once == {0: [1] * 19, 8: [8, 8, 3], 100: [19]}[part]
    if mask is None:  # negative control: torch's own rounds on its way
        theirs = F.scaled_dot_product_attention(*several)
        assert not torch.equal(theirs, exact.bfloat16())


def _in(mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    return mask.to(dtype) if mask is not None and mask.is_floating_point() else mask


def test_attention_in_float32_or_with_a_mask_a_sequence_is_torchs() -> None:
    torch.manual_seed(0)
    rows = torch.randn(11, 2, 5, 4)
    masks = torch.where(torch.rand(11, 1, 5, 5) < 0.3, -torch.inf, 0.0)
    masks[..., 0] = 0
    for dtype in (torch.float32, torch.bfloat16):
        part, mask = rows.to(dtype), masks.to(dtype)
        with kernels.fast_on_cpu(CPU):
            ours = F.scaled_dot_product_attention(part, part, part, mask)
        assert torch.equal(ours, F.scaled_dot_product_attention(part, part, part, mask))


def _layers() -> nn.Sequential:
    layers = nn.Sequential(
        nn.Linear(4, 3), nn.MultiheadAttention(6, 2), nn.Conv2d(3, 2, 2), nn.Embedding(5, 2)
    )
    nn.init.trunc_normal_(layers[0].weight, std=0.02)  # type: ignore[arg-type]
    nn.init.kaiming_normal_(tensor=layers[0].weight)  # type: ignore[arg-type]
    nn.init.ones_(layers[0].bias)  # type: ignore[arg-type]
    return layers


def test_a_model_about_to_be_loaded_draws_nothing() -> None:
    state = torch.get_rng_state()
    with kernels.Undrawn():
        layers = _layers()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(layers[0].bias, torch.ones(3))  # what is not random is still set
    _layers()  # negative control: outside they are drawn
    assert not torch.equal(torch.get_rng_state(), state)
