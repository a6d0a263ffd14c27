"""What `clipcifar doctor` says of DVC's files, and its commands followed to the letter."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from clipcifar.core.errors import ClipcifarError, ConfigError, DataError, EnvironmentFault
from clipcifar.doctor import checks as doctor
from clipcifar.project import dvc_faults, dvc_project
from clipcifar.project.outputs import check_outputs
from tests.support.command_line import make_project
from tests.support.harmed import flip, follow, problems
from tests.support.nightly import first
from tests.support.workspace import Workspace, outputs

pytestmark = pytest.mark.pipeline


def _object(workspace: Workspace, name: str) -> Path:
    """The object of DVC's cache that an output of the run stands in."""
    lock = workspace.read("dvc.lock").decode()
    md5 = lock.split(f"path: {name}\n")[1].split("md5: ")[1].split("\n")[0]
    return workspace.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def _member(workspace: Workspace, name: str) -> Path:
    """The object of a file of an output folder."""
    folder, _, file = name.rpartition("/")
    md5 = dvc_project.listing(_object(workspace, folder))[file]
    return workspace.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def test_the_digests_are_those_of_dvc(at: Workspace) -> None:
    project = dvc_project.read(at.folder)
    assert {output.path.as_posix() for output in project.outputs} >= {"data/raw", "metrics/zero_shot.json"}
    for output in project.outputs:
        assert dvc_project.digest_of(at.folder / output.path, at.folder) == output.digest
    assert dvc_project.digest_of(at.folder / "nothing", at.folder) == ""
    assert at.folder / "stages/prepare.py" in project.sources
    assert at.folder / "data/demo/clip" in project.sources
    assert not any(path.is_relative_to(at.folder / "data/embeddings") for path in project.sources)


def test_files_lost_edited_and_swapped_are_brought_back_by_one_command(at: Workspace) -> None:
    before = outputs(at)
    texts = at.folder / "data/embeddings/texts"
    (texts / "photo.h5").rename(texts / "kept")
    (texts / "digits.h5").rename(texts / "photo.h5")
    (texts / "kept").rename(texts / "digits.h5")
    shutil.rmtree(at.folder / "plots")
    (at.folder / "data/weights/open_clip_model.safetensors").write_bytes(b"cut")
    (at.folder / "data/model.json").unlink()
    (at.folder / "data/classes.json").write_text("[]")
    (at.folder / "metrics/zero_shot.json").write_text("{}")
    (at.folder / "data/splits.h5").unlink()
    (at.folder / "data/splits.h5").mkdir()
    found = problems(at)
    first = next(error for name, error in found if name == "outputs")
    for part in ("data/splits.h5", "data/classes.json", "data/weights/open_clip_model.safetensors", "more"):
        assert part in first.what
    assert "kept" not in first.what
    assert "rm -rf data/splits.h5 data/classes.json data/weights data/embeddings/texts" in first.fix
    assert [error.what for name, error in found if name == "params.yaml"] == ["not a list of class names"]
    follow(at, first.fix)
    assert problems(at) == []
    assert outputs(at) == before
    at.repro()
    assert at.executed() == []


def test_after_git_checkout_alone_nothing_is_called_damaged_and_nothing_deleted(at: Workspace) -> None:
    before = outputs(at)
    at.edit(lambda s: s["prompts"]["sets"]["photo"].update(templates=["a scan of a {classname}."]))
    at.repro("zero_shot")
    at.commit("another template")
    at.command("git", "checkout", "--quiet", "HEAD~1")
    (error,) = [error for name, error in problems(at) if name == "outputs"]
    names = ["data/prompts", "data/embeddings/active", "data/predictions/zero_shot.h5"]
    assert error.what == f"{', '.join(names)} are of another run than dvc.lock records"
    assert error.fix == f"dvc checkout {' '.join(names)}"
    follow(at, error.fix)
    assert problems(at) == []
    assert outputs(at) == before


@pytest.mark.parametrize("whole", [True, False], ids=["workspace whole", "workspace harmed too"])
def test_damaged_objects_of_the_cache_are_mended_by_the_command(at: Workspace, whole: bool) -> None:
    """The workspace must not be restored from them, nor they be filled from a harmed workspace."""
    names = ("data/embeddings/texts/digits.h5", "data/predictions/zero_shot.h5")
    before = {name: at.read(name) for name in names}
    stored = [_member(at, names[0]), _object(at, names[1])]
    for name, file in zip(names, stored, strict=True):
        flip(file)
        if not whole:
            (at.folder / name).write_bytes(file.read_bytes())
    errors = [error for name, error in problems(at) if name == "outputs"]
    assert [("dvc commit" in error.fix) for error in errors] == [whole]
    assert all(name in errors[0].what for name in names)
    follow(at, errors[0].fix)
    for name, file in zip(names, stored, strict=True):
        assert at.read(name) == before[name]
        assert file.read_bytes() == before[name]
    assert problems(at) == []


def test_a_lost_cache_is_filled_again_without_computing_anything(at: Workspace) -> None:
    shutil.rmtree(at.folder / ".dvc/cache")
    ((name, error),) = problems(at)
    assert name == "outputs"
    assert "more are missing or damaged in DVC's cache" in error.what
    follow(at, error.fix)
    assert problems(at) == []
    at.repro()
    assert at.executed() == []


def test_the_command_never_passes_old_results_off_as_those_of_an_edit(at: Workspace) -> None:
    stored = _object(at, "data/prompts")
    os.chmod(stored.parent, 0o755)
    stored.unlink()
    at.edit(lambda settings: settings["prompts"]["sets"]["photo"].update(templates=["{classname}!"]))
    ((_, error),) = problems(at)
    assert error.fix == "dvc repro prompts"
    follow(at, error.fix)
    assert json.loads(at.read("data/prompts/photo.json"))["sentences"][0] == "zero!"
    assert problems(at) == []


def test_a_damaged_object_of_an_earlier_run_is_only_removed(at: Workspace) -> None:
    old = _object(at, "data/predictions/zero_shot.h5")
    at.edit(lambda settings: settings["prompts"]["sets"]["photo"].update(templates=["{classname}!"]))
    at.repro("zero_shot")
    flip(old)
    ((name, error),) = problems(at)
    assert name == "DVC's cache"
    assert "1 of " in error.what
    assert "earlier runs" in error.what
    follow(at, error.fix)
    assert problems(at) == []
    assert not old.exists()


def _text(path: str, content: str) -> Callable[[Workspace], object]:
    return lambda workspace: (workspace.folder / path).write_text(content)


def _cut(path: str) -> Callable[[Workspace], object]:
    return lambda w: (w.folder / path).write_text(w.read(path).decode()[:900] + "\n  [x: :")


@pytest.mark.parametrize(
    ("harm", "where", "error"),
    first(
        5,
        [
            (lambda w: (w.folder / "dvc.lock").unlink(), "dvc.lock", DataError),
            (_cut("dvc.yaml"), "dvc.yaml", ConfigError),
            (lambda w: shutil.rmtree(w.folder / ".dvc"), "", ConfigError),
            (_text(".dvc/tmp/rwlock", '{"half'), ".dvc/tmp/rwlock", EnvironmentFault),
            (lambda w: (w.folder / "stages/zero_shot.py").unlink(), "", DataError),
            (_cut("dvc.lock"), "dvc.lock", ConfigError),
            (_text(".dvc/config", "[core\nx"), "", ConfigError),
            (lambda w: shutil.rmtree(w.folder / ".git"), "", ConfigError),
            (_text(".dvc/tmp/rwlock", "[]"), ".dvc/tmp/rwlock", EnvironmentFault),
            (lambda w: (w.folder / "data/none").unlink(), "", DataError),
        ],
    ),
)
def test_what_keeps_dvc_from_starting_is_named_and_mended(
    at: Workspace, harm: Callable[[Workspace], object], where: str, error: type[ClipcifarError]
) -> None:
    harm(at)
    ((_, found),) = problems(at)
    assert isinstance(found, error)
    assert found.where == str(at.folder / where)
    follow(at, found.fix)
    for _, then in problems(at):  # with .dvc the cache was lost
        assert found.fix == "git checkout HEAD -- .dvc"
        follow(at, then.fix)
    assert problems(at) == []
    at.repro()
    assert at.executed() == []


def test_values_that_dvc_cannot_use_are_told_by_us(at: Workspace) -> None:
    """On the first DVC itself says "unexpected error"."""
    good = at.read("params.yaml")
    for change, part in (
        (lambda s: s["model"].update(path=None), "write data/none where there is none"),
        (
            lambda s: s["prompts"].update(active=["photo"]),
            "prompts.active is ['photo'] (list), expected text",
        ),
    ):
        at.edit(change)
        assert at.repro(check=False).returncode != 0
        found = problems(at)
        assert found[0][0] == "params.yaml"
        assert part in str(found[0][1])
        assert "mend params.yaml" in found[1][1].fix
        assert len(found) == 2
        (at.folder / "params.yaml").write_bytes(good)
    at.edit(lambda s: s["model"].update(name="local-dir:/nowhere", path="/nowhere"))
    (found_path, _) = problems(at)
    assert found_path[0] == "sources"
    assert found_path[1].where == "params.yaml: model.path"


def test_an_edit_that_was_not_run_is_no_problem_and_is_named(at: Workspace) -> None:
    at.edit(lambda s: s["prompts"].update(active="digits"))
    done = at.command("clipcifar", "doctor")
    (line,) = [line for line in done.stdout.splitlines() if "changed since" in line]
    assert line == (
        "ok       stages: prompts, embed_active, embed_texts, zero_shot, prompt_sets, prompt_weighting, "
        "rank_prompts, gda, projection, report: changed since they ran: prompts.active; "
        "to bring them up to date: dvc repro"
    )
    assert done.stdout.splitlines()[-1] == "No problem found."


def test_dvcs_notes_elsewhere_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "a" / "cache.db").parent.mkdir()
    (tmp_path / "a" / "cache.db").write_bytes(b"SQLite format 3\0 and more")
    (tmp_path / "empty.db").write_bytes(b"")
    dvc_faults.check_notes(tmp_path, tmp_path, tmp_path)
    (tmp_path / "a" / "cache.db").write_bytes(b"garbage garbage garbage")
    with pytest.raises(EnvironmentFault) as caught:
        dvc_faults.check_notes(tmp_path, tmp_path, tmp_path)
    assert caught.value.fix == f"rm -rf {tmp_path}"


def test_a_folder_without_a_project_is_told_as_such_after_the_environment(tmp_path: Path) -> None:
    *_, (before, _), (name, said) = doctor.examine(tmp_path)
    assert (before, name) == ("environment", "project")
    assert isinstance(said, ConfigError)
    assert said.where == str(tmp_path)
    with pytest.raises(ConfigError, match="DVC says"):
        list(check_outputs(make_project(tmp_path)))
