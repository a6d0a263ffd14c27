from __future__ import annotations

import subprocess
import sys

import torch

from clipcifar.methods.trained.adamw import AdamW
from tests.support.import_closure import ROOT


def _trained(ours: bool, weight_decay: float = 0.1) -> list[torch.Tensor]:
    torch.manual_seed(0)
    layer, unused = torch.nn.Linear(5, 3), torch.nn.Linear(2, 2)
    parameters = [*layer.parameters(), *unused.parameters()]
    rows, wanted = torch.randn(16, 5), torch.randn(16, 3)
    optimiser = (
        AdamW(parameters, learning_rate=0.01, weight_decay=weight_decay)
        if ours
        else torch.optim.AdamW(parameters, lr=0.01, weight_decay=weight_decay, fused=True)
    )
    for _ in range(20):
        loss = ((layer(rows) - wanted) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return [parameter.detach() for parameter in parameters]


def test_twenty_steps_are_torchs_bit_by_bit() -> None:
    for found, expected in zip(_trained(True), _trained(False), strict=True):
        assert torch.equal(found, expected)
    assert not torch.equal(_trained(True)[0], _trained(True, weight_decay=0.5)[0])


def test_training_does_not_import_the_compiler() -> None:
    code = (
        "import sys, numpy as np, torch\n"
        "from clipcifar.methods.trained.mlp_probe import MLPProbe\n"
        "from clipcifar.methods.trained.training import Labelled, TrainingParams, train\n"
        "data = Labelled(torch.randn(40, 6), torch.arange(40) % 2)\n"
        "params = TrainingParams(4, 0.2, 0.01, 0.0, 8, 2, 2, (0,), 'cpu')\n"
        "build = lambda: MLPProbe(data.embeddings, num_classes=2, hidden=4, dropout=0.2)\n"
        "train(build, data, data, params=params, seed=0)\n"
        "print('torch._dynamo' in sys.modules, 'torch._inductor' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
