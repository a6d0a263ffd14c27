"""`clipcifar search`; `try` is tested in test_trial and on a finished run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from clipcifar.core import params
from clipcifar.prompts import pool
from clipcifar.prompts.templates import expand_alternatives
from tests.support import finished_run
from tests.support.command_line import record, run
from tests.support.workspace import ROOT


def test_search_shows_the_ranking_and_keeps_the_choice_with_the_files_comments(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_run.write(project / "data")
    classes = {"dataset": "cifar10", "class_names": finished_run.NAMES}
    (project / "data" / "classes.json").write_text(json.dumps(classes))
    before = (ROOT / "params.yaml").read_text()
    (project / "params.yaml").write_text(before)
    record(project, "data/ranking.json")
    assert run(monkeypatch, "search", "--top", "1") == 0
    shown = capsys.readouterr().out
    assert finished_run.TEMPLATES[0] in shown.split("Chosen:")[0]
    assert finished_run.TEMPLATES[1] not in shown.split("Chosen:")[0]
    assert (project / "params.yaml").read_text() == before
    assert run(monkeypatch, "search", "--write", "best") == 0
    assert "prompts.active: best" in capsys.readouterr().out
    after = (project / "params.yaml").read_text()
    added = [line for line in after.splitlines() if line not in before.splitlines()]
    assert [line.strip() for line in added] == [
        "best:",
        f"- {finished_run.TEMPLATES[1]}",
    ]  # the rest is there
    assert all(line in after.splitlines() for line in before.splitlines())
    saved = params.load(project / "params.yaml")["prompts"]
    assert saved["sets"]["best"] == {"template_mode": "shared", "templates": finished_run.TEMPLATES}
    assert saved["active"] == "photo"
    record(project, "data/ranking.json")
    assert run(monkeypatch, "search", "--write", "photo") == 2  # nobody's set is written over
    assert "there is a prompt set 'photo' already" in capsys.readouterr().err
    assert (project / "params.yaml").read_text() == after


def test_an_average_of_hundreds_is_written_in_few_lines_and_a_doubt_is_said(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_run.write(project / "data")
    classes = {"dataset": "cifar10", "class_names": finished_run.NAMES}
    (project / "data" / "classes.json").write_text(json.dumps(classes))
    path = project / "data" / "ranking.json"
    templates = [reading for template in pool.TEMPLATES for reading in expand_alternatives(template)]
    ranked = json.loads(path.read_text())
    for val, test, doubt in (
        (False, False, "written, though no difference for the better was shown on val and on test"),
        (True, False, "written, though no difference for the better was shown on test"),
        (False, True, "written, though no difference for the better was shown on val"),
        (True, True, None),
    ):
        chosen = {"template_mode": "shared", "templates": templates}
        path.write_text(json.dumps({**ranked, "set": chosen, "shown": {"val": val, "test": test}}))
        text = (ROOT / "params.yaml").read_text()
        (project / "params.yaml").write_text(text)
        record(project, "data/ranking.json")
        assert run(monkeypatch, "search", "--write", "best") == 0
        last = capsys.readouterr().out.splitlines()[-1]
        assert last == doubt if doubt else "saved in" in last
        after = (project / "params.yaml").read_text()
        assert len(after.splitlines()) - len(text.splitlines()) < 30
        saved = params.load(project / "params.yaml")["prompts"]["sets"]["best"]["templates"]
        assert sorted(r for line in saved for r in expand_alternatives(line)) == sorted(templates)


def test_where_the_active_set_is_kept_there_is_nothing_better_to_write(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_run.write(project / "data")
    path = project / "data" / "ranking.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **finished_run.KEPT}))
    before = (ROOT / "params.yaml").read_bytes()
    (project / "params.yaml").write_bytes(before)
    record(project, "data/ranking.json")
    assert run(monkeypatch, "search", "--write", "best") == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert "nothing better to write: val prefers no other prompts to the active set photo" in error
    assert (project / "params.yaml").read_bytes() == before
    assert run(monkeypatch, "search") == 0
    shown = capsys.readouterr().out
    assert "The search keeps the active set photo: val prefers no other prompts." in shown
    assert "Chosen:" not in shown
    assert "same images" not in shown
    assert run(monkeypatch, "search", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["kind"], data["set"], data["doubt"]) == ("active", None, "")


def test_weights_are_written_in_one_line_beside_the_templates_that_they_are_of(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_run.write(project / "data")
    classes = {"dataset": "cifar10", "class_names": finished_run.NAMES}
    (project / "data" / "classes.json").write_text(json.dumps(classes))
    path = project / "data" / "ranking.json"
    templates = [reading for template in pool.TEMPLATES for reading in expand_alternatives(template)]
    weights = [round(0.01 + i / 100, 4) for i in range(len(templates))]
    chosen = {"template_mode": "shared", "templates": templates, "weights": weights}
    path.write_text(json.dumps({**json.loads(path.read_text()), "kind": "weighted", "set": chosen}))
    text = (ROOT / "params.yaml").read_text()
    (project / "params.yaml").write_text(text)
    record(project, "data/ranking.json")
    assert run(monkeypatch, "search", "--write", "best") == 0
    after = (project / "params.yaml").read_text()
    assert len(after.splitlines()) - len(text.splitlines()) < 30
    saved = params.load(project / "params.yaml")["prompts"]["sets"]["best"]
    readings = [reading for line in saved["templates"] for reading in expand_alternatives(line)]
    assert dict(zip(readings, saved["weights"], strict=True)) == dict(zip(templates, weights, strict=True))


WHOLE = {
    "active": "photo",
    "kind": "ensemble",
    "by": "accuracy",
    "shown": {"val": True, "test": True},
    "chosen": "one",
    "verdict": "none",
    "n": {"train": 4, "test": 4},
    "gain": {"train": 0.0, "test": 0.0, "optimism": 0.0},
    "val_accuracy": {"active": 0.5, "average": 0.5, "weighted": 0.5, "ensemble": 0.5},
    "set": {"template_mode": "shared", "templates": ["a {classname}."]},
    "best": [],
    "candidates": [],
}
HARMED = [
    *({"gain": 1}, {"n": {}}, {"val_accuracy": []}, {"set": []}, {"candidates": 3}, {"candidates": [{}]}),
    *({"set": None}, {"kind": "active"}, {"set": {"templates": ["a {classname}."], "weights": []}}),
]


def test_the_ranking_that_is_harmed_below_can_be_told(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "data").mkdir()
    (project / "data" / "ranking.json").write_text(json.dumps(WHOLE))
    assert run(monkeypatch, "search") == 0
    assert "Chosen: one\n  a {classname}.\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", [None, "{", "[]", '{"active": "photo"}', *(json.dumps({**WHOLE, **harm}) for harm in HARMED)]
)
def test_a_ranking_that_is_missing_or_damaged_is_named(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str | None,
) -> None:
    (project / "data").mkdir()
    if text is not None:
        (project / "data" / "ranking.json").write_text(text)
    assert run(monkeypatch, "search") == 3
    message = capsys.readouterr().err
    assert "data/ranking.json" in message
    assert "dvc repro" in message


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", '{"dataset": "x", "class_names": 3}'])
def test_without_the_class_names_nothing_is_kept_and_the_file_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    finished_run.write(project / "data")
    if text is not None:
        (project / "data" / "classes.json").write_text(text)
    before = (ROOT / "params.yaml").read_bytes()
    (project / "params.yaml").write_bytes(before)
    record(project, "data/ranking.json")
    assert run(monkeypatch, "search", "--write", "best") == 3
    message = capsys.readouterr().err
    assert "where: data/classes.json" in message
    assert "dvc repro" in message
    assert (project / "params.yaml").read_bytes() == before


@pytest.mark.parametrize("sets", [None, [], {}])
def test_a_set_is_kept_only_in_a_params_yaml_that_has_sets(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sets: Any
) -> None:
    finished_run.write(project / "data")
    classes = {"dataset": "cifar10", "class_names": finished_run.NAMES}
    (project / "data" / "classes.json").write_text(json.dumps(classes))
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    settings["prompts"]["sets"] = sets
    (project / "params.yaml").write_text(yaml.safe_dump(settings))
    record(project, "data/ranking.json")
    code = run(monkeypatch, "search", "--write", "best")
    if sets == {}:
        assert code == 0
        kept = params.load(project / "params.yaml")["prompts"]["sets"]
        assert list(kept) == ["best"]
    else:
        assert code == 2
        assert "where: params.yaml: prompts.sets" in capsys.readouterr().err
        assert params.load(project / "params.yaml") == settings


def test_the_number_of_templates_is_positive(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("0", "-1", "many", "1.5"):
        assert run(monkeypatch, "search", "--top", text) == 2


def test_a_ranking_of_other_prompts_is_marked_and_not_kept(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_run.write(project / "data")
    record(project, "data/ranking.json")
    assert run(monkeypatch, "search") == 0
    shown, beside = capsys.readouterr()
    assert beside == ""
    edited = (project / "params.yaml").read_text().replace("active: photo ", "active: wide ")
    (project / "params.yaml").write_text(edited)
    assert run(monkeypatch, "search") == 0
    what = "the ranking is stale, changed since it was made: prompts.active"
    assert capsys.readouterr().out == f"{what}; run `dvc repro rank_prompts`\n\n{shown}"
    assert run(monkeypatch, "search", "--write", "best") == 2
    assert capsys.readouterr() == ("", f"error: {what}\n  fix:   run `dvc repro rank_prompts`\n")
    assert (project / "params.yaml").read_text() == edited


def test_a_ranking_that_nobody_recorded_is_marked(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_run.write(project / "data")
    assert run(monkeypatch, "search") == 0
    assert capsys.readouterr().out.startswith(
        "the ranking is of no run that dvc.lock records; run `dvc repro rank_prompts`\n"
    )
