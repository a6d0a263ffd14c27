"""Models of a local folder, and copies that are a little different."""

from __future__ import annotations

import shutil
from pathlib import Path

import safetensors.torch
import torch

from clipcifar.store.model import WEIGHTS_FILE, ModelParams
from tests.support.import_closure import ROOT

DEMO = ROOT / "data" / "demo" / "clip"


def local(folder: Path) -> ModelParams:
    return ModelParams(f"local-dir:{folder}", None, str(folder), 0, False)


def shifted(source: Path, target: Path, *, seed: int) -> Path:
    """A copy of a model whose weights are a little different."""
    shutil.copytree(source, target)
    rng = torch.Generator().manual_seed(seed)
    state = safetensors.torch.load_file(source / WEIGHTS_FILE)
    for name, tensor in state.items():
        if name.startswith("visual.") and tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=rng)
            state[name] = (tensor.float() + 0.3 * tensor.float().std(unbiased=False) * noise).to(tensor.dtype)
    safetensors.torch.save_file(state, target / WEIGHTS_FILE)
    return target
