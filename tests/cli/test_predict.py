"""`clipcifar predict` on a finished run: the pipeline's own answers, and everything that is no image."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import clipcifar
from clipcifar.api.classifier import probabilities
from clipcifar.cli import predict
from clipcifar.core import files
from clipcifar.evaluation.names import METHODS
from clipcifar.store.dataset import read_dataset
from clipcifar.store.predictions import read_predictions, read_set_predictions
from tests.support.command_line import run
from tests.support.once import made_once
from tests.support.waiting import PATIENCE_S
from tests.support.workspace import SETS, Workspace

Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def digits(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test images as PNG, `<row>.png`."""

    def write(folder: Path) -> None:
        test = read_dataset(finished.folder / "data" / "dataset.h5").test
        for row, pixels in enumerate(test.content):
            Image.fromarray(pixels).save(folder / f"{row:04d}.png")

    return made_once(tmp_path_factory, "digits-as-png", write)


@pytest.fixture
def here(finished: Workspace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process as if started in the finished run, which nothing writes to."""
    monkeypatch.chdir(finished.folder)
    return finished.folder


def as_array(text: str, class_names: list[str]) -> tuple[list[str], NDArray[np.float64], list[str]]:
    """Of CSV with all classes: the predicted classes, (N, C) probabilities, and the names of the files."""
    _, *rows = csv.reader(io.StringIO(text))
    shares = np.zeros((len(rows), len(class_names)))
    for number, row in enumerate(rows):
        for name, share in zip(row[1::2], row[2::2], strict=True):
            shares[number, class_names.index(name)] = float(share)
    return [row[1] for row in rows], shares, [Path(row[0]).name for row in rows]


@pytest.mark.parametrize("by", [f"--method={name}" for name in METHODS] + [f"--set={name}" for name in SETS])
def test_a_prediction_is_the_pipelines_own_for_every_method_and_every_set(
    by: str, here: Path, digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    option, _, name = by.partition("=")
    class_names = clipcifar.open(here).class_names
    if option == "--method":
        stored = read_predictions(here / "data" / "predictions" / f"{name}.h5")
        scores, temperature = stored.scores, float(stored.attributes["temperature"])
    else:
        scores = read_set_predictions(here / "data" / "predictions" / "prompt_sets.h5").scores[name]
        details = files.read_json(here / "metrics" / "details" / "prompt_sets.json")
        temperature = details[name]["test"]["calibrated"]["temperature"]
    assert run(monkeypatch, "predict", str(digits), by, "--csv", "--top", "99") == 0
    predicted, shares, names = as_array(capsys.readouterr().out, class_names)
    assert names == [f"{row:04d}.png" for row in range(len(scores))]
    assert predicted == [class_names[label] for label in scores.argmax(axis=1)]
    np.testing.assert_allclose(shares, probabilities(scores, temperature), atol=2e-4)
    assert np.ptp(shares.max(axis=1)) > 0.1  # else a constant would do
    other = probabilities(scores, 1.2 * temperature)
    assert np.abs(shares - other).max() > 0.01  # nor would another temperature


def test_without_options_the_active_set_answers_with_three_classes(
    here: Path, digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    assert run(monkeypatch, "predict", str(digits / "0003.png")) == 0
    said = capsys.readouterr()
    header, line = said.out.splitlines()
    assert header.split() == ["image", "1.", "2.", "3."]
    stored = read_predictions(here / "data" / "predictions" / "zero_shot.h5")
    share = probabilities(stored.scores[3:4], float(stored.attributes["temperature"])).max()
    path, first, confidence, *rest = line.split()
    assert (path, first, len(rest)) == (
        str(digits / "0003.png"),
        clipcifar.open(here).class_names[stored.predicted[3]],
        4,
    )
    assert float(confidence) == pytest.approx(share, abs=1e-3)
    assert said.err == ""


def test_labels_of_ones_own_are_the_classes_and_are_said_to_be_at_the_models_scale_once(
    here: Path, digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    labels = ["a scan of the handwritten digit nine.", "a photo of a cat"]
    asked = ("predict", str(digits), "--text", f" {labels[0]}; {labels[1]} ;", "--json")
    assert run(monkeypatch, *asked) == 0
    said = capsys.readouterr()
    assert said.err.count("own logit scale") == 1
    document = json.loads(said.out)
    assert (document["class_names"], document["temperature"], document["prompt_set"]) == (labels, None, None)
    classifier = clipcifar.open(here).zero_shot(labels=labels)
    expected = classifier.predict_proba([digits / "0000.png", digits / "0001.png"])
    for image, shares in zip(document["images"], expected, strict=False):
        assert {item["class"] for item in image["top"]} == set(labels)  # two, though three would be shown
        assert image["top"][0]["class"] == labels[shares.argmax()]
        assert image["top"][0]["probability"] == pytest.approx(shares.max(), abs=1e-4)


def test_without_val_images_it_is_said_once_that_confidences_are_at_the_models_scale(
    here: Path, digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    real = predict._loaded

    def loaded(*arguments: Any, **options: Any) -> Any:
        classifier, embedder = real(*arguments, **options)
        return replace(classifier, temperature=None), embedder

    monkeypatch.setattr(predict, "_loaded", loaded)
    assert run(monkeypatch, "predict", str(digits)) == 0
    assert capsys.readouterr().err.startswith("note: the dataset has no val images to fit a temperature on")


@pytest.mark.parametrize(("end", "options"), [(b"\n", []), (b"\r\n", []), (b"\0", ["-0"])])
def test_paths_come_from_standard_input_and_are_relative_to_where_the_user_is(
    end: bytes,
    options: list[str],
    here: Path,
    digits: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Said,
) -> None:
    monkeypatch.chdir(here / "data")
    near = os.path.relpath(digits, here / "data")
    given = [f"{near}/0005.png", f"{near}/0001.png", f"{near}/0005.png"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(end.join(map(os.fsencode, given)) + end)))
    assert run(monkeypatch, "predict", "-", *options, "--csv", "--top", "1") == 0
    said = capsys.readouterr()
    _, *rows = csv.reader(io.StringIO(said.out))
    assert [row[0] for row in rows] == given
    assert rows[0] == rows[2] != rows[1]
    assert said.err == ""


def test_what_cannot_be_read_is_named_at_the_end_and_all_others_are_answered(
    here: Path, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    shutil.copy(digits / "0000.png", tmp_path / "a.png")
    shutil.copy(digits / "0001.png", tmp_path / "z.png")
    (tmp_path / "m.jpg").write_text("no image")
    (tmp_path / "c\x1b[2J.jpg").symlink_to(digits / "0002.png")
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden.png").touch()
    missing = str(tmp_path / "missing.png")
    assert run(monkeypatch, "predict", missing, str(tmp_path), "--json", "--top", "1") == 3
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert [Path(image["path"]).name for image in document["images"]] == ["a.png", "z.png"]
    reasons = {Path(item["path"]).name: item["reason"] for item in document["failed"]}
    assert list(reasons) == ["missing.png", "c\x1b[2J.jpg", "m.jpg"]
    assert reasons["missing.png"] == "there is no such file"
    assert "leads out" in reasons["c\x1b[2J.jpg"]
    assert "not an image" in reasons["m.jpg"]
    assert document["left_out"] == {".txt": 1, "hidden": 1}
    left_out, first, *lines = said.err.splitlines()
    assert left_out == "note: left out: 1 .txt, 1 hidden"
    assert first == "error: 3 of 5 could not be read:"
    assert lines[1].startswith(rf"    {tmp_path}/c\u001b[2J.jpg: a symbolic link that leads out")
    assert lines[2].startswith(f"    {tmp_path}/m.jpg: empty, or not an image")


def test_of_many_unreadable_files_twenty_are_named_and_the_rest_counted(
    here: Path, digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    missing = [f"missing-{number:02d}.png" for number in range(25)]
    assert run(monkeypatch, "predict", *missing, str(digits / "0000.png")) == 3
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 2
    assert [name in said.err for name in missing] == [True] * 20 + [False] * 5
    assert "and 5 more" in said.err
    advice = f"a path that is not absolute begins in the current folder, {here}; all others are answered"
    assert said.err.endswith(f"fix:   see what these are; --json names all of them; {advice}\n")


def test_where_nothing_could_be_read_no_others_are_said_to_be_answered(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    (tmp_path / "m.jpg").write_text("no image")
    assert run(monkeypatch, "predict", str(tmp_path), str(tmp_path / "missing.png")) == 3
    assert capsys.readouterr().err.endswith("\n  fix:   see what these are\n")


def test_where_no_prompts_are_embedded_labels_of_ones_own_are_named(
    finished: Workspace, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    at = finished.copy(tmp_path / "w").folder
    for made in ("dvc.lock", "data/embeddings/texts/photo.h5", "data/embeddings/active/photo.h5"):
        (at / made).unlink()
    monkeypatch.chdir(at)
    assert run(monkeypatch, "predict", str(digits / "0000.png")) == 3
    said = capsys.readouterr().err
    assert "fix:   run `dvc repro embed_texts`; labels of your own need none of it: --text" in said


def test_a_folder_without_images_says_what_it_holds(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    (tmp_path / "raw.heic").touch()
    assert run(monkeypatch, "predict", str(tmp_path)) == 3
    assert "no images there; left out: 1 .heic" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ([], r""),
        (["--csv"], r"path,class_1,probability_1\n"),
        (["--json"], r'\{(?s:.*)"images": \[\],(?s:.*)\}\n'),
    ],
)
def test_an_empty_list_on_standard_input_is_answered_by_an_empty_one(
    form: list[str], said: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    """As of a nightly `find` without news."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    assert run(monkeypatch, "predict", "-", "--top", "1", *form) == 0
    answered = capsys.readouterr()
    assert re.fullmatch(said, answered.out)
    assert answered.err == "note: no paths on standard input\n"


def test_where_images_were_looked_for_is_named(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(bytes(tmp_path))))
    assert run(monkeypatch, "predict", "-") == 3
    assert "where: standard input" in capsys.readouterr().err


WRONG = {
    "no class shown": (["a.png", "--top", "0"], "from 1"),
    "one label": (["a.png", "--text", "a cat;"], "one label alone is always the answer"),
    "a label twice": (["a.png", "--text", "a cat; a dog; a cat"], "a label is given twice"),
    "no labels": (["a.png", "--text", " ; "], "two or more"),
    "zero bytes of nothing": (["a.png", "-0"], "no paths are read from standard input"),
    "an unknown method": (["a.png", "--method", "magic"], "invalid choice: 'magic'"),
    "an unknown set": (["a.png", "--set", "phots"], "there is no embedded prompt set 'phots'"),
    "two of them": (["a.png", "--set", "photo", "--text", "a; b"], "not allowed with"),
    "no file": ([], "the following arguments are required: FILE"),
}


def test_no_torch_is_imported_before_arguments_are_checked(here: Path, digits: Path) -> None:
    script = """
import json, sys
from clipcifar.cli import main
codes = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["clipcifar", "predict", *arguments]
    try:
        main.main()
    except SystemExit as error:
        codes.append(error.code)
    assert "torch" not in sys.modules, arguments
print(codes)
"""
    asked = [[str(digits / "0000.png") if a == "a.png" else a for a in given] for given, _ in WRONG.values()]
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(asked)], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == str([2] * len(WRONG)), done.stderr
    for _, words in WRONG.values():
        assert words in done.stderr


def test_a_stale_result_is_refused_as_by_compare(
    at: Workspace, digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    monkeypatch.chdir(at.folder / "data")
    at.edit(lambda settings: settings["prompts"]["sets"]["photo"].update(templates=["my {classname}."]))
    image = str(digits / "0000.png")
    for options in ([], ["--set", "photo"], ["--method", "projection"]):
        assert run(monkeypatch, "predict", image, *options) == 2
        said = capsys.readouterr()
        assert "stale, changed since it was made: prompts.sets.photo" in said.err
        assert "run `dvc repro " in said.err
        assert said.out == ""
    for options in (["--set", "digits"], ["--method", "linear_probe"]):  # which do not rest on it
        assert run(monkeypatch, "predict", image, *options) == 0
    at.edit(lambda settings: settings["embed"].update(batch_size=7))
    capsys.readouterr()
    assert run(monkeypatch, "predict", image, "--set", "digits") == 2
    assert "data/embeddings/images is stale" in capsys.readouterr().err
    assert run(monkeypatch, "predict", image, "--text", "the digit one; the digit two") == 0  # no dataset


def start(here: Path, images: Path, times: int) -> subprocess.Popen[bytes]:
    """`predict --csv` on many paths, the first of its rows read."""
    process = subprocess.Popen(
        [Path(sys.executable).with_name("clipcifar"), "predict", "-", "--csv"],
        cwd=here,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # were we started with &
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"".join(os.fsencode(path) + b"\n" for path in sorted(images.iterdir())) * times)
    process.stdin.close()
    process.stdout.readline()
    assert process.stdout.readline().startswith(os.fsencode(images))
    return process


def is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("how", ["interrupted", "closed"])
def test_ctrl_c_and_a_closed_pipe_end_it_with_its_workers_and_no_traceback(
    how: str, here: Path, digits: Path
) -> None:
    with start(here, digits, 500) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if how == "interrupted":
            os.killpg(process.pid, signal.SIGINT)  # a terminal's goes to the workers as well
            process.stdout.read()
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(PATIENCE_S) == (130 if how == "interrupted" else 0)
    assert said == b""
    assert not is_alive(process.pid)
