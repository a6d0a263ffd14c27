"""Random edits: three by day, some by night, many by `make soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.soak import Soak
from tests.support.workspace import Workspace

pytestmark = pytest.mark.pipeline


def _edit(workspace: Workspace, other_model: Path, scratch: Path, *, edits: int, seed: int) -> None:
    soak = Soak(workspace, ("data/demo/clip", str(other_model)), scratch, seed=seed)
    for number in range(edits):
        print(f"{number + 1:3d}/{edits} {soak.step()}", flush=True)
    print(soak.counts)
    assert min(soak.counts.values()) > 0  # every kind of end was met


def test_an_edit_its_reversal_and_a_broken_one_leave_what_params_yaml_alone_would_give(
    workspace: Workspace, tiny_clip: Path, tmp_path: Path
) -> None:
    _edit(workspace, tiny_clip, tmp_path / "from-scratch", edits=3, seed=17)  # which deals these three


@pytest.mark.nightly
def test_no_sequence_of_edits_leaves_a_result_that_params_yaml_alone_would_not_give(
    workspace: Workspace, tiny_clip: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    edits = pytestconfig.getoption("--edits")
    _edit(workspace, tiny_clip, tmp_path / "from-scratch", edits=edits, seed=13)
