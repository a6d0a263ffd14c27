from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import explored


@pytest.fixture
def project(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A finished project of one's own; sentences that were embedded for one test are known to the others."""
    monkeypatch.setenv("CLIPCIFAR_CACHE", str(explored.shared(tmp_path_factory) / explored.CACHE))
    return explored.copied(tmp_path_factory, tmp_path / "w")
