"""Something is changed, one stage alone is run: what every command then says of each result.

`dvc status` is the reference for which stages are stale.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clipcifar.evaluation.names import METHODS
from clipcifar.project import dvc_project, freshness, lockfile
from tests.support import command_line
from tests.support.workspace import ALL, Workspace, outputs

pytestmark = pytest.mark.pipeline
Run = Callable[..., tuple[object, str, str]]
STAGES = tuple(METHODS)


@pytest.fixture
def run(at: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in the run's folder: exit code, what is printed, and what is said beside it."""
    monkeypatch.chdir(at.folder)
    monkeypatch.delenv("CLIPCIFAR_TRACEBACK", raising=False)
    return lambda *arguments: (command_line.run(monkeypatch, *arguments), *capsys.readouterr())


def changed_of(at: Workspace) -> dict[str, list[str]]:
    """What has changed, by stale stage."""
    state = freshness.here(at.folder)
    return {target: changed for target in state.runs if (changed := state.changed(target))}


def stale_by_dvc(at: Workspace) -> set[str]:
    """The stages that `dvc status` names."""
    return set(json.loads(at.command("dvc", "status", "--json").stdout))


def marked(shown: str) -> list[str]:
    """The methods that `clipcifar show` calls stale, by the stages that its lines below tell to run."""
    return [
        line.split("`")[1].removeprefix("dvc repro ") for line in shown.splitlines() if "is stale" in line
    ]


@dataclass(frozen=True)
class Case:
    """An edit, the one target that is run after it, and what is stale then, with its reason."""

    edit: Callable[[Any], object]
    target: str
    stale: dict[str, str]
    fresh: tuple[str, ...]


CASES = {
    "the split": Case(
        lambda s: s["split"].update(seed=1),
        "zero_shot",
        dict.fromkeys(STAGES[1:], "data/splits.h5"),
        ("zero_shot",),
    ),
    "a grid": Case(
        lambda s: s["linear_probe"].update(c_grid=[1, 20]),
        "mlp_probe",
        {"linear_probe": "linear_probe.c_grid"},
        ("zero_shot", "rank_prompts", "prompt_weighting", "gda", "mlp_probe", "projection"),
    ),
    "a template": Case(
        lambda s: s["prompts"]["sets"]["photo"].update(templates=["a scan of a {classname}."]),
        "zero_shot",
        {
            **dict.fromkeys(("rank_prompts", "prompt_weighting"), "data/prompts"),
            **dict.fromkeys(("gda", "projection"), "data/embeddings/active/photo.h5"),
        },
        ("zero_shot", "linear_probe", "mlp_probe"),
    ),
    "a template of another set": Case(
        lambda s: s["prompts"]["sets"]["digits"].update(templates=["a scan of a {classname}."]),
        "linear_probe",
        dict.fromkeys(("rank_prompts", "prompt_weighting"), "prompts.sets.digits.templates"),
        ("zero_shot", "gda", "linear_probe", "mlp_probe", "projection"),
    ),
    "the active set": Case(
        lambda s: s["prompts"].update(active="digits"),
        "zero_shot",
        dict.fromkeys(("rank_prompts", "gda", "projection"), "prompts.active"),
        ("zero_shot", "prompt_weighting", "linear_probe", "mlp_probe"),
    ),
    "the batch size": Case(
        lambda s: s["embed"].update(batch_size=64),
        "embed_images",
        dict.fromkeys(STAGES, "data/embeddings/images"),
        (),
    ),
    "an epoch": Case(
        lambda s: s["projection"].update(max_epochs=2),
        "zero_shot",
        {"projection": "projection.max_epochs"},
        STAGES[:-1],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_stale_is_marked_or_refused_and_what_is_not_is_shown_as_it_is(
    at: Workspace, run: Run, name: str
) -> None:
    case = CASES[name]
    before = run("show")
    assert before[0] == 0
    assert "stale" not in "".join(before[1:])
    assert changed_of(at) == {}
    at.edit(case.edit)
    at.repro(case.target)
    changed = changed_of(at)
    assert {stage for stage in changed if stage in STAGES} == set(case.stale)
    assert stale_by_dvc(at) <= set(changed) | {"report"}
    for stage, reason in case.stale.items():
        assert reason in changed[stage], stage

    code, shown, _ = run("show", "--per-class")
    assert code == 0
    assert marked(shown) == list(case.stale)
    assert shown.count("(stale)") == 2 * len(case.stale)  # its row, and its column of classes

    for stage in case.stale:
        code, shown, beside = run("compare", "HEAD", f"method:{stage}")
        assert (code, shown) == (2, "")
        assert f"error: {stage} is stale, changed since it was made: " in beside
        assert f"fix:   run `dvc repro {stage}`" in beside
    for stage in case.fresh:
        assert run("compare", "HEAD", f"method:{stage}", "--method", stage)[0] == 0

    said = "".join(run("search")[1:])
    assert ("the ranking is stale" in said) == ("rank_prompts" in case.stale)
    code, _, beside = run("verify")
    needed = {*case.stale, *(changed.keys() & {"prompt_sets"})} & {
        "linear_probe",
        "mlp_probe",
        "projection",
        "prompt_sets",
    }
    assert ("is stale" in beside) == bool(needed)
    _, shown, _ = run("doctor")
    assert all(stage in shown.split("stages: ", 1)[1].split("that have run")[0] for stage in case.stale)


def test_another_split_embeds_nothing_and_its_whole_run_leaves_nothing_stale(at: Workspace, run: Run) -> None:
    at.edit(CASES["the split"].edit)
    at.repro()
    embedding = {"embed_images", "embed_active", "embed_texts", "embed_pool"}
    assert set(at.executed()) == ALL - {"download", "prompts", "fetch_model"} - embedding
    assert changed_of(at) == {}
    assert "stale" not in "".join(run("show")[1:])
    assert run("compare", "zero_shot", "projection")[0] == 0


def test_a_page_of_one_stage_alone_marks_what_in_it_is_stale(at: Workspace) -> None:
    before = outputs(at)["report/index.html"].decode()
    assert 'aria-label="Stale results"' not in before
    at.edit(lambda s: s["linear_probe"].update(c_grid=[1, 20]))
    done = at.repro("--single-item", "--force", "report")
    page = at.read("report/index.html").decode()
    line = (
        "linear_probe is stale, changed since it was made: linear_probe.c_grid; run `dvc repro linear_probe`"
    )
    assert page.count('aria-label="Stale results"') == 1
    assert page.count("is stale, changed since") == 1
    assert f"<li>{line}</li>" in page
    assert done.stderr.count(f"note: {line}\n") == 1
    first, *_ = at.read("report/methods.md").decode().splitlines()
    assert first.startswith("> linear_probe is stale, changed since it was made: linear_probe.c")
    at.edit(lambda s: s["linear_probe"].update(c_grid=[1, 10]))
    at.repro("--force", "--single-item", "report")
    assert outputs(at)["report/index.html"].decode() == before


def test_after_git_checkout_alone_the_files_are_of_another_run_and_dvc_checkout_is_named(
    at: Workspace, run: Run
) -> None:
    at.edit(lambda s: s["prompts"]["sets"]["photo"].update(templates=["a scan of a {classname}."]))
    at.repro("zero_shot", "embed_texts")
    at.commit("another template")
    at.command("git", "checkout", "--quiet", "HEAD~1")
    assert changed_of(at) == {}
    assert "stale" not in "".join(run("show")[1:])  # git brought the metrics
    code, _, beside = run("compare", "zero_shot", "projection")
    assert code == 3
    assert beside == (
        "error: zero_shot is not what the recorded run of zero_shot made\n"
        "  fix:   run `dvc checkout data/predictions/zero_shot.h5`\n"
    )
    code, _, beside = run("try", "a {classname}.")
    assert code == 3
    assert "the active set photo is not what the recorded run of embed_texts made" in beside
    at.command("dvc", "checkout")
    assert run("compare", "zero_shot", "projection")[0] == 0


def test_numbers_that_git_keeps_are_brought_back_by_their_stage(at: Workspace, run: Run) -> None:
    """`dvc checkout` leaves them as they are, and the refusal would never end."""
    path = at.folder / "metrics/linear_probe.json"
    before = path.read_text()
    path.write_text(before.replace('"n_correct": ', '"n_correct": 1'))
    code, _, beside = run("verify")
    assert code == 3
    assert beside == (
        "error: linear_probe is not what the recorded run of linear_probe made\n"
        "  fix:   run `dvc repro linear_probe`\n"
    )
    at.repro("linear_probe")
    assert path.read_text() == before


def test_after_git_pull_alone_no_set_is_taken_for_the_new_one(
    at: Workspace, run: Run, tmp_path: Path
) -> None:
    """DVC has not fetched the listing of the folder then, which alone tells of the sets in it."""
    texts = at.folder / "data/embeddings/texts"
    shutil.copytree(texts, tmp_path / "texts")
    at.edit(lambda s: s["prompts"]["sets"]["photo"].update(templates=["a scan of a {classname}."]))
    at.repro("embed_texts")
    assert run("compare", "photo", "digits")[0] == 0
    shutil.rmtree(texts)
    shutil.copytree(tmp_path / "texts", texts)
    digest = lockfile.recorded_outputs(at.folder)["data/embeddings/texts"]
    dvc_project.object_path(dvc_project.cache_of(at.folder), digest).unlink()
    code, _, beside = run("compare", "photo", "digits")
    assert code == 3
    assert "photo is not what the recorded run of embed_texts made" in beside
    assert "run `dvc repro embed_texts`" in beside  # there is no remote


def test_a_frozen_stage_is_unfrozen_by_what_is_told(at: Workspace, run: Run) -> None:
    at.command("dvc", "freeze", "linear_probe")
    assert run("compare", "mlp_probe", "linear_probe")[0] == 0
    at.edit(lambda s: s["linear_probe"].update(c_grid=[1]))
    command = "dvc unfreeze linear_probe && dvc repro linear_probe"
    assert f"run `{command}`" in run("compare", "mlp_probe", "linear_probe")[2]
    at.command("bash", "-c", command)
    assert run("compare", "mlp_probe", "linear_probe")[0] == 0


def test_a_commit_between_an_edit_and_its_run_is_noted(at: Workspace, run: Run) -> None:
    at.edit(lambda s: s["prompts"]["sets"]["photo"].update(templates=["a scan of a {classname}."]))
    at.commit("an edit that was not run")
    at.edit(lambda s: s["prompts"]["sets"]["digits"].update(templates=["a {classname}."]))
    at.commit("another, of a set that zero_shot does not use")
    note = "zero_shot of HEAD is stale, changed since it was made: prompts.sets.photo.templates"
    code, shown, _ = run("compare", "HEAD~2", "HEAD")
    assert code == 0
    assert f"\n\nNote: {note} (no run of it before the commit, or one that failed)\n\n" in shown
    notes = json.loads(run("compare", "HEAD~2", "HEAD", "--json")[1])["notes"]
    assert notes == [f"{note} (no run of it before the commit, or one that failed)"]
    assert "Note" not in run("compare", "HEAD~2", "HEAD~2")[1]
    assert "Note" not in run("compare", "HEAD~2", "HEAD", "--method", "mlp_probe")[1]


def test_a_commit_that_dvc_cannot_read_is_not_said_to_be_lost(at: Workspace, run: Run) -> None:
    """Its predictions lie in the cache all the same."""
    path = at.folder / "params.yaml"
    text = path.read_text()
    path.write_text(text + "split: [\n")
    at.commit("half an edit")
    path.write_text(text)
    code, _, beside = run("compare", "HEAD", "workspace")
    assert code == 2
    assert "which its cache holds: " in beside
    assert "name another commit" in beside
    assert "gc" not in beside


def test_other_code_is_noted_and_refuses_nothing(at: Workspace, run: Run) -> None:
    path = at.folder / "clipcifar" / "methods" / "logistic.py"
    path.write_text(path.read_text() + "# a comment\n")
    code, shown, beside = run("compare", "linear_probe", "mlp_probe")
    assert code == 0
    assert "A = linear_probe" in shown
    assert beside == (
        "note: linear_probe is stale, changed since it was made: clipcifar/methods/logistic.py; "
        "run `dvc repro linear_probe`\n"
    )


def test_the_pool_of_another_code_stales_the_ranking_alone(at: Workspace, run: Run) -> None:
    path = at.folder / "clipcifar" / "prompts" / "pool.py"
    text = path.read_text()
    edited = text.replace('"a photo of a {classname}."', '"a photo of the {classname}."', 1)
    path.write_text(edited if edited != text else text + "\nEXTRA = 1\n")
    at.repro("embed_pool")
    assert {"rank_prompts", "report"} <= set(changed_of(at))
    assert "the ranking is stale" in run("search")[1]
    assert run("compare", "zero_shot", "linear_probe")[0] == 0
