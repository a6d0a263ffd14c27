"""Every study by a real DVC on embeddings in several parts: it says what it says of one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from clipcifar.project.studies import all_studies
from tests.support.close import close
from tests.support.workspace import Workspace

PARTS = Path("clipcifar/store/parts.py")
QUICK: dict[str, dict[str, Any]] = {
    "few_shot": {"shots": [2, 8], "seeds": [0, 1], "epochs": 3},
    "ensemble": {"steps": 5},
    "corruptions": {"names": ["fog"], "severities": [2, 5], "max_per_class": 10},
    "finetune": {"epochs": 1, "warmup_epochs": 0.2, "batch_size": 64, "unfrozen_blocks": 0, "device": "cpu"},
}
OF_TIME = {"seconds", "images_per_s"}  # which no two runs have in common


@pytest.mark.pipeline
@pytest.mark.nightly
def test_a_study_of_embeddings_in_parts_says_what_it_says_of_one(
    finished: Workspace, tmp_path: Path, tiny_clip: Path
) -> None:
    whole = finished.copy(tmp_path / "whole")
    other = {"name": f"local-dir:{tiny_clip}", "pretrained": None, "path": str(tiny_clip)}
    for section, quick in {**QUICK, "models": {"others": {"random": other}}}.items():
        whole.edit(lambda settings, section=section, quick=quick: settings[section].update(quick))
    divided = whole.copy(tmp_path / "divided")
    code = divided.read(str(PARTS)).decode()
    smaller = code.replace("PART_ROWS = 65_536", "PART_ROWS = 250")
    assert smaller != code
    (divided.folder / PARTS).write_text(smaller)
    shutil.rmtree(divided.folder / ".dvc/cache")  # where the part of before would be found
    divided.repro()
    assert len(list((divided.folder / "data/embeddings/images").glob("part-*.h5"))) == 5
    for study in all_studies(whole.folder):
        said = []
        for workspace in (whole, divided):
            workspace.start_study(study.name)
            out = workspace.folder / "data/studies" / study.name
            said.append({path.name: json.loads(path.read_text()) for path in sorted(out.glob("*.json"))})
        assert "metrics.json" in said[0], study.name
        assert close(said[1], said[0], besides=OF_TIME), study.name
