"""Blocks computed in part, against open_clip's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from open_clip.transformer import CustomResidualAttentionBlock, ResidualAttentionBlock, VisionTransformer
from torch import nn

from clipcifar.backbone import blocks, kernels

CAUSAL = torch.full((5, 5), float("-inf")).triu(1)


def _block(**options: Any) -> Any:
    torch.manual_seed(1)
    block = ResidualAttentionBlock(12, 3, **options).eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.4)
    return block


@pytest.mark.parametrize("options", [{}, {"ls_init_value": 0.1}], ids=str)
@torch.inference_mode()
def test_a_block_is_open_clips_whole_or_for_one_position_or_after_earlier_ones(
    options: dict[str, Any],
) -> None:
    block = _block(**options)
    assert blocks.is_plain(block)
    rows = torch.randn(4, 5, 12)
    for mask in (None, CAUSAL):
        whole = block(rows, attn_mask=mask)
        ours, own = blocks.block_of(block, rows, mask=mask)
        torch.testing.assert_close(ours, whole, atol=1e-5, rtol=1e-4)
        assert own.shape == (2, 4, 3, 5, 4)
        for position in (0, 3, -1):
            single = blocks.block_of(block, rows, mask=mask, only=position)[0]
            torch.testing.assert_close(single, whole[:, [position]], atol=1e-5, rtol=1e-4)
    _, earlier = blocks.block_of(block, rows[:, :2], mask=CAUSAL[:2, :2])
    rest = blocks.block_of(block, rows[:, 2:], mask=CAUSAL[2:], earlier=earlier)[0]
    torch.testing.assert_close(rest, whole[:, 2:], atol=1e-5, rtol=1e-4)
    last = blocks.block_of(block, rows[:, 2:], mask=CAUSAL[2:], earlier=earlier, only=-1)[0]
    torch.testing.assert_close(last, whole[:, -1:], atol=1e-5, rtol=1e-4)
    others = blocks.block_of(block, rows[:, 2:], mask=CAUSAL[2:], earlier=earlier.flip(1), only=-1)[0]
    assert float((others - last).abs().max()) > 1e-2  # negative control: the earlier ones matter


def test_a_block_that_does_more_is_not_plain() -> None:
    assert not blocks.is_plain(_block(is_cross_attention=True))
    assert not blocks.is_plain(CustomResidualAttentionBlock(12, 3))
    assert not blocks.is_plain(_block(batch_first=False))


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({}, True),
        ({"final_ln_after_pool": True}, True),
        ({"pool_type": "avg"}, False),
        ({"attentional_pool": True, "attn_pooler_heads": 3}, False),
        ({"output_tokens": True}, False),
        ({"qk_norm": True}, False),
    ],
    ids=str,
)
@torch.inference_mode()
def test_the_last_block_answers_for_the_class_token_where_no_other_is_read(
    options: dict[str, Any], changed: bool
) -> None:
    torch.manual_seed(0)
    tower = VisionTransformer(16, 8, 12, 3, 3, 4.0, output_dim=6, **options).eval()
    nn.init.normal_(tower.class_embedding)
    nn.init.normal_(tower.positional_embedding)
    model = nn.Module()
    model.visual = tower
    images = torch.randn(3, 3, 16, 16)
    expected = tower(images)
    blocks.take_class_token(model)
    assert ("forward" in vars(tower.transformer.resblocks[-1])) == changed
    torch.testing.assert_close(tower(images), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.inference_mode()
def test_one_positions_bytes_do_not_depend_on_the_batch_or_on_threads(dtype: torch.dtype) -> None:
    """Long rows: with a single query torch's own attention fails this."""
    torch.manual_seed(0)
    block = ResidualAttentionBlock(128, 2).eval().to(dtype)
    rows = torch.randn(64, 197, 128).to(dtype)

    def first(batch: int) -> torch.Tensor:
        with kernels.fast_on_cpu(torch.device("cpu")):
            return blocks.block_of(block, rows[:batch], only=0)[0]

    threads, whole = torch.get_num_threads(), first(64)
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for batch in (8, 16, 24, 40):
                assert torch.equal(first(batch), whole[:batch])
    finally:
        torch.set_num_threads(threads)
