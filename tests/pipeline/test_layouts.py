"""A project below the root of git or DVC, in a worktree, in a clone: its commands, and what editors see."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clipcifar.project.worktree import check_worktree, first_tree
from tests.support import command_line
from tests.support.harmed import follow, problems
from tests.support.layouts import LAYOUTS, PROJECTS, below_dvc, below_git
from tests.support.nightly import first
from tests.support.once import made_once
from tests.support.workspace import Workspace, outputs

pytestmark = pytest.mark.pipeline
HERE, BESIDE = "here", "beside"  # experiments that are run in place, and with --temp
# What VS Code's extension for DVC, and Studio, ask for.
ASKED = [
    "exp show --json",
    "plots show --json",
    "plots diff HEAD here --json",
    "metrics show --json",
    "metrics diff HEAD here --json",
    "params diff HEAD here --json",
    "data status --json",
    "data status --granular --unchanged --untracked-files --json",
    "status --json",
]
# In one process, since starting DVC takes longer than most of these.
ASK = """
import json, os, sys, tempfile
from dvc.cli import main
answers = []
for asked in json.loads(sys.argv[1]):
    files = [tempfile.TemporaryFile("w+") for _ in range(2)]
    kept = [os.dup(stream) for stream in (1, 2)]
    for stream, file in zip((1, 2), files):
        os.dup2(file.fileno(), stream)
    code = main(asked.split())
    sys.stdout.flush(), sys.stderr.flush()
    for stream, copy in zip((1, 2), kept):
        os.dup2(copy, stream)
    answers.append([code, *(file.seek(0) or file.read() for file in files)])
print(json.dumps(answers))
"""


@pytest.fixture(scope="module", params=LAYOUTS)
def laid(request: Any, finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A layout with a tag, and experiments on another active prompt set; tests leave it as it is."""
    name = request.param

    def make(folder: Path) -> None:
        workspace = LAYOUTS[name](folder, finished)
        workspace.command("git", "tag", "first")
        for experiment in experiments(name):
            options = ["--temp"] if experiment == BESIDE else []
            asked = ["--quiet", "--name", experiment, *options, "-S", "prompts.active=digits"]
            workspace.command("dvc", "exp", "run", *asked, "zero_shot")
        workspace.command("git", "reset", "--quiet", "--hard")
        workspace.command("dvc", "checkout", "--quiet")

    return Workspace(made_once(tmp_path_factory, f"layout-{name}", make) / PROJECTS[name])


def experiments(name: str) -> list[str]:
    """What is run in a layout: with --temp where the copy that this makes is no copy of a plain clone."""
    return [HERE] if name in ("plain", "cloned") else [BESIDE, HERE]


Run = Callable[..., tuple[object, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in a folder of a workspace: exit code, what is printed, and what is said beside it."""
    monkeypatch.delenv("CLIPCIFAR_TRACEBACK", raising=False)

    def run(workspace: Workspace, *arguments: str, below: str = ".") -> tuple[object, str, str]:
        monkeypatch.chdir(workspace.folder / below)
        monkeypatch.setenv("CLIPCIFAR_CACHE", workspace.environment["CLIPCIFAR_CACHE"])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        return command_line.run(monkeypatch, *arguments), *capsys.readouterr()

    return run


def test_nothing_is_stale_and_no_stage_runs_again(laid: Workspace, finished: Workspace) -> None:
    laid.repro()
    assert laid.executed() == []
    assert outputs(laid) == outputs(finished)


def test_every_command_says_what_it_says_in_a_project_of_its_own(
    laid: Workspace, finished: Workspace, run: Run
) -> None:
    for command in (["show"], ["search"], ["compare", "photo", "digits"], ["verify"], ["study"]):
        assert run(laid, *command) == run(finished, *command)
    code, said, beside = run(laid, "doctor")
    assert (code, said.splitlines()[-1], beside) == (0, "No problem found.", "")


def test_tags_branches_commits_and_experiments_are_compared(
    laid: Workspace, finished: Workspace, run: Run
) -> None:
    branch = laid.command("git", "branch", "--show-current").stdout.strip()
    for name in ("first", branch, "HEAD~0", HERE, BESIDE):
        if name == BESIDE and BESIDE not in laid.command("dvc", "exp", "list", "--name-only").stdout:
            continue  # as `experiments` has it
        code, said, beside = run(laid, "compare", name, "workspace", "--json", below="studies/models")
        assert (code, beside) == (0, "")
        expected = ("digits", "photo") if name in (HERE, BESIDE) else ("photo", "photo")
        overall = json.loads(run(finished, "compare", *expected, "--json")[1])["overall"]
        assert json.loads(said)["overall"] == overall
        assert (overall["difference"] != 0) == (name in (HERE, BESIDE))


def errors_in(value: Any, path: str = "") -> Iterator[str]:
    """Where in what DVC printed an error is told; `exp show` has the key in every row, with nothing."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ("error", "errors") and item is not None:
                yield f"{path}/{key}: {item}"
            yield from errors_in(item, f"{path}/{key}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from errors_in(item, f"{path}/{i}")


def test_what_editors_read_is_json_without_an_error(laid: Workspace) -> None:
    answers = json.loads(laid.command(sys.executable, "-c", ASK, json.dumps(ASKED)).stdout)
    for asked, (code, printed, beside) in zip(ASKED, answers, strict=True):
        assert (code, beside) == (0, ""), asked
        said = json.loads(printed)
        assert list(errors_in(said)) == [], asked
        if asked not in ("status --json", "data status --json"):  # which have nothing to tell here
            assert said, asked


def test_a_file_that_is_none_would_be_told(workspace: Workspace) -> None:
    """The negative control of the test before."""
    (workspace.folder / "metrics" / "zero_shot.json").write_text("{")
    (workspace.folder / "plots" / "zero_shot" / "per_class.csv").unlink()
    asked = ["exp show --json", "metrics show --json", "plots show --json"]
    for _, printed, _ in json.loads(workspace.command(sys.executable, "-c", ASK, json.dumps(asked)).stdout):
        assert list(errors_in(json.loads(printed))) != []


@pytest.fixture(params=first(1, [below_dvc, below_git]))
def moved(request: Any, finished: Workspace, tmp_path: Path) -> Workspace:
    """A project below the root of git, or of DVC, to be harmed."""
    workspace: Workspace = request.param(tmp_path, finished)
    return workspace


def test_what_is_harmed_is_mended_by_the_doctors_own_commands(moved: Workspace) -> None:
    before = outputs(moved)
    dvc = next(place / ".dvc" for place in (moved.folder, *moved.folder.parents) if (place / ".dvc").is_dir())
    lock = moved.read("dvc.lock").decode()
    md5 = lock.split("path: data/predictions/zero_shot.h5\n")[1].split("md5: ")[1].split("\n")[0]
    stored = dvc / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    stored.chmod(0o644)
    for path in (stored, moved.folder / "data" / "predictions" / "zero_shot.h5"):
        path.write_bytes(b"harmed")
    error = next(error for name, error in problems(moved) if name == "outputs")
    follow(moved, error.fix)
    assert problems(moved) == []
    assert outputs(moved) == before
    (dvc / "tmp" / "rwlock").write_text('{"half')
    ((_, error),) = problems(moved)
    assert error.where == str(dvc / "tmp" / "rwlock")
    follow(moved, error.fix)
    assert problems(moved) == []
    # DVC's own folder is gone, the cache with it: what git holds comes back, then what the workspace holds.
    shutil.rmtree(dvc)
    (_, error), *_ = problems(moved)
    folder = os.path.relpath(dvc, moved.folder)
    assert error.fix == f"git checkout HEAD -- {folder}"
    follow(moved, error.fix)
    for _, error in problems(moved):
        follow(moved, error.fix)
    assert problems(moved) == []
    moved.repro()
    assert moved.executed() == []
    assert outputs(moved) == before


def test_a_file_of_another_project_is_told_as_its_own(finished: Workspace, tmp_path: Path) -> None:
    workspace = below_dvc(tmp_path, finished)
    other = workspace.folder.parent / "other" / "dvc.yaml"
    other.write_text("stages: [")
    (_, error), *_ = problems(workspace)
    assert error.where == str(other)
    assert error.fix == "git checkout HEAD -- ../other/dvc.yaml"
    follow(workspace, error.fix)
    assert problems(workspace) == []


def test_a_study_makes_no_second_dvc_repository_in_the_project(finished: Workspace, tmp_path: Path) -> None:
    workspace = below_dvc(tmp_path, finished)
    workspace.start_study("ensemble")
    assert workspace.executed() == ["ensemble"]
    assert not (workspace.folder / ".dvc").exists()
    assert problems(workspace) == []
    assert "ensemble         run " in workspace.command("clipcifar", "study").stdout


def test_what_dvc_add_keeps_is_no_stages_output(finished: Workspace, tmp_path: Path) -> None:
    workspace = finished.copy(tmp_path / "w")
    photos = workspace.folder / "photos"
    photos.mkdir()
    (photos / "a.txt").write_text("a photo")
    workspace.command("dvc", "add", "--quiet", "photos")
    assert problems(workspace) == []
    (photos / "a.txt").write_text("edited, and its owner's")  # no stage could make it again
    assert problems(workspace) == []
    workspace.edit(lambda settings: settings["dataset"].update(path="photos"))
    workspace.command("dvc", "checkout", "--quiet", "--force", "photos.dvc")
    shutil.rmtree(photos)
    lost = [error for name, error in problems(workspace) if name == "sources"]
    assert [error.fix for error in lost] == ["dvc checkout photos.dvc"]
    follow(workspace, lost[0].fix)
    assert (photos / "a.txt").read_text() == "a photo"


def test_a_new_worktree_is_pointed_to_the_cache_of_the_first(finished: Workspace, tmp_path: Path) -> None:
    first = below_git(tmp_path, finished)
    first.command("git", "worktree", "add", "--quiet", "-b", "tree", str(tmp_path / "tree"))
    tree = Workspace(tmp_path / "tree" / "teams" / "project")
    assert first_tree(first.folder) is None
    assert first_tree(tree.folder) == first.folder
    (name, error), *_ = problems(tree)
    assert name == "worktree"
    follow(tree, error.fix)
    assert problems(tree) == []
    assert outputs(tree) == outputs(first)
    assert list(check_worktree(first.folder)) == []
