"""What the commands are tried on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import make_project

METHODS = [
    *("zero_shot", "rank_prompts", "prompt_weighting", "gda"),
    *("linear_probe", "mlp_probe", "projection"),
]


def _headline(accuracy: float) -> dict[str, Any]:
    return {
        "accuracy": accuracy,
        "accuracy_ci95": {"low": accuracy - 0.01, "high": accuracy + 0.02},
        "balanced_accuracy": accuracy - 0.1,
        "ece": 0.05,
        "nll": 0.4,
        "n": 1000,
    }


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    folder = tmp_path / "metrics"
    (folder / "details").mkdir(parents=True)
    seeds = {"n": 3, "accuracy_mean": 0.811, "accuracy_std": 0.004}
    for i, method in enumerate(METHODS):
        accuracy = 0.7 + i / 20
        details = {
            **({"seeds": seeds} if i > 4 else {}),
            "max_per_class": 0,
            "per_class": {"cat": accuracy, "sea_lion*": 0.25},
        }
        (folder / f"{method}.json").write_text(json.dumps(_headline(accuracy)))
        (folder / "details" / f"{method}.json").write_text(json.dumps(details))
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that nothing was run in, and this process as if started in it."""
    monkeypatch.chdir(make_project(tmp_path))
    return tmp_path
