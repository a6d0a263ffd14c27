"""Nothing of DVC or git breaks over studies: none run, one run, one failed; in clones, with a remote."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from clipcifar.project.studies import Study, check_studies
from tests.support.once import made_once
from tests.support.workspace import NOT_RUN, Workspace

pytestmark = pytest.mark.pipeline
STUDY, PAGE = "near_duplicates", "report/near_duplicates.html"
OUT = "data/studies/near_duplicates/metrics.json"
Clone = Callable[[], Workspace]


@pytest.fixture(scope="module")
def published(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare repository with a finished run, whose results lie in a folder as DVC's remote."""
    folder = made_once(tmp_path_factory, "published", lambda folder: _publish(finished, folder))
    return folder / "bare.git"


def _publish(finished: Workspace, folder: Path) -> None:
    workspace = finished.copy(folder / "w")
    workspace.edit(lambda settings: settings[STUDY].update(threshold=0.99))
    workspace.edit(lambda settings: settings["ensemble"].update(steps=4))
    quick = {"names": ["darkness"], "severities": [2], "max_per_class": 2}
    workspace.edit(lambda settings: settings["corruptions"].update(quick))
    workspace.command("dvc", "remote", "add", "--default", "store", str(folder / "store"))
    workspace.commit("published")
    workspace.command("dvc", "push")
    workspace.command("git", "clone", "--quiet", "--bare", ".", str(folder / "bare.git"))


@pytest.fixture
def clone(published: Path, tmp_path: Path) -> Clone:
    """Fresh clones of a repository of this test's own."""
    own, numbers = tmp_path / "bare.git", itertools.count()
    subprocess.run(["git", "clone", "--quiet", "--bare", published, own], check=True)

    def make() -> Workspace:
        folder = tmp_path / f"clone{next(numbers)}"
        subprocess.run(["git", "clone", "--quiet", own, folder], check=True)
        return Workspace(folder)

    return make


def _is_visible(workspace: Workspace, name: str = STUDY) -> bool:
    study = Study(workspace.folder, name)
    assert study.is_hidden != study.is_recorded
    return not study.is_hidden


def _changed(workspace: Workspace) -> list[str]:
    return workspace.command("git", "status", "--porcelain").stdout.splitlines()


def _nothing_breaks(mine: Workspace, theirs: Workspace) -> None:
    """Every command here ends with 0, which `command` asserts."""
    runs = ("dvc", "exp", "run", "--set-param", "ensemble.steps=3")  # which no stage of dvc.yaml reads
    mine.command("dvc", "pull")
    mine.command("dvc", "checkout")
    mine.command("dvc", "status")
    mine.command("dvc", "status", "--cloud")
    mine.command("dvc", "commit", "--force")
    mine.command("dvc", "exp", "save", "--name", "saved")
    before = mine.read("params.yaml")
    mine.command(*runs, "--name", "here")
    (mine.folder / "params.yaml").write_bytes(before)
    mine.command(*runs, "--name", "aside", "--temp")
    mine.command("dvc", "exp", "apply", "aside")
    (mine.folder / "params.yaml").write_bytes(before)
    mine.command("dvc", "push")
    mine.command("dvc", "exp", "push", "origin", "aside")
    theirs.command("dvc", "pull")
    theirs.command("dvc", "exp", "pull", "origin", "aside")
    theirs.command("dvc", "exp", "apply", "aside")
    mine.command("dvc", "gc", "--workspace", "--force")
    assert [found for found in check_studies(mine.folder) if not isinstance(found, str)] == []
    mine.commit("all of it")
    mine.command("dvc", "install")
    mine.command("git", "checkout", "--quiet", "HEAD~1")
    mine.command("git", "checkout", "--quiet", "-")
    mine.command("git", "commit", "--quiet", "--allow-empty", "--message", "with DVC's hooks")
    mine.command("git", "push", "--quiet", "origin", "HEAD:refs/heads/mine")


def test_with_no_study_run(clone: Clone) -> None:
    mine = clone()
    _nothing_breaks(mine, clone())
    assert not _is_visible(mine)
    refused = mine.repro(f"studies/{STUDY}/dvc.yaml", check=False)
    assert "is dvc-ignored" in refused.stderr  # as studies/README.md says
    (mine.folder / "studies" / STUDY / ".dvcignore").unlink()  # negative control
    for command in ("pull", "checkout", "commit"):
        assert mine.command("dvc", command, check=False).returncode != 0, command


def test_with_one_run_and_committed_elsewhere(clone: Clone) -> None:
    first = clone()
    first.command("dvc", "pull")
    said = first.start_study(STUDY).stdout
    assert first.executed() == [STUDY]
    assert PAGE in said.splitlines()[-1]
    folder = f"studies/{STUDY}"
    assert _changed(first) == [f" D {folder}/.dvcignore", f" M {folder}/dvc.lock"]
    first.command("git", "commit", "--quiet", "--all", "--message", "study")
    first.command("dvc", "push")
    first.command("git", "push", "--quiet")
    mine = clone()
    _nothing_breaks(mine, clone())
    assert _is_visible(mine)
    assert mine.read(OUT) == first.read(OUT)
    assert mine.read(PAGE) == first.read(PAGE)
    mine.start_study(STUDY)
    assert mine.executed() == []  # nor does it run again
    swept = ("dvc", "exp", "run", "--queue", "--name", "swept", "--set-param", f"{STUDY}.threshold=0.98")
    mine.command(*swept, f"{folder}/dvc.yaml")
    mine.command("dvc", "exp", "run", "--run-all")
    mine.command("dvc", "exp", "apply", "swept")
    assert json.loads(mine.read(OUT))["n_duplicates"] > json.loads(first.read(OUT))["n_duplicates"]


@pytest.mark.nightly
def test_after_a_first_run_that_failed_at_once_or_on_the_way(clone: Clone) -> None:
    mine = clone()
    mine.command("dvc", "pull")
    before, script = mine.read("params.yaml"), mine.folder / "studies/corruptions/score.py"
    mine.edit(lambda settings: settings[STUDY].update(threshold=7))
    failed = mine.start_study(STUDY, check=False)
    assert failed.returncode == 255
    assert f"{STUDY} stays hidden" in failed.stderr
    (mine.folder / "params.yaml").write_bytes(before)
    assert _changed(mine) == []
    whole = script.read_text()
    script.write_text("raise SystemExit(3)\n")
    assert mine.start_study("corruptions", check=False).returncode == 255
    script.write_text(whole)
    assert _changed(mine) == [" M studies/corruptions/dvc.lock"]  # it names the first of two stages
    assert not _is_visible(mine, "corruptions")
    _nothing_breaks(mine, clone())
    mine.start_study("corruptions")
    assert mine.executed()[-1] == "corruptions"  # `dvc gc` may have deleted what the first stage made
    assert _is_visible(mine, "corruptions")


@pytest.mark.nightly
def test_an_experiment_made_aside_before_the_commit_has_the_studys_results(clone: Clone) -> None:
    """DVC carries changes of known files into its temporary folder, and leaves new files out."""
    mine, theirs = clone(), clone()
    mine.command("dvc", "pull")
    mine.start_study(STUDY)
    mine.command("dvc", "exp", "run", "--temp", "--name", "aside", "--set-param", "ensemble.steps=3")
    mine.command("dvc", "push")
    mine.command("dvc", "exp", "push", "origin", "aside")
    theirs.command("dvc", "exp", "pull", "origin", "aside")
    theirs.command("dvc", "exp", "apply", "aside")
    assert _is_visible(theirs)
    assert theirs.read(OUT) == mine.read(OUT)
    theirs.command("git", "checkout", "--quiet", "--", ".")
    assert not _is_visible(theirs)
    assert theirs.read(f"studies/{STUDY}/dvc.lock").decode() == NOT_RUN


@pytest.mark.nightly
def test_two_people_who_start_different_studies_can_merge(clone: Clone) -> None:
    people = {"ensemble": clone(), "label_errors": clone()}
    for name, workspace in people.items():
        workspace.command("dvc", "pull")
        workspace.start_study(name)
        workspace.commit(name)
        workspace.command("dvc", "push")
    first, second = people.values()
    first.command("git", "push", "--quiet")
    second.command("git", "pull", "--quiet", "--no-rebase", "--no-edit")
    second.command("git", "push", "--quiet")
    third = clone()
    third.command("dvc", "pull")
    for name, workspace in people.items():
        assert _is_visible(third, name)
        path = f"data/studies/{name}/metrics.json"
        assert third.read(path) == workspace.read(path)
