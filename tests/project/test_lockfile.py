from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from clipcifar.core import params
from clipcifar.project.lockfile import changed_keys
from tests.support.import_closure import ROOT


def lay(folder: Path, recorded: dict[str, Any], changes: dict[str, Any] | None = None) -> list[str]:
    """The keys said to have changed, where a stage ran with `recorded` and params.yaml has `changes`."""
    settings = params.load(ROOT / "params.yaml")
    for section, values in (changes or {}).items():
        settings[section].update(values)
    (folder / "params.yaml").write_text(yaml.safe_dump(settings))
    stages = {"other": {"cmd": "x"}, "stage": {"params": {"params.yaml": recorded}}}
    (folder / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    return changed_keys(folder)


def test_equal_values_are_not_named_whatever_their_layout(tmp_path: Path) -> None:
    settings = params.load(ROOT / "params.yaml")
    recorded = {
        "model": dict(reversed(settings["model"].items())),
        "prompts.active": "photo",
        "split.seed": 0,
    }
    assert lay(tmp_path, recorded) == []
    assert lay(tmp_path, {"mlp_probe": settings["mlp_probe"]}) == []


def test_the_key_that_differs_is_named_as_deep_as_it_lies(tmp_path: Path) -> None:
    settings = params.load(ROOT / "params.yaml")
    recorded = {"prompts": settings["prompts"], "prompts.active": "photo", "split": settings["split"]}
    assert lay(tmp_path, recorded, {"prompts": {"active": "wide"}}) == ["prompts.active"]
    assert lay(tmp_path, recorded, {"split": {"seed": 1, "val_fraction": 0.2}}) == [
        "split.seed",
        "split.val_fraction",
    ]
    sets = settings["prompts"]["sets"]
    assert lay(tmp_path, recorded, {"prompts": {"sets": {**sets, "new": sets["photo"]}}}) == [
        "prompts.sets.new"
    ]
    without = {name: values for name, values in sets.items() if name != "wide"}
    assert lay(tmp_path, recorded, {"prompts": {"sets": without}}) == ["prompts.sets.wide"]
    assert lay(tmp_path, {"no.such.key": 3}) == ["no.such.key"]


@pytest.mark.parametrize("text", [None, "", "[]", "stages: 3", "stages: {a: 3}", "{", "\x00"])
def test_without_a_sound_lock_file_nothing_is_said(tmp_path: Path, text: str | None) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    if text is not None:
        (tmp_path / "dvc.lock").write_text(text)
    assert changed_keys(tmp_path) == []
