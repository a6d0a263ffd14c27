from __future__ import annotations

import pytest
import torch

from clipcifar.methods.trained.dropout import Dropout

ONES = torch.ones(400, 1001)  # not a multiple of four


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.95])
def test_the_share_that_is_dropped_is_p_and_the_mean_is_kept(p: float) -> None:
    torch.manual_seed(0)
    out = Dropout(p)(ONES)
    share = float((out == 0).float().mean())
    assert abs(share - p) < 5 * (p * (1 - p) / ONES.numel()) ** 0.5  # five standard errors
    kept = out[out != 0]
    assert (kept == kept[0]).all()
    assert float(kept[0]) == pytest.approx(1 / (1 - p), rel=3e-4)  # p in steps of 2 ** -16
    # Neighbours in one 64-bit draw know nothing of each other.
    zero = (out == 0).float()
    both = float((zero[:, 1:] * zero[:, :-1]).mean())
    assert both == pytest.approx(p * p, abs=5 * (p * p * (1 - p * p) / ONES.numel()) ** 0.5)


def test_evaluation_and_zero_leave_the_values_alone() -> None:
    assert Dropout(0.5).eval()(ONES) is ONES
    assert Dropout(0.0)(ONES) is ONES


def test_the_gradient_passes_where_the_value_passed_and_by_the_same_factor() -> None:
    torch.manual_seed(0)
    values = torch.randn(30, 7, requires_grad=True)
    out = Dropout(0.4)(values)
    upstream = torch.randn(30, 7)
    out.backward(upstream)
    factors = out.detach() / values.detach()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, upstream * factors)
    assert 0 < int((factors == 0).sum()) < factors.numel()


def test_a_seed_decides_what_is_dropped() -> None:
    outs = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        outs.append(Dropout(0.2)(ONES))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])
