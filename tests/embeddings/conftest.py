"""The miniature CLIP as a project has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipcifar.store.model import ModelDescription, ModelParams
from clipcifar.weights import resolve
from clipcifar.weights.describe import describe


@pytest.fixture(scope="module")
def model(tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelDescription, Path]:
    weights = tmp_path_factory.mktemp("model") / "weights"
    asked = ModelParams(f"local-dir:{tiny_clip}", None, str(tiny_clip), 0, False)
    return describe(asked, resolve.fetch_model(asked, weights), weights), weights
