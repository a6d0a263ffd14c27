"""The pipeline as a user runs it: real DVC, real open_clip, the embedded data, in a git repository."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import clipcifar
from clipcifar.core import strict_yaml
from clipcifar.evaluation import headline
from clipcifar.evaluation.names import METHODS
from clipcifar.prompts.save import edit_params, overlay
from tests.support import from_scratch
from tests.support.nightly import first
from tests.support.once import made_once
from tests.support.workspace import ALL, ROOT, TEXT_SIDE, Workspace, digits_params, outputs

pytestmark = pytest.mark.pipeline
MOST_ROWS = 5 * 7  # of a diff that one reads: the headlines of the methods that the active set reaches


def _reword(settings: Any) -> None:
    settings["prompts"]["sets"]["photo"]["templates"] = ["the digit {classname}."]


def test_a_second_repro_runs_nothing(workspace: Workspace) -> None:
    workspace.repro()
    assert workspace.executed() == []


def test_an_edited_prompt_runs_the_text_side_alone_and_reverting_runs_nothing(workspace: Workspace) -> None:
    """Edited by hand, and back; then by the flag of an experiment."""
    before, params = outputs(workspace), workspace.read("params.yaml")
    workspace.edit(_reword)
    edited = workspace.settings()
    workspace.repro()
    assert sorted(workspace.executed()) == sorted(TEXT_SIDE)
    after = outputs(workspace)
    assert after["metrics/zero_shot.json"] != before["metrics/zero_shot.json"]
    assert after["metrics/linear_probe.json"] == before["metrics/linear_probe.json"]

    shown = json.loads(workspace.command("dvc", "metrics", "diff", "--json").stdout)
    change = shown["metrics/zero_shot.json"]["accuracy"]
    assert change["old"] == json.loads(before["metrics/zero_shot.json"])["accuracy"]
    assert change["new"] == json.loads(after["metrics/zero_shot.json"])["accuracy"]
    assert change["diff"] != 0
    assert "metrics/linear_probe.json" not in shown
    assert sum(map(len, shown.values())) <= MOST_ROWS
    details = json.loads(
        workspace.command("dvc", "metrics", "diff", "--json", "--targets", "metrics/details").stdout
    )
    old, new = (json.loads(state["metrics/details/zero_shot.json"]) for state in (before, after))
    of_zero_shot = details["metrics/details/zero_shot.json"]
    assert of_zero_shot["calibrated.nll"]["old"] == old["calibrated"]["nll"]
    assert of_zero_shot["calibrated.nll"]["new"] == new["calibrated"]["nll"]
    moved = [name for name, accuracy in new["per_class"].items() if accuracy != old["per_class"][name]]
    assert moved
    assert {f"per_class.{name}" for name in moved} <= set(of_zero_shot)

    compared = json.loads(workspace.command("clipcifar", "compare", "--json").stdout)
    assert (compared["a"], compared["b"]) == ("HEAD", "workspace")
    assert compared["overall"]["accuracy_a"] == pytest.approx(change["old"], abs=1e-5)
    assert compared["overall"]["accuracy_b"] == pytest.approx(change["new"], abs=1e-5)
    assert outputs(workspace) == after

    (workspace.folder / "params.yaml").write_bytes(params)
    assert "Stage 'zero_shot' is cached - skipping run" in workspace.repro().stdout
    assert workspace.executed() == []
    assert outputs(workspace) == before
    in_git = set(workspace.command("git", "ls-files", "metrics").stdout.split())
    assert in_git == {path for path in before if path.startswith("metrics/")}
    assert {Path(path).name for path in in_git if "details" in path} == {
        Path(path).name for path in in_git if "details" not in path
    }

    workspace.command("dvc", "exp", "run", "-S", 'prompts.sets.photo.templates=["the digit {classname}."]')
    assert workspace.settings() == edited
    assert workspace.executed() == []  # what the same edit has run is taken
    assert outputs(workspace) == after


def test_another_active_set_embeds_nothing(workspace: Workspace) -> None:
    workspace.edit(lambda settings: settings["prompts"].update(active="digits"))
    workspace.repro()
    assert sorted(workspace.executed()) == [
        "embed_active",
        "gda",
        "projection",
        "prompt_sets",
        "prompts",
        "rank_prompts",
        "report",
        "zero_shot",
    ]


def test_an_edit_of_an_inactive_set_leaves_the_active_ones_results_alone(workspace: Workspace) -> None:
    workspace.edit(
        lambda settings: settings["prompts"]["sets"]["digits"].update(templates=["digit {classname}"])
    )
    workspace.repro()
    scored = ["prompt_sets", "prompt_weighting", "prompts", "rank_prompts"]
    assert sorted(workspace.executed()) == ["embed_texts", *scored, "report"]


def test_comments_and_key_order_run_nothing(workspace: Workspace) -> None:
    reordered = dict(reversed(workspace.settings().items()))
    text = "# a comment\n" + yaml.safe_dump(reordered, sort_keys=False)
    (workspace.folder / "params.yaml").write_text(text)
    workspace.repro()
    assert workspace.executed() == []


def test_another_model_embeds_again_and_leaves_the_dataset_alone(
    workspace: Workspace, tiny_clip: Path
) -> None:
    before = outputs(workspace)
    model = {"name": f"local-dir:{tiny_clip}", "path": str(tiny_clip)}
    workspace.edit(lambda settings: settings["model"].update(model))
    workspace.repro()
    assert set(workspace.executed()) == ALL - {"download", "prepare", "prompts"}
    part = "data/embeddings/images/part-00000.h5"
    assert outputs(workspace)[part] != before[part]


def test_a_change_to_the_report_runs_the_report_alone_and_from_the_workspace(workspace: Workspace) -> None:
    source = workspace.folder / "clipcifar" / "render" / "table.py"
    source.write_text(source.read_text().replace('"# Methods"', '"# Of the workspace"'))
    workspace.repro()
    assert workspace.executed() == ["report"]
    assert workspace.read("report/methods.md").startswith(b"# Of the workspace")


def test_a_run_from_nothing_without_dvc_gives_the_same_bytes(finished: Workspace, tmp_path: Path) -> None:
    """With DVC killed and begun again: test_killed.py."""
    (folder := tmp_path / "other").mkdir()
    assert from_scratch.computed(folder, finished.read("params.yaml")) == outputs(finished)


@pytest.mark.parametrize(
    ("change", "expected"),
    first(
        2,
        [
            (
                lambda s: s["prompts"]["sets"]["photo"].update(templates=["a photo of a {classnam}."]),
                "prompts.sets.photo.templates[0]",
            ),
            (lambda s: s.update(promts={}) or _reword(s), "did you mean prompts?"),
            (lambda s: s["prompts"].update(active="foto"), "did you mean photo?"),
            (lambda s: s["prompts"].update(actve="photo"), "did you mean active?"),
        ],
    ),
)
def test_a_bad_edit_costs_no_embeddings_and_reverting_runs_nothing(
    workspace: Workspace, change: Any, expected: str
) -> None:
    before, params = outputs(workspace), workspace.read("params.yaml")
    workspace.edit(change)
    failed = workspace.repro(check=False)
    assert failed.returncode != 0
    assert expected in failed.stderr
    assert "Traceback" not in failed.stderr
    assert workspace.executed() == ["prompts"]
    (workspace.folder / "params.yaml").write_bytes(params)
    workspace.repro()
    assert workspace.executed() == []
    assert outputs(workspace) == before


def test_a_sweep_runs_what_zero_shot_needs_and_a_failed_run_is_told_as_failed(workspace: Workspace) -> None:
    settings, params = workspace.settings(), workspace.folder / "params.yaml"
    shutil.copyfile(ROOT / "params.yaml", params)
    edit_params(params, lambda document: document["prompts"].update(sets={}))
    edit_params(params, lambda document: overlay(document, settings))
    assert strict_yaml.load_mapping(params) == settings  # as the project has it, comments and all
    workspace.commit("params.yaml as a person edits it")
    before, text = json.loads(workspace.read("metrics/zero_shot.json"))["accuracy"], params.read_bytes()
    run = ("dvc", "exp", "run", "--queue", "zero_shot")
    workspace.command(*run, "--name", "set", "-S", "prompts.active=digits,digit")
    override = 'prompts.sets.photo.templates=["the digit: {classname}."]'
    workspace.command(*run, "--name", "worded", "-S", override)
    done = workspace.command("dvc", "exp", "run", "--run-all")
    assert "Failed to reproduce experiment(s) 'set-2'" in done.stdout + done.stderr
    ran = [*["prompts"] * 3, *["embed_active"] * 2, *["zero_shot"] * 2]
    assert sorted(workspace.executed()) == sorted(ran)
    assert params.read_bytes() == text

    pages = [(ROOT / page).read_text() for page in ("README.md", "docs/comparing.md")]
    (shown,) = {line[2:] for page in pages for line in page.splitlines() if "dvc exp show" in line}
    table = workspace.command(*shlex.split(shown), "--csv").stdout.splitlines()
    rows = {row["Experiment"]: row for row in csv.DictReader(table)}
    assert set(rows) == {"", "set-1", "worded"}, "of the failed set-2 DVC would show what git holds"
    said = {name: float(row["metrics/zero_shot.json:accuracy"]) for name, row in rows.items()}
    assert said[""] == before  # of the workspace and the commit
    assert before not in (said["set-1"], said["worded"])
    assert {name: row["prompts.active"] for name, row in rows.items()} == {
        **{"": "photo", "set-1": "digits", "worded": "photo"}
    }
    printed = workspace.command(*shlex.split(shown)).stdout
    assert max(map(len, [shown, *printed.splitlines()])) < 100
    assert "metrics/zero_shot.json:accuracy   prompts.active" in printed  # no head is cut
    assert "did you mean digits?" in workspace.command("dvc", "queue", "logs", "set-2").stdout

    experiments = json.loads(workspace.command("dvc", "exp", "show", "--json").stdout)[-1]["experiments"]
    for item in experiments:
        measured = item["revs"][0]["data"]["metrics"]
        assert not [path for path in measured if "details" in path], "the headline alone"
    (failed,) = [item["revs"][0]["rev"] for item in experiments if item["name"] == "set-2"]
    for name, method in ((failed, "zero_shot"), ("worded", "projection")):  # neither ran it
        compared = workspace.command("clipcifar", "compare", "HEAD", name, "--method", method)
        assert f"{method} of {name} is stale" in compared.stdout + compared.stderr


def test_the_prompts_that_the_search_found_do_as_it_said(workspace: Workspace) -> None:
    """Kept as a set and made active, they are the very classifier that was asked on test."""
    said = headline.read(workspace.folder / "metrics", "rank_prompts")
    printed = workspace.command("clipcifar", "search", "--write", "best").stdout
    gain = json.loads(workspace.read("data/ranking.json"))["gain"]["train"]  # metrics are rounded
    assert f"Gain over photo: {100 * gain:+.2f} points" in printed
    assert workspace.settings()["prompts"]["active"] == "photo"
    workspace.edit(lambda settings: settings["prompts"].update(active="best"))
    workspace.repro("zero_shot")
    found = headline.read(workspace.folder / "metrics", "zero_shot")
    common = ("accuracy", "n_correct", "ece", "nll", "calibrated", "per_class")
    assert {key: found[key] for key in common} == {key: said[key] for key in common}


def test_weights_of_templates_reach_the_classifier(workspace: Workspace) -> None:
    """From params.yaml by way of the expanded set and its embeddings, and the same from Python."""
    values = {"template_mode": "shared", "templates": ["a [scan|photo] of a {classname}."], "weights": [7, 1]}

    def weigh(settings: Any) -> None:
        settings["prompts"]["sets"]["mine"] = values
        settings["prompts"]["active"] = "mine"

    workspace.edit(weigh)
    workspace.repro("zero_shot", "embed_texts")
    project = clipcifar.open(workspace.folder)
    texts, test = project.prompt_set("mine"), project.images("test").embeddings
    of_class = [texts.embeddings[texts.class_index == label] for label in range(10)]
    sums = np.array([7 * scan + photo for scan, photo in of_class])
    rows = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    expected = float(project.provenance["logit_scale"]) * test @ rows.T
    np.testing.assert_allclose(project.scored("zero_shot").scores, expected, atol=1e-3)
    np.testing.assert_allclose(project.zero_shot("mine").scores(test), expected, atol=1e-3)
    plain = project.zero_shot(templates=values["templates"]).scores(test)
    assert np.abs(plain - expected).max() > 0.1


def test_the_report_is_a_page_with_the_runs_numbers_and_pictures(workspace: Workspace) -> None:
    html = workspace.read("report/index.html").decode()
    for method in METHODS:
        accuracy = json.loads(workspace.read(f"metrics/{method}.json"))["accuracy"]
        assert f"{accuracy:.4f}" in html
    assert html.count("data:image/png;base64,") > 40


def test_every_plot_renders(workspace: Workspace) -> None:
    workspace.command("dvc", "plots", "show", "--out", "shown")
    html = workspace.read("shown/index.html").decode()
    stages = yaml.safe_load(workspace.read("dvc.yaml"))["stages"].values()
    declared = [options for stage in stages for entry in stage.get("plots", []) for options in entry.values()]
    assert len(declared) == 28
    assert "var spec = {};" not in html, "an empty panel"
    for options in declared:
        assert options["title"] in html
    for value in ("seven", "val_accuracy", "predicted"):
        assert value in html
    workspace.edit(_reword)
    workspace.repro("zero_shot")
    workspace.command("dvc", "plots", "diff", "HEAD", "--out", "both", "--targets", "plots/zero_shot")
    both = workspace.read("both/index.html").decode()
    assert "HEAD" in both
    assert "workspace" in both
    drawn = workspace.command("dvc", "plots", "diff", "HEAD", "--json")
    assert drawn.stderr == ""
    panels = json.loads(drawn.stdout)
    assert set(panels) == {"data"}
    assert {name: len(made) for name, made in panels["data"].items()} == dict.fromkeys(panels["data"], 1)
    assert panels["data"]["metrics/details/zero_shot.json"][0]["revisions"] == ["workspace", "HEAD"]


def _photograph(seed: int, size: tuple[int, int], tint: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 120, (*size, 3)).astype(np.uint8)
    pixels[..., tint] += 100
    return Image.fromarray(pixels)


def _write_photographs(root: Path) -> None:
    """Three classes of photographs of odd sizes and formats."""
    for split, count in (("train", 6), ("test", 3)):
        for tint, class_name in enumerate(("brick", "leaf", "sky")):
            folder = root / split / class_name
            folder.mkdir(parents=True)
            for i in range(count):
                name = f"{i}.{'png' if i % 2 else 'jpg'}"
                _photograph(100 * tint + i + 50 * (split == "test"), (40 + 7 * i, 60 - 3 * i), tint).save(
                    folder / name
                )


@pytest.fixture(scope="module")
def finished_photos(tmp_path_factory: pytest.TempPathFactory, tiny_clip: Path) -> Workspace:
    """A run on photographs, which lie in its own folder, so that a copy has its own."""
    made = made_once(tmp_path_factory, "photos", lambda folder: _run_on_photos(folder / "w", tiny_clip))
    return Workspace(made / "w")


def _run_on_photos(folder: Path, tiny_clip: Path) -> None:
    workspace = Workspace.create(folder, {})
    _write_photographs(folder / "photos")
    workspace.edit(lambda settings: settings["prompts"].update(sets={}))
    params = {
        **digits_params(),
        "dataset": {"name": "imagefolder", "path": "photos"},
        "model": {"name": f"local-dir:{tiny_clip}", "pretrained": None, "path": str(tiny_clip)},
        "split": {"val_fraction": 0.3},
    }
    workspace.edit(lambda settings: overlay(settings, params))
    workspace.commit("params")
    workspace.repro()
    assert set(workspace.executed()) == ALL


def test_three_classes_of_photographs_give_three_classes_of_metrics(finished_photos: Workspace) -> None:
    for method in METHODS:
        metrics = headline.read(finished_photos.folder / "metrics", method)
        assert list(metrics["per_class"]) == ["brick", "leaf", "sky"]
        assert metrics["n"] == 9


@pytest.mark.parametrize("kind", first(1, ["added", "changed", "removed"]))
def test_a_photograph_added_changed_or_removed_is_noticed(
    finished_photos: Workspace, tmp_path: Path, kind: str
) -> None:
    workspace = finished_photos.copy(tmp_path / "w")
    target = workspace.folder / "photos/train/leaf" / ("new.jpg" if kind == "added" else "0.jpg")
    assert "stale" not in workspace.command("clipcifar", "show").stdout
    if kind == "removed":
        target.unlink()
    else:
        _photograph(7, (33, 44), 1).save(target)
    shown = workspace.command("clipcifar", "show").stdout
    assert shown.count("is stale, changed since it was made: photos; run") == len(METHODS)
    workspace.repro("embed_images")
    shown = workspace.command("clipcifar", "show").stdout
    assert shown.count("is stale, changed since it was made: data/embeddings/images") == len(METHODS)
    ran = {*workspace.executed()}
    workspace.repro()
    assert "stale" not in workspace.command("clipcifar", "show").stdout
    # The class names are the same, so nothing on the text side runs; weights stay too.
    assert ran | set(workspace.executed()) == ALL - {
        "download",
        "prompts",
        "fetch_model",
        "embed_active",
        "embed_texts",
        "embed_pool",
    }
    counts = {"added": 19, "changed": 18, "removed": 17}
    sets = headline.read(workspace.folder / "metrics", "prompt_sets")
    assert sets["photo"]["train"]["n"] == counts[kind]


def test_without_a_network_the_message_says_what_to_do(tmp_path: Path) -> None:
    """The committed params.yaml, that is the real run, where nothing can be reached."""
    workspace = Workspace.create(tmp_path / "w", {})
    nowhere = "http://127.0.0.1:9"
    workspace.environment.update(
        HTTP_PROXY=nowhere, HTTPS_PROXY=nowhere, http_proxy=nowhere, https_proxy=nowhere
    )
    workspace.environment.update(HF_HOME=str(tmp_path / "hub"), NO_PROXY="", no_proxy="")
    failed = workspace.repro("download", check=False)
    assert failed.returncode != 0
    for part in (
        "cifar-10-python.tar.gz",
        "dataset.path",
        "make demo",
        workspace.environment["CLIPCIFAR_CACHE"],
    ):
        assert part in failed.stderr
    assert "Traceback" not in failed.stderr
    failed = workspace.repro("fetch_model", check=False)
    assert failed.returncode != 0
    for part in ("open_clip_model.safetensors", "model.path", "make demo"):
        assert part in failed.stderr
    assert "Traceback" not in failed.stderr
