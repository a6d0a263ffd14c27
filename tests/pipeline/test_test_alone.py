"""A folder that holds test/ alone, by a real DVC: what can be measured is right, the rest ends in a line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

import clipcifar
from clipcifar.core.errors import DataError
from clipcifar.datasets import array_sets
from clipcifar.evaluation.calibration import log_softmax
from clipcifar.prompts.save import overlay
from clipcifar.store.dataset import read_dataset
from clipcifar.store.predictions import read_predictions
from tests.support import command_line
from tests.support.once import made_once
from tests.support.workspace import ROOT, SETS, Workspace, digits_params

pytestmark = pytest.mark.pipeline
CLASSES = ["eight", "five", "four", "nine"]  # in label order
COUNTS = {"eight": 12, "five": 33, "four": 40, "nine": 20}
LEARNING = ("rank_prompts", "prompt_weighting", "gda", "linear_probe", "mlp_probe", "projection")
STUDIES = ("few_shot", "ensemble", "label_errors", "near_duplicates", "corruptions", "finetune")
INSTEAD = "add train/<class>/…, or run `dvc repro zero_shot prompt_sets`, which needs test images alone"


def _write_photographs(root: Path) -> None:
    digits = array_sets.load_digits()
    left = dict(COUNTS)
    for number, label in enumerate(digits.test.labels.tolist()):
        name = digits.class_names[label]
        if left.get(name, 0):
            left[name] -= 1
            path = root / "test" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(digits.test.images[number]).save(path)
    assert not any(left.values())


def _run(folder: Path) -> None:
    workspace = Workspace.create(folder / "w", {})
    _write_photographs(folder / "photos")
    shutil.copyfile(ROOT / "data/.gitignore", workspace.folder / "data/.gitignore")
    workspace.edit(lambda settings: settings["prompts"].update(sets={}))
    dataset = {"dataset": {"name": "imagefolder", "path": str(folder / "photos")}}
    workspace.edit(lambda settings: overlay(settings, {**digits_params(), **dataset}))
    workspace.commit("params")
    said = workspace.repro("zero_shot", "prompt_sets").stdout
    assert "no val images: no temperature is fitted" in said
    assert "0 train, 0 val, 105 test images of 4 classes" in said
    workspace.commit("first run")


@pytest.fixture(scope="module")
def finished_alone(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Read only; those who change something work on copies."""
    return Workspace(made_once(tmp_path_factory, "test-alone", _run) / "w")


@pytest.fixture
def run(
    finished_alone: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """The command line in the run's folder: exit code, what is printed, and what is said beside it."""
    monkeypatch.chdir(finished_alone.folder)
    monkeypatch.setenv("CLIPCIFAR_CACHE", finished_alone.environment["CLIPCIFAR_CACHE"])
    monkeypatch.delenv("CLIPCIFAR_TRACEBACK", raising=False)
    return lambda *arguments: (command_line.run(monkeypatch, *arguments), *capsys.readouterr())


def _right_by_open_clip(photos: Path, template: str) -> dict[str, bool]:
    """Whether each image is right, by its name: open_clip alone, image by image."""
    source = f"local-dir:{ROOT / 'data/demo/clip'}"
    model, _, preprocess = open_clip.create_model_and_transforms(source)
    tokenizer = open_clip.get_tokenizer(source)
    model.eval()
    with torch.no_grad():
        texts = model.encode_text(tokenizer([template.replace("{classname}", name) for name in CLASSES]))
        texts = texts / texts.norm(dim=1, keepdim=True)
        right = {}
        for path in sorted(photos.glob("test/*/*.png")):
            image = model.encode_image(preprocess(Image.open(path).convert("RGB"))[None])
            said = CLASSES[int((image / image.norm() @ texts.T).argmax())]
            right[path.relative_to(photos).as_posix()] = said == path.parent.name
    return right


def test_zero_shot_and_the_sets_have_the_accuracy_that_open_clip_has_image_by_image(
    finished_alone: Workspace,
) -> None:
    folder = finished_alone.folder
    dataset = read_dataset(folder / "data/dataset.h5")
    assert (dataset.class_names, dataset.train.ids) == (CLASSES, [])
    written = json.loads(finished_alone.read("metrics/prompt_sets.json"))
    for name, content in SETS.items():
        right = _right_by_open_clip(folder.parent / "photos", content["templates"][0])
        assert len(right) == sum(COUNTS.values())
        assert 0.5 < np.mean([*right.values()]) < 1  # a number that a mistake would change
        assert written[name]["accuracy"] == round(float(np.mean([*right.values()])), 5)
        if name != "photo":
            continue
        said = read_predictions(folder / "data/predictions/zero_shot.h5")
        assert dict(zip(said.ids, (said.predicted == said.labels).tolist(), strict=True)) == right
        of_zero_shot = json.loads(finished_alone.read("metrics/zero_shot.json"))
        assert of_zero_shot["accuracy"] == written[name]["accuracy"]
        assert of_zero_shot["n"] == sum(COUNTS.values())
        recalls = json.loads(finished_alone.read("metrics/details/zero_shot.json"))["per_class"]
        for label in CLASSES:
            of_class = [good for path, good in right.items() if path.split("/")[1] == label]
            assert recalls[label] == round(float(np.mean(of_class)), 5)


def test_what_only_val_could_say_is_nowhere(finished_alone: Workspace) -> None:
    details = json.loads(finished_alone.read("metrics/details/zero_shot.json"))
    assert details["n_val"] == 0
    assert {row["calibration"] for row in details["dvc plots"]} == {"raw"}
    of_sets = json.loads(finished_alone.read("metrics/details/prompt_sets.json"))
    assert set(of_sets["digits"]) == {"n_sentences", "test", "vs_active"}
    for content in (details, of_sets["photo"]["test"]):
        assert "calibrated" not in content


def test_an_edited_prompt_runs_zero_shot_again_and_the_diff_has_its_rows(
    finished_alone: Workspace, tmp_path: Path
) -> None:
    workspace = finished_alone.copy(tmp_path / "w")
    before = json.loads(workspace.read("metrics/zero_shot.json"))
    workspace.edit(lambda settings: settings["prompts"].update(active="digits"))
    workspace.repro("zero_shot")
    assert workspace.executed() == ["prompts", "embed_active", "zero_shot"]
    after = json.loads(workspace.read("metrics/zero_shot.json"))
    (shown,) = json.loads(workspace.command("dvc", "metrics", "diff", "--json").stdout).values()
    assert (shown["nll"]["old"], shown["nll"]["new"]) == (before["nll"], after["nll"])
    compared = json.loads(workspace.command("clipcifar", "compare", "--json").stdout)["overall"]
    assert (compared["accuracy_a"], compared["accuracy_b"]) == pytest.approx(
        (before["accuracy"], after["accuracy"]), abs=1e-5
    )
    failed = workspace.repro("linear_probe", check=False)
    assert failed.returncode != 0
    line, *of_dvc = failed.stderr.splitlines()
    assert line == f"error: linear_probe learns from train images, and this dataset has none: {INSTEAD}"
    assert all("exited with 3" in said for said in of_dvc)


def test_every_command_answers_from_what_there_is_or_says_in_one_line_what_is_lacking(run: Any) -> None:
    code, said, beside = run("show", "--per-class")
    assert (code, beside) == (0, "")
    assert [line.split("|")[1].strip() for line in said.splitlines() if line.startswith("| ")] == [
        "method",
        "zero-shot",
        "class",
        *CLASSES,
    ]
    assert run("compare", "photo", "digits")[0] == 0
    assert run("doctor")[0] == 0
    code, said, _ = run("try", "--on", "test", SETS["digits"]["templates"][0])
    written = json.loads(Path("metrics/prompt_sets.json").read_text())
    assert code == 0
    assert said.startswith(
        f"top-1 {written['digits']['accuracy']:.4f}, photo {written['photo']['accuracy']:.4f}"
    )
    lacking = "train images, and this dataset has none: "
    refused: dict[tuple[str, ...], str] = {
        ("search",): f"a search ranks templates on {lacking}{INSTEAD}",
        ("search", "--write", "best"): f"a search ranks templates on {lacking}{INSTEAD}",
        ("try", "a {classname}"): f"prompts are tried on {lacking}add train/<class>/…, or try on the test",
        **{("compare", "zero_shot", method): f"{method} needs {lacking}{INSTEAD}" for method in LEARNING},
        **{("study", study): f"the study {study} needs {lacking}{INSTEAD}" for study in STUDIES},
    }
    for arguments, expected in refused.items():
        code, said, beside = run(*arguments)
        assert (code, said) == (3, ""), (arguments, said)
        assert beside.startswith(f"error: {expected}"), (arguments, beside)
        assert beside.count("\n") == 1, (arguments, beside)
    code, _, beside = run("verify")
    assert code == 2
    assert "no number is published here for imagefolder" in beside


def test_python_answers_from_what_there_is_as_well(finished_alone: Workspace) -> None:
    project = clipcifar.open(finished_alone.folder)
    images = project.images()
    assert set(images.split) == {"test"}
    assert len(project.images("val").ids) == 0
    zero_shot = project.classifier("zero_shot")
    assert zero_shot.temperature is None
    right = zero_shot.scores(images.embeddings).argmax(axis=1) == images.labels
    assert right.mean() == pytest.approx(project.metrics("zero_shot")["accuracy"], abs=1e-5)
    for ask in (project.classifier, project.metrics, project.predictions):
        with pytest.raises(DataError, match="mlp_probe needs train images, and this dataset has none"):
            ask("mlp_probe")


def test_photographs_are_answered_at_the_models_own_scale_and_learners_refused(
    finished_alone: Workspace, run: Any
) -> None:
    photos = finished_alone.folder.parent / "photos"
    code, said, beside = run("predict", str(photos), "--json", "--top", "1")
    assert code == 0
    assert beside == (
        "note: the dataset has no val images to fit a temperature on: confidences are at the model's own "
        "logit scale\n"
    )
    document = json.loads(said)
    stored = read_predictions(finished_alone.folder / "data/predictions/zero_shot.h5")
    best = np.exp(log_softmax(stored.scores)).max(axis=1)
    expected = {
        name: (CLASSES[label], pytest.approx(share, abs=1e-4))
        for name, label, share in zip(stored.ids, stored.predicted.tolist(), best.tolist(), strict=True)
    }
    assert {
        Path(image["path"]).relative_to(photos).as_posix(): tuple(image["top"][0].values())
        for image in document["images"]
    } == expected
    for method in LEARNING:
        code, said, beside = run("predict", str(photos), "--method", method)
        assert (code, said) == (3, "")
        assert beside.startswith(f"error: {method} needs train images, and this dataset has none: {INSTEAD}")


def test_another_dataset_with_train_images_is_not_said_to_have_none(
    finished_alone: Workspace, tmp_path: Path
) -> None:
    workspace = finished_alone.copy(tmp_path / "w")
    workspace.edit(lambda settings: settings["dataset"].update(name="digits", path="data/none"))
    refused = workspace.command("clipcifar", "search", check=False)
    assert refused.returncode == 3
    assert "this dataset has none" not in refused.stderr


@pytest.mark.nightly
def test_the_study_of_backbones_runs_and_the_own_one_is_that_of_the_pipeline(
    finished_alone: Workspace, tmp_path: Path, tiny_clip: Path
) -> None:
    workspace = finished_alone.copy(tmp_path / "w")
    random = {"name": f"local-dir:{tiny_clip}", "pretrained": None, "path": str(tiny_clip)}
    workspace.edit(lambda settings: settings["models"].update(others={"random": random}))
    workspace.start_study("models")
    assert workspace.executed() == ["models"]
    entries = json.loads(workspace.read("data/studies/models/metrics.json"))
    of_zero_shot = json.loads(workspace.read("metrics/zero_shot.json"))
    assert entries["own"]["zero_shot"]["test"]["accuracy"] == of_zero_shot["accuracy"]
    assert entries["random"]["zero_shot"]["test"]["accuracy"] < of_zero_shot["accuracy"]
    assert "linear_probe" not in entries["own"]
    page = workspace.read("report/models.html").decode()
    assert "there are no train images to choose by" in page
    assert "linear probe" not in page.lower()
