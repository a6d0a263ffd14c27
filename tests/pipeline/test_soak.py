"""A few random edits in the suite, many by `make soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.soak import Soak
from tests.support.workspace import Workspace

pytestmark = pytest.mark.pipeline


def test_no_sequence_of_edits_leaves_a_result_that_params_yaml_alone_would_not_give(
    workspace: Workspace, tiny_clip: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    edits = pytestconfig.getoption("--edits")
    soak = Soak(workspace, ("data/demo/clip", str(tiny_clip)), tmp_path / "from-scratch", seed=13)
    for number in range(edits):
        print(f"{number + 1:3d}/{edits} {soak.step()}", flush=True)
    print(soak.counts)
    assert min(soak.counts.values()) > 0  # every kind of end was met
