"""Hostile names and prompts, and predictions of other images, through the stages and the command line."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipcifar.store import container
from clipcifar.store.fields import class_names_attribute
from clipcifar.store.predictions import read_predictions
from stages import prompts, report
from tests.faults.test_small_data import METHODS, run, write_run
from tests.report.test_page import Tags
from tests.support import command_line, finished_run, stage_runs

# As long as each other, so that the page lays them out alike.
BENIGN = "a plain name of a class, as long as the other one"
HOSTILE = "=cmd()|'<script>alert(1)</script>\"><img src=x>;=1"
NAMES = ["cat", "dog", "eel"]


def _report(folder: Path, name: str) -> tuple[str, str]:
    """The page and methods.md of a run in which a class and the prompts have that name."""
    finished_run.write(folder, class_names=[name, "dog"], templates=[name + " a", name + " b"])
    stage_runs.write_params(folder, {"prompts": {"active": "photo"}})
    inputs = ("metrics", "predictions", "ranking.json", "raw", "dataset.h5", "model.json")
    ended = stage_runs.run(report.main, *inputs, "page.html", "methods.md", folder=folder)
    assert ended.code == 0, ended.error
    return (folder / "page.html").read_text(), (folder / "methods.md").read_text()


def test_the_stages_page_of_a_hostile_run_has_the_tags_of_a_benign_one(tmp_path: Path) -> None:
    (benign, _), (hostile, text) = (
        _report(tmp_path / "benign", BENIGN),
        _report(tmp_path / "hostile", HOSTILE),
    )
    glyphs = ("path", "use", "g", "defs")  # letters of charts, which differ with the text
    counted = [
        {key: count for key, count in Tags(page).found.items() if key[0] not in glyphs}
        for page in (benign, hostile)
    ]
    assert counted[0] == counted[1]
    assert HOSTILE in Tags(hostile).text
    assert not re.search(r"(?<!\\)<", text)  # in methods.md no bracket is markup


@pytest.mark.parametrize("name", ["=cmd()", "+1", "-1", "@x", "\t=x", " =x", "＝x", "a;=x", '",=x', "a\n=x"])
def test_no_cell_of_any_csv_file_of_any_method_can_run(name: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path, np.arange(60) % 3, np.arange(30) % 3)
    hostile = class_names_attribute([name, "dog", "eel"])
    for path, kind in (
        (folder / "images/manifest.h5", "image embeddings"),
        (folder / "texts/photo.h5", "text embeddings"),
    ):
        file = container.read(path, kind=kind)
        own = {key: value for key, value in file.attributes.items() if key not in container._DIGESTS}
        container.write(path, kind=kind, arrays=file.arrays, attributes={**own, "class_names": hostile})
    for method in ("zero_shot", "linear_probe"):
        ended = run(method, folder)
        assert ended.code == 0, ended.error
    files = list(folder.rglob("*.csv"))
    assert len(files) == 5
    found = set()
    for path in files:
        for delimiter in ",;":
            for row in csv.reader(path.read_text().splitlines(keepends=True), delimiter=delimiter):
                for cell in row:
                    runs = cell.lstrip().startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠"))
                    assert not runs or re.fullmatch(r"-[0-9.,-]+((True|False)[0-9,]*)?", cell), (path, cell)
                    found.add(cell.replace("'", ""))
    assert name in found  # it is shown, but for that mark


def test_hostile_prompts_come_through_the_prompts_stage_as_text(tmp_path: Path) -> None:
    templates = [f"{HOSTILE} {{classname}}", "$HOME `id` $(id) {classname} %s \\n", "=cmd() {classname}"]
    sets = {"mine": {"template_mode": "shared", "templates": templates}}
    stage_runs.write_params(tmp_path, {"prompts": {"active": "mine", "sets": sets}})
    (tmp_path / "classes.json").write_text(json.dumps({"dataset": "digits", "class_names": NAMES}))
    assert stage_runs.run(prompts.main, "classes.json", "prompts", folder=tmp_path).code == 0
    written = json.loads((tmp_path / "prompts/mine.json").read_text())["sentences"]
    assert written == [text.replace("{classname}", name) for name in NAMES for text in templates]


# --- predictions of other images -----------------------------------------------------------------

Edit = Callable[[dict[str, Any]], None]


def _rewrite(path: Path, edit: Edit, **attributes: Any) -> None:
    """A predictions file with other arrays and right digests."""
    file = container.read(path, kind="predictions")
    arrays = dict(file.arrays)
    edit(arrays)
    own = {key: value for key, value in file.attributes.items() if key not in container._DIGESTS}
    container.write(path, kind="predictions", arrays=arrays, attributes={**own, **attributes})


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A workspace with the predictions of two methods, equal to the bit."""
    folder = write_run(tmp_path, np.arange(60) % 3, np.arange(30) % 3)
    assert run("zero_shot", folder).code == 0
    (folder / "data/predictions").mkdir(parents=True)
    for method in METHODS:
        (folder / f"data/predictions/{method}.h5").write_bytes((folder / "zero_shot/p.h5").read_bytes())
    return folder


def _compare(repository: Path, monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    monkeypatch.chdir(command_line.make_project(repository))
    command_line.record(repository, *(f"data/predictions/{method}.h5" for method in METHODS))
    monkeypatch.delenv("CLIPCIFAR_TRACEBACK", raising=False)
    return command_line.run(monkeypatch, "compare", "method:zero_shot", "method:linear_probe", "--json")


def _shuffle(arrays: dict[str, Any]) -> None:
    order = np.random.default_rng(3).permutation(len(arrays["ids"]))
    for name in arrays:
        arrays[name] = arrays[name][order]


def test_identical_predictions_in_any_order_give_p_1(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for edit in (lambda arrays: None, _shuffle):
        _rewrite(repository / "data/predictions/linear_probe.h5", edit)
        assert _compare(repository, monkeypatch) == 0
        found = json.loads(capsys.readouterr().out)["overall"]
        assert (found["p_value"], found["difference"], found["n"]) == (1, 0, 30)


def _only_the_scores_shuffled(arrays: dict[str, Any]) -> None:
    arrays["scores"] = arrays["scores"][::-1].copy()


def test_scores_that_are_not_those_of_their_ids_make_a_difference(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Negative control: the rows are joined by id, not by place."""
    _rewrite(repository / "data/predictions/linear_probe.h5", _only_the_scores_shuffled)
    assert _compare(repository, monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["overall"]["p_value"] < 0.01


def _drop_one(arrays: dict[str, Any]) -> None:
    for name in arrays:
        arrays[name] = arrays[name][1:]


def _other_id(arrays: dict[str, Any]) -> None:
    arrays["ids"] = np.array([b"test/99999", *arrays["ids"][1:]])


def _twice(arrays: dict[str, Any]) -> None:
    for name in arrays:
        arrays[name] = np.concatenate([arrays[name], arrays[name][:1]])


def _one_id_twice(arrays: dict[str, Any]) -> None:
    arrays["ids"] = np.array([arrays["ids"][1], *arrays["ids"][1:]])


def _other_label(arrays: dict[str, Any]) -> None:
    arrays["labels"] = (arrays["labels"] + 1) % 3


def _set(name: str, value: Any) -> Edit:
    return lambda arrays: arrays.update({name: value(arrays[name])})


OTHERS: dict[str, tuple[Edit, str]] = {
    "an image less": (_drop_one, "different images (30 and 29)"),
    "another image": (_other_id, "different images"),
    "an image twice": (_twice, "a sample id occurs twice"),
    "an id twice": (_one_id_twice, "a sample id occurs twice"),
    "another label": (_other_label, "different labels"),
    "a label of no class": (_set("labels", lambda labels: labels + 3), "class indices outside 0 to 2"),
    "labels of another type": (_set("labels", lambda labels: labels.astype(np.int32)), "int64 class indices"),
    "fewer labels": (_set("labels", lambda labels: labels[1:]), "expected 30 int64 class indices"),
    "fewer scores": (_set("scores", lambda scores: scores[1:]), "expected float32 scores (30, 3)"),
    "fewer classes": (_set("scores", lambda scores: scores[:, :2].copy()), "expected float32 scores (30, 3)"),
    "no dimension": (_set("scores", lambda scores: np.float32(1)), "expected float32 scores (30, 3)"),
    "doubles": (_set("scores", lambda scores: scores.astype(np.float64)), "expected float32 scores"),
    "NaN": (_set("scores", lambda scores: scores * np.float32("nan")), "a score is not finite"),
    "ids that are numbers": (_set("ids", lambda ids: np.arange(len(ids))), "expected strings"),
    "no image": (lambda arrays: arrays.update({k: v[:0] for k, v in arrays.items()}), "expected float32"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_predictions_of_other_images_are_refused_though_their_digests_are_right(
    what: str, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edit, expected = OTHERS[what]
    _rewrite(repository / "data/predictions/linear_probe.h5", edit)
    assert _compare(repository, monkeypatch) == 3
    output = capsys.readouterr()
    assert expected in output.err
    assert output.out == ""


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"class_names": '["cat","dog"]'}, "expected float32 scores (30, 2)"),
        ({"class_names": '["dog","cat","eel"]'}, "different images (30 and 30) or classes"),
        ({"class_names": "3"}, "the class names are not a list of text"),
        ({"class_names": '["cat","dog",3]'}, "the class names are not a list of text"),
        ({"class_names": "[" * 50_000}, "the class names cannot be read"),
        ({"class_names": 3}, "the attribute 'class_names' is 3, expected text"),
        ({"temperature": "hot"}, "the attribute 'temperature' is 'hot', expected a number"),
        ({"temperature": 0.0}, "the temperature is 0.0"),
        ({"max_per_class": True}, "the attribute 'max_per_class' is True, expected a number"),
    ],
)
def test_predictions_whose_attributes_say_nonsense_are_refused(
    attributes: dict[str, Any],
    expected: str,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _rewrite(repository / "data/predictions/linear_probe.h5", lambda arrays: None, **attributes)
    assert _compare(repository, monkeypatch) == 3
    assert expected in capsys.readouterr().err


def test_the_report_refuses_predictions_in_another_order(tmp_path: Path) -> None:
    """The page shows pictures row by row."""
    finished_run.write(tmp_path)
    _rewrite(tmp_path / "predictions/projection.h5", _shuffle)
    stage_runs.write_params(tmp_path, {"prompts": {"active": "photo"}})
    inputs = ("metrics", "predictions", "ranking.json", "raw", "dataset.h5", "model.json")
    ended = stage_runs.run(report.main, *inputs, "page.html", "methods.md", folder=tmp_path)
    assert ended.code == 3
    assert "the predictions of projection are of other images" in ended.error
    assert not os.path.exists(tmp_path / "page.html")


def test_the_reader_gives_what_was_written(repository: Path) -> None:
    found = read_predictions(repository / "data/predictions/linear_probe.h5")
    assert found.scores.shape == (30, 3)
