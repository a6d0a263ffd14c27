"""A real DVC and a remote: what a clone has after pulling, what it embeds, and is told of what it lacks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipcifar.core.errors import ClipcifarError, DataError
from clipcifar.project import missing
from clipcifar.project.outputs import check_outputs
from tests.support import command_line
from tests.support.harmed import follow, problems
from tests.support.once import made_once
from tests.support.workspace import Workspace, outputs

pytestmark = pytest.mark.pipeline
EMBEDDING = ("embed_images", "embed_active", "embed_texts", "embed_pool")
IMAGES = "data/embeddings/images"
POOLED = "a cropped view of the {classname}."  # which the pool has too
PROBED = "data/predictions/linear_probe.h5"


@pytest.fixture(scope="module")
def origin(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The first machine: two commits with results, the second of them pushed to a remote of later."""
    return Workspace(made_once(tmp_path_factory, "pushed", lambda folder: _push(finished, folder)) / "w")


def _push(finished: Workspace, folder: Path) -> None:
    workspace = finished.copy(folder / "w")
    before = workspace.read(PROBED)
    workspace.edit(lambda settings: settings["linear_probe"].update(c_grid=[0.1]))
    workspace.repro()
    assert workspace.read(PROBED) != before
    workspace.commit("another grid")
    workspace.command("dvc", "remote", "add", "--default", "shared", str(folder / "remote"))
    workspace.commit("a remote")
    workspace.command("dvc", "push")


def remote_of(origin: Workspace) -> Path:
    return origin.folder.parent / "remote"


def clone(origin: Workspace, folder: Path, *pulled: str) -> Workspace:
    """A second machine: no cache folder, no file that git does not hold, and what a command brings."""
    folder.parent.mkdir(exist_ok=True)
    other = Workspace(folder)
    origin.command("git", "clone", "--quiet", str(origin.folder), str(folder))
    if pulled:
        other.command("dvc", *pulled)
    return other


@pytest.fixture
def other(origin: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A clone for which nothing was pulled, and this process as if started in it."""
    workspace = clone(origin, tmp_path / "other")
    monkeypatch.setenv("CLIPCIFAR_CACHE", workspace.environment["CLIPCIFAR_CACHE"])
    monkeypatch.chdir(workspace.folder)
    return workspace


def use_remote(workspace: Workspace, url: str | Path) -> None:
    """As a colleague has it whose remote lies elsewhere."""
    workspace.command("dvc", "remote", "modify", "--local", "shared", "url", str(url))


def comment(workspace: Workspace) -> None:
    """Let every stage run again."""
    path = workspace.folder / "clipcifar/core/errors.py"
    path.write_text(path.read_text() + "\n# a comment\n")


def edit_photo(workspace: Workspace, *templates: str) -> None:
    workspace.edit(lambda settings: settings["prompts"]["sets"]["photo"].update(templates=list(templates)))


def outputs_problems(workspace: Workspace) -> list[ClipcifarError]:
    return [said for said in check_outputs(workspace.folder) if isinstance(said, ClipcifarError)]


def said_by(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int | str | None, str]:
    """The exit code of a command and all that it has printed."""
    capsys.readouterr()
    code = command_line.run(monkeypatch, *arguments)
    return code, "".join(capsys.readouterr())


def test_a_clone_that_pulled_embeds_nothing_that_was_embedded_elsewhere(
    origin: Workspace, tmp_path: Path
) -> None:
    """Every stage runs; ten sentences are new, and those of a template that the pool has are not."""
    other = clone(origin, tmp_path / "other", "pull")
    assert outputs(other) == outputs(origin)
    comment(other)
    said = other.repro(*EMBEDDING).stdout
    assert set(other.executed()) >= set(EMBEDDING)
    assert "1,097 images were embedded before" in said
    assert said.count(" 0 of them new") == 3
    assert not list(Path(other.environment["CLIPCIFAR_CACHE"]).rglob("*.shard"))
    assert outputs(other) == outputs(origin)
    shutil.rmtree(other.environment["CLIPCIFAR_CACHE"])
    edit_photo(other, "a snap of a {classname}.", POOLED)
    said = other.repro(*EMBEDDING).stdout
    first, *others = other.executed()
    assert (first, sorted(others)) == ("prompts", ["embed_active", "embed_texts"])  # in DVC's order
    assert "20 sentences in photo, " in said
    assert "30 sentences in 2 sets, " in said
    assert (said.count(" 10 of them new"), said.count(" 0 of them new")) == (1, 1)  # known to the second


def test_what_was_only_fetched_is_used(origin: Workspace, tmp_path: Path) -> None:
    other = clone(origin, tmp_path / "other", "fetch")
    edit_photo(other, "a snap of a {classname}.")
    said = other.repro("embed_images", "embed_active").stdout  # which need nothing of embed_texts
    assert other.executed() == ["prompts", "embed_active"]
    said += other.repro("embed_texts").stdout
    assert other.executed() == ["embed_texts"]
    assert "10 sentences in photo, 10 of them new" in said
    assert "20 sentences in 2 sets, 0 of them new" in said


def test_where_the_images_embeddings_alone_were_pulled_no_image_is_embedded(
    origin: Workspace, tmp_path: Path
) -> None:
    other = clone(origin, tmp_path / "other", "pull", IMAGES)
    other.repro("embed_images")
    assert sorted(other.executed()) == ["download", "fetch_model", "prepare"]  # in whatever order


def test_trying_knows_the_sentences_that_were_pulled(
    other: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without weights no sentence could be embedded; DVC's cache is not asked for what lies here."""
    other.command("dvc", "pull")
    shutil.rmtree(other.folder / "data/weights")
    with monkeypatch.context() as patch:
        patch.setattr("clipcifar.embeddings.sentences.kept_objects", lambda *_: pytest.fail("DVC was asked"))
        for known in ("a scan of the handwritten digit {classname}.", POOLED):
            code, said = said_by(patch, capsys, "try", known)
            assert (code, "points" in said) == (0, True), said
    code, said = said_by(monkeypatch, capsys, "try", "a snap of a {classname}.")
    assert code == 3
    assert "run `dvc checkout data/weights`" in said


def _draw(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 3)):
        for label, name in enumerate(("dark", "light")):
            for number in range(count):
                path = folder / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                shades = rng.integers(0, 100, (32, 32, 3), dtype=np.uint8) + np.uint8(150 * label)
                Image.fromarray(shades).save(path)


def test_the_same_photographs_and_weights_under_another_path_are_found_by_content(
    tmp_path: Path, tiny_clip: Path
) -> None:
    def place(folder: Path) -> Callable[[dict], object]:  # type: ignore[type-arg]
        _draw(folder / "photos")
        clip = shutil.copytree(tiny_clip, folder / "clip")
        return lambda settings: (
            settings["dataset"].update(name="imagefolder", path=str(folder / "photos")),
            settings["model"].update(name=f"local-dir:{clip}", pretrained=None, path=str(clip)),
        )

    first = Workspace.create(tmp_path / "first/w", {})
    first.edit(lambda settings: settings["prompts"].update(active="photo", sets={}))
    edit = {"template_mode": "shared", "templates": ["a photo of a {classname}."]}
    first.edit(lambda settings: settings["prompts"]["sets"].update(photo=edit))
    first.edit(place(tmp_path / "first"))
    assert "18 images embedded on" in first.repro("embed_images", "embed_texts").stdout
    first.command("dvc", "remote", "add", "--default", "shared", str(tmp_path / "remote"))
    first.commit("a remote")
    first.command("dvc", "push")
    other = clone(first, tmp_path / "other/w", "fetch")
    other.edit(place(tmp_path / "other"))
    said = other.repro("embed_images", "embed_texts").stdout
    assert set(other.executed()) >= {"prepare", "fetch_model", "embed_images", "embed_texts"}
    assert "18 images were embedded before" in said
    assert "2 sentences in photo, 0 of them new" in said
    manifest = other.read(f"{IMAGES}/manifest.h5")
    assert str(tmp_path / "other").encode() in manifest  # as params.yaml here calls the model


def test_a_fresh_clone_is_told_to_pull_and_has_no_problem_then(
    other: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ((name, error),) = problems(other)
    assert (name, error.fix) == ("outputs", "dvc pull")
    code, said = said_by(monkeypatch, capsys, "doctor")
    assert code == 3
    assert f"{IMAGES} is not here: run `dvc pull`" in said
    assert "dvc repro" not in said
    for command in (["try", "a {classname}"], ["compare"], ["compare", "photo", "digits"], ["search"]):
        code, said = said_by(monkeypatch, capsys, *command)
        assert code == 3
        assert "fix:   run `dvc pull`; if that does not bring it, run `dvc repro" in said
    assert missing.advice(other.folder) == "run `dvc pull`"
    follow(other, error.fix)
    assert problems(other) == []
    assert missing.advice(other.folder) == ""
    other.repro()
    assert other.executed() == []


def test_what_dvcs_cache_has_is_checked_out_and_what_it_lacks_pulled_by_name(
    other: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other.command("dvc", "fetch")
    (error,) = outputs_problems(other)
    assert error.fix == "dvc checkout"
    follow(other, error.fix)
    assert outputs_problems(other) == []
    lost = [IMAGES, "data/ranking.json"]
    shutil.rmtree(other.folder / IMAGES)
    (other.folder / "data/ranking.json").unlink()
    (error,) = outputs_problems(other)
    assert error.fix == f"dvc checkout {' '.join(lost)}"
    shutil.rmtree(other.folder / ".dvc/cache")
    first, *_ = outputs_problems(other)
    assert first.fix == f"dvc pull {' '.join(lost)}"
    assert (
        "fix:   run `dvc pull data/ranking.json data/embeddings" in said_by(monkeypatch, capsys, "search")[1]
    )
    (other.folder / "data/classes.json").write_text("[]")
    (other.folder / "metrics/zero_shot.json").unlink()  # which git holds and no remote
    first, *_ = outputs_problems(other)
    assert first.fix == (
        "rm -rf data/classes.json && dvc pull data/classes.json data/embeddings/images data/ranking.json "
        "&& dvc repro zero_shot"
    )
    follow(other, first.fix)
    assert all("whole here" in error.what for error in outputs_problems(other))
    assert missing.advice(other.folder, Path("data/embeddings/texts/never.h5")) == ""


def test_a_remote_that_is_not_the_default_is_named(other: Workspace) -> None:
    other.command("dvc", "remote", "default", "--unset")
    (error,) = outputs_problems(other)
    assert error.fix == "dvc pull --remote shared"
    follow(other, error.fix)
    assert outputs_problems(other) == []


@pytest.mark.parametrize("remote", ["empty", "gone", "none"])
def test_where_no_remote_has_it_it_is_made_again(
    other: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    remote: str,
) -> None:
    place = tmp_path / "place"
    if remote == "none":
        other.command("dvc", "remote", "remove", "shared")
    else:
        use_remote(other, place)
    if remote == "empty":
        place.mkdir()
    (error,) = outputs_problems(other)
    assert error.fix.startswith("dvc repro download prepare ")
    told = {"empty": "has not all of them", "gone": "a folder that is not there) may have them", "none": ""}
    assert told[remote] in error.what
    assert ("remote" in error.what) == (remote != "none")
    code, said = said_by(monkeypatch, capsys, "search")
    assert code == 3
    assert ("mount the remote 'shared'" in said) == (remote == "gone")
    assert ("fix:   run `dvc repro`" in said) == (remote != "gone")
    if remote == "none":
        (other.folder / "dvc.lock").unlink()
        assert "fix:   run `dvc repro`" in said_by(monkeypatch, capsys, "search")[1]


def test_a_remote_that_cannot_be_asked_is_asked_first_and_no_traceback_comes(
    other: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The library for the first is not installed; at the second nobody answers."""
    for url, part in (("ssh://127.0.0.1:9/x", "dvc-ssh"), ("http://127.0.0.1:9/x", "127.0.0.1:9")):
        use_remote(other, url)
        (error,) = outputs_problems(other)
        assert error.fix == "dvc pull"
        assert f"what the remote 'shared' ({url}) lacks, `dvc repro download" in error.what
        code, said = said_by(monkeypatch, capsys, "compare", "HEAD", "HEAD~1")
        assert code == 3
        assert "is not in DVC's cache and was not to be had from the remote 'shared'" in said
        assert part in said
        assert "run `dvc fetch --all-commits`" in said
        assert "Traceback" not in said


def test_after_git_pull_alone_nothing_older_is_used_and_what_is_named_mends_it(
    origin: Workspace,
    other: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`dvc checkout` would delete what lies here and fail; without a dvc.lock every stage would run again."""
    remote = shutil.copytree(remote_of(origin), tmp_path / "remote")
    ana = origin.copy(tmp_path / "ana")
    for workspace in (ana, other):
        use_remote(workspace, remote)
    other.command("dvc", "pull")
    edit_photo(ana, "a scan of a {classname}.")
    ana.repro("zero_shot", "embed_texts")
    ana.commit("a scan")
    ana.command("dvc", "push")
    other.command("git", "pull", "--quiet", str(ana.folder))
    for arguments in (["try", "a {classname}."], ["compare", "photo", "digits"], ["compare"]):
        code, said = said_by(monkeypatch, capsys, *arguments)
        assert code == 3, said
        assert said.splitlines()[-1].startswith("  fix:   run `dvc pull data/"), said
    other.command("dvc", "pull")
    assert said_by(monkeypatch, capsys, "compare")[0] == 0
    with open(other.folder / "dvc.lock", "a") as lock:
        lock.write("<<<<<<< HEAD\n")
    fix = "git checkout HEAD -- dvc.lock && dvc repro"
    code, said = said_by(monkeypatch, capsys, "compare")
    assert (code, said.splitlines()[-1]) == (3, f"  fix:   run `{fix}`"), said
    assert "dvc.lock cannot be read" in said
    assert fix in {error.fix for _, error in problems(other)}
    other.command("git", "checkout", "HEAD", "--", "dvc.lock")
    assert said_by(monkeypatch, capsys, "compare")[0] == 0


def compare(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], a: str, b: str
) -> tuple[int | str | None, str]:
    return said_by(monkeypatch, capsys, "compare", a, b, "--method", "linear_probe")


def test_commits_of_before_the_remote_are_read_from_it_or_told_in_words(
    other: Workspace,
    origin: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """HEAD~1 has no remote in its settings, and HEAD~2 was never pushed."""
    code, said = compare(monkeypatch, capsys, "HEAD~1", "HEAD")
    assert (code, "exactly the same images" in said) == (0, True), said
    code, said = compare(monkeypatch, capsys, "HEAD~2", "HEAD")
    assert code == 3
    assert f"{PROBED} of 'HEAD~2' is not in DVC's cache and not in the remote 'shared'" in said
    assert str(other.folder / ".dvc/cache") in said
    base, commit = (other.command("git", "rev-parse", name).stdout.strip() for name in ("HEAD", "HEAD~2"))
    fetch, again = (
        "here `dvc fetch --all-commits`",
        f"else make it again: `git worktree add ../again {commit[:12]}`",
    )
    assert 0 < said.index(fetch) < said.index(again)
    other.command("git", "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/sweep", commit)
    assert again in compare(monkeypatch, capsys, "sweep", "HEAD")[1]  # a name that git does not know
    assert "Traceback" not in said
    other.command("dvc", "pull")
    assert problems(other) == []  # that commit is no matter of this workspace
    code, said = compare(monkeypatch, capsys, "HEAD~3", "HEAD")
    assert (code, "no run that made" in said) == (2, True)
    unknown = compare(monkeypatch, capsys, "nothing", "HEAD")[1]
    assert all(part in unknown for part in ("`git fetch`", "`dvc exp pull`", "`dvc queue status`"))
    use_remote(other, tmp_path / "nowhere")
    code, said = compare(monkeypatch, capsys, "HEAD~2", "HEAD")
    assert (code, "a folder that is not there" in said, "mount it" in said) == (3, True, True)
    (other.folder / ".dvc/config.local").unlink()
    other.command("dvc", "remote", "remove", "shared")
    code, said = compare(monkeypatch, capsys, "HEAD~2", "HEAD")
    assert (code, "DVC has no remote to ask" in said) == (3, True)
    for command in said.split("else make it again: ")[1].split("`")[1::2]:  # as it is told
        place = other.folder if command.startswith("git") else tmp_path / "again"
        other.command("bash", "-c", f"cd {place} && {command}")
    code, said = compare(monkeypatch, capsys, "HEAD~2", "HEAD")
    assert (code, "exactly the same images" in said) == (0, False), said


def test_a_commit_older_than_the_remote_comes_back_by_what_is_told(
    other: Workspace,
    origin: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """DVC goes by the settings of each commit: without a word it pushes and fetches nothing of such a one."""
    use_remote(other, shutil.copytree(remote_of(origin), tmp_path / "whole"))
    _, said = compare(monkeypatch, capsys, "HEAD~2", "HEAD")
    push, fetch, add = said.split("fix: ")[1].split("`")[1:6:2]
    for workspace, command in ((origin, push), (other, fetch)):
        (workspace.folder / ".dvc/config.local").unlink(missing_ok=True)
        follow(workspace, f"{add} && {command}")
        (workspace.folder / ".dvc/config.local").unlink()
    other.command("dvc", "remote", "remove", "shared")
    code, said = compare(monkeypatch, capsys, "HEAD~2", "HEAD")
    assert (code, "exactly the same images" in said) == (0, False), said


def test_a_study_says_beforehand_that_results_need_not_be_made_again(
    other: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("clipcifar.project.studies.Study.run", lambda study: 0)
    told = "run `dvc pull`"
    assert told in said_by(monkeypatch, capsys, "study", "few_shot")[1]
    other.command("dvc", "pull")
    assert told not in said_by(monkeypatch, capsys, "study", "few_shot")[1]


def test_settings_that_cannot_be_read_are_no_remote(other: Workspace) -> None:
    (other.folder / ".dvc/config").write_text("[core\nx")
    error = DataError("there is no file", where=IMAGES, fix="run `dvc repro`")
    missing.explain(error, other.folder)
    assert error.fix == "run `dvc repro`"
