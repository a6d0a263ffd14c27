"""`clipcifar try` and `compare` on a finished run, their numbers against those that the stages wrote."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from clipcifar.store.images import read_images
from clipcifar.store.predictions import read_predictions
from tests.support import command_line
from tests.support.workspace import SETS, Workspace

pytestmark = pytest.mark.pipeline
DIGITS = SETS["digits"]["templates"][0]


@pytest.fixture
def run(at: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The command line in the run's folder: exit code, what is printed, and what is said beside it."""
    monkeypatch.chdir(at.folder)
    monkeypatch.delenv("CLIPCIFAR_TRACEBACK", raising=False)

    def run(*arguments: str, typed: str = "") -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        return command_line.run(monkeypatch, *arguments), *capsys.readouterr()

    return run


def accuracies(at: Workspace, split: str) -> tuple[float, float]:
    """What the stage prompt_sets wrote of the active set and of the other one."""
    of_test = json.loads(at.read("metrics/prompt_sets.json"))
    written = of_test if split == "test" else json.loads(at.read("metrics/details/prompt_sets.json"))
    photo, digits = (
        written[name] if split == "test" else written[name][split] for name in ("photo", "digits")
    )
    return photo["accuracy"], digits["accuracy"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_prompt_that_is_tried_has_the_accuracy_that_its_set_has(
    at: Workspace, run: Any, split: str
) -> None:
    photo, digits = accuracies(at, split)
    assert photo != digits
    code, said, beside = run("try", DIGITS, *(["--on", "test"] if split == "test" else []))
    assert (code, beside) == (0, "")
    assert said.startswith(f"top-1 {digits:.4f}, photo {photo:.4f} (")
    assert f" {split} images)\n" in said


def test_a_semicolon_separates_templates_in_a_shell_as_it_does_in_a_session(run: Any) -> None:
    apart = run("try", "a {classname}", "the {classname}")
    assert apart[0] == 0
    assert run("try", "a {classname}; the {classname};") == apart  # the same trial, word for word


def test_every_shell_counts_on_and_git_sees_nothing_of_it(at: Workspace, run: Any) -> None:
    before = at.command("git", "status", "--short").stdout
    assert run("try", DIGITS)[1].endswith("\ntrial 1 of this session.\n")
    second = run("try", "a {classname}")[1].splitlines()
    assert second[2].startswith("trial 2 of this session")
    assert run("try", "--on", "test", "a {classname}")[1].endswith("\ntrial 1 of this session.\n")
    assert ", of 2 so far" in run("try", DIGITS)[1]  # word for word the same trial
    at.edit(lambda settings: settings["prompts"].update(active="digits"))
    assert run("try", "a {classname}")[1].splitlines()[2].startswith("trial 1 of this session")
    at.edit(lambda settings: settings["prompts"].update(active="photo"))
    said = "2 trials against photo on the train images forgotten: the correction starts anew and does not"
    code, forgotten, beside = run("try", "--reset", "a {classname}")
    assert (code, beside) == (0, "")
    assert forgotten.startswith(said)
    assert "\ntrial 1 of this session" in forgotten
    assert run("try", "--reset") == (0, said.replace("2 trials", "1 trial") + " cover them\n", "")
    assert run("try", "--reset", "--on", "test")[1].startswith("1 trial against photo on the test images f")
    (at.folder / "data/trials.json").write_text("{")
    code, again, beside = run("try", DIGITS)
    assert (code, again.endswith("\ntrial 1 of this session.\n")) == (0, True)
    assert "note: the record of trials is damaged and begun anew" in beside
    assert at.command("git", "status", "--short").stdout == before


def test_what_is_no_prompt_is_told_where_it_belongs(run: Any) -> None:
    for given, words in (
        ("digits", "'digits' is a prompt set, and no prompt"),
        ("one: a stroke", "own sentences are tried in a session: 'one: a stroke'"),
        ("ten: a stroke", "does not name the class"),
    ):
        code, said, beside = run("try", given)
        assert (code, said) == (2, ""), given
        assert words in beside
    assert run("try", "one: {classname}")[0] == 0


def test_a_session_answers_line_by_line_and_keeps_what_was_tried(at: Workspace, run: Any) -> None:
    photo, digits = accuracies(at, "test")
    lines = [DIGITS, ":save kept", "no class", ":quit", "never read"]
    code, said, beside = run("try", "--on", "test", typed="\n".join(lines))
    assert code == 0
    assert beside == "loading the text tower …\n"
    assert f"top-1 {digits:.4f}, photo {photo:.4f} (" in said
    assert "error: the template 'no class' does not name the class" in said
    assert at.settings()["prompts"]["sets"]["kept"]["templates"] == [DIGITS]


def test_what_params_yaml_asks_for_is_what_is_tried(at: Workspace, run: Any) -> None:
    at.edit(lambda settings: settings["prompts"].update(active="digits"))
    code, said, beside = run("try", DIGITS)
    assert code == 0
    assert "right on exactly the same images" in said
    assert beside == ""  # the sentences and images of both sets are those of the last run
    at.edit(lambda settings: settings["model"].update(pretrained="openai"))
    code, said, beside = run("try", DIGITS)
    assert (code, said) == (2, "")
    assert "data/embeddings/images is stale, changed since it was made: model.pretrained" in beside


@pytest.mark.parametrize("form", [[], ["--md"]])
def test_two_sets_are_compared_as_a_table(at: Workspace, run: Any, form: list[str]) -> None:
    photo, digits = accuracies(at, "test")
    at.edit(lambda settings: settings["prompts"].update(active="digits"))
    code, said, beside = run("compare", "photo", "digits", *form)
    assert code == 0
    (row,) = [line for line in said.splitlines() if line.startswith("| all")]
    shown = [cell.strip() for cell in row.strip("|").split("|")]
    assert f"{photo:.4f}" in shown
    assert f"{digits:.4f}" in shown
    assert said.startswith("A = photo, B = digits\n")
    assert beside == ""


def test_a_comparison_as_json_says_what_both_sides_are_of(at: Workspace, run: Any) -> None:
    data = json.loads(run("compare", "HEAD", "digits", "--json")[1])
    made_of = read_images(at.folder / "data/embeddings/images").attributes
    names = ("dataset", "model", "pretrained", "weights_sha256")
    assert data["origin_a"] == data["origin_b"] == {name: made_of[name] for name in names}


def test_two_trained_heads_are_compared_over_seeds_and_images(at: Workspace, run: Any) -> None:
    """Recomputed from the files; a commit has what the workspace has, and a side without seeds adds none."""
    sides = [
        read_predictions(at.folder / f"data/predictions/{name}.h5") for name in ("mlp_probe", "projection")
    ]
    right = [side.by_seed == side.labels for side in sides]
    n = len(sides[0].labels)
    variance = (right[1].mean(axis=0) - right[0].mean(axis=0)).var(ddof=1) / n
    variance += sum(of_side.mean(axis=1).var(ddof=1) / 3 for of_side in right)
    code, said, _ = run("compare", "mlp_probe", "projection", "--json")
    assert code == 0
    seeds = json.loads(said)["seeds"]
    assert (seeds["n_a"], seeds["n_b"]) == (3, 3)
    assert seeds["crossed"]["difference"] == pytest.approx(right[1].mean() - right[0].mean())
    half = (seeds["crossed"]["high"] - seeds["crossed"]["low"]) / 2
    assert 1.9 < half / variance**0.5 < 4.4  # the t quantiles of many degrees of freedom and of two
    assert "Covering both: " in json.loads(said)["verdict"]
    assert "| seeds " in run("compare", "mlp_probe", "projection")[1]
    committed = json.loads(run("compare", "HEAD", "projection", "--method", "mlp_probe", "--json")[1])[
        "seeds"
    ]
    assert committed == seeds
    alone = json.loads(run("compare", "linear_probe", "mlp_probe", "--json")[1])["seeds"]
    assert (alone["n_a"], alone["n_b"]) == (0, 3)
    assert json.loads(run("compare", "zero_shot", "linear_probe", "--json")[1])["seeds"] is None


def test_a_method_is_refused_where_it_says_nothing(at: Workspace, run: Any) -> None:
    code, said, beside = run("compare", "photo", "set:digits", "--method", "linear_probe")
    assert (code, said) == (2, "")
    assert "and photo and set:digits are neither" in beside
    for side in ("HEAD", "workspace"):
        assert run("compare", "photo", side, "--method", "linear_probe")[0] == 0


def test_of_two_commits_nothing_of_params_yaml_is_said(at: Workspace, run: Any) -> None:
    at.edit(lambda settings: settings["prompts"].update(active="digits"))
    code, said, beside = run("compare", "HEAD", "HEAD")
    assert (code, beside) == (0, "")
    assert "right on exactly the same images" in said


def without_room(text: str) -> list[str]:
    """What is said, but for the free disk space, which other processes change."""
    return [line for line in text.splitlines() if "GB free in" not in line]


def test_from_a_folder_below_every_command_says_what_it_says_in_the_projects_own(
    at: Workspace, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study's folder has a dvc.yaml of its own; DVC reads git's and its own files from the root."""
    at.edit(lambda settings: settings["prompts"].update(active="digits"))
    below = at.folder / "studies" / "models"
    for name, *arguments in (
        ("show", "--per-class"),
        ("compare",),
        ("compare", "photo", "digits"),
        ("try", DIGITS),
        ("search",),
        ("models",),
        ("verify",),
        ("doctor",),
    ):
        monkeypatch.chdir(at.folder)
        here_code, here_said, here_beside = run(name, *arguments)
        monkeypatch.chdir(below)
        code, said, beside = run(name, *arguments)
        note = f"note: paths and commands are those of the project's folder, {at.folder}\n"
        assert (code, without_room(said)) == (here_code, without_room(here_said)), name
        assert beside.replace(note, "") == here_beside, name
        assert (note in beside) == (code != 0), name
    assert run("search", "--write", "kept")[0] == 2  # of the set that was active before
    at.edit(lambda settings: settings["prompts"].update(active="photo"))
    assert run("search", "--write", "kept")[0] == 0
    assert "kept" in at.settings()["prompts"]["sets"]
    assert not (below / "params.yaml").exists()
