"""A set whose sentences lie in a file, through a real DVC: run, edited, and told as stale."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipcifar.project import freshness
from tests.support import command_line
from tests.support.workspace import Workspace

pytestmark = pytest.mark.pipeline
OWN = {"template_mode": "per_class", "dataset": "digits", "sentences_file": "own.json"}
TEXTS = "data/embeddings/texts"


def write(at: Workspace, template: str) -> None:
    names = json.loads(at.read("data/classes.json"))["class_names"]
    sentences = {name: [template.format(name), template.format(name), "a digit."] for name in names}
    (at.folder / "data" / "sentences" / "own.json").write_text(json.dumps(sentences))


def test_a_set_of_a_file_runs_and_an_edit_of_the_file_stales_it_and_no_other_set(
    at: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(Path(at.folder))
    write(at, "a scan of a {}.")
    at.edit(lambda settings: settings["prompts"]["sets"].update(own=OWN))
    shown = at.repro("prompt_sets", "rank_prompts").stdout
    assert "own: 10 sentences left out, which its class says already" in shown
    assert "own: 1 sentence is said of several classes, such as 'a digit.'" in shown
    assert "prompts" in at.executed()
    assert "zero_shot" not in at.executed()
    at.commit("a set of a file")
    state = freshness.here(at.folder)
    assert [state.stale(f"{TEXTS}/{name}.h5") for name in ("own", "photo")] == [None, None]
    assert json.loads(at.read("metrics/prompt_sets.json"))["own"]["accuracy"] > 0

    write(at, "a drawing of a {}.")
    state = freshness.here(at.folder)
    stale = state.stale(f"{TEXTS}/own.h5", "own")
    assert stale is not None
    assert stale.changed == ["data/sentences"]
    assert state.stale(f"{TEXTS}/photo.h5") is None
    assert state.stale("metrics/zero_shot.json") is None  # of the set photo
    assert state.stale("metrics/prompt_sets.json") is not None
    assert "data/sentences" in at.command("dvc", "status", "prompts").stdout
    capsys.readouterr()
    assert command_line.run(monkeypatch, "compare", "photo", "own") == 2
    beside = capsys.readouterr().err
    assert "own is stale, changed since it was made: data/sentences" in beside
    assert "dvc repro" in beside

    at.commit("the file is edited, and nothing run")
    at.edit(lambda settings: settings["prompts"].update(active="own"))
    at.repro("zero_shot")
    at.commit("the set is active")
    write(at, "a sketch of a {}.")
    at.commit("edited again, and nothing run")
    capsys.readouterr()
    assert command_line.run(monkeypatch, "compare", "HEAD~1", "HEAD") == 0
    note = "zero_shot of HEAD is stale, changed since it was made: data/sentences"
    assert note in capsys.readouterr().out
    assert command_line.run(monkeypatch, "show") == 0
    assert "zero_shot is stale, changed since it was made: data/sentences" in capsys.readouterr().out
