"""Which results are stale, on a pipeline of five stages whose lock is written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from clipcifar.project.lockfile import Asked, File, Run
from clipcifar.project.state import Stale, State, mending

SETTINGS = {"split": {"seed": 0}, "prompts": {"active": "photo", "sets": {"photo": 1, "scan": 2}}, "c": 3}
LISTINGS = {
    "prompts-1.dir": {"photo.json": "p1", "scan.json": "s1"},
    "prompts-2.dir": {"photo.json": "p1", "scan.json": "s2"},
    "texts-1.dir": {"photo.h5": "tp1", "scan.h5": "ts1"},
}


def stage(params: list[str], deps: list[str], outs: list[str], **keys: str) -> Asked:
    return Asked({dep: keys.get(dep.rpartition("/")[2].partition(".")[0], "") for dep in deps}, params, outs)


ASKED = {
    "prepare": stage(["split"], ["raw"], ["splits"]),
    "prompts": stage(["prompts"], [], ["prompts"]),
    "texts": stage([], ["prompts"], ["texts"]),
    "zero_shot": stage([], ["splits", "texts/photo.h5"], ["zero"], photo="prompts.active"),
    "probe": stage(["c"], ["splits"], ["probe"]),
    "sets": stage(["prompts.active"], ["texts"], ["sets"]),
}
RUNS = {
    "prepare": Run({"raw": File("r1")}, {"splits": File("d1")}, {"split": {"seed": 0}}),
    "prompts": Run({}, {"prompts": File("prompts-1.dir")}, {"prompts": SETTINGS["prompts"]}),
    "texts": Run({"prompts": File("prompts-1.dir")}, {"texts": File("texts-1.dir")}, {}),
    "zero_shot": Run({"splits": File("d1"), "texts/photo.h5": File("tp1")}, {"zero": File("z1")}, {}),
    "probe": Run({"splits": File("d1")}, {"probe": File("b1")}, {"c": 3}),
    "sets": Run({"texts": File("texts-1.dir")}, {"sets": File("a1")}, {"prompts.active": "photo"}),
}


def state(
    settings: Any = SETTINGS,
    runs: Mapping[str, Run] = RUNS,
    asked: Mapping[str, Asked] = ASKED,
    raw: str = "r1",
) -> State:
    return State(
        settings,
        asked,
        runs,
        source_changed=lambda path, recorded: recorded.digest != {"raw": raw}[path],
        listing=lambda path, digest: LISTINGS.get(digest, {}),
    )


def stale(made: State) -> dict[str, list[str]]:
    results = {"zero": "", "probe": "", "sets": "", "splits": "", "texts/photo.h5": "", "texts/scan.h5": ""}
    return {path: reason.changed for path in results if (reason := made.stale(path))}


def edited(**changes: Any) -> dict[str, Any]:
    return {**SETTINGS, **changes}


def of_sets(**changes: Any) -> dict[str, Any]:
    return edited(prompts={"active": "photo", "sets": {**SETTINGS["prompts"]["sets"], **changes}})  # type: ignore[dict-item]


def test_after_a_whole_run_nothing_is_stale() -> None:
    assert stale(state()) == {}


def test_a_value_that_differs_stales_its_stage_and_all_behind_it() -> None:
    split = ["split.seed"]
    assert stale(state(edited(split={"seed": 1}))) == {"zero": split, "probe": split, "splits": split}
    assert stale(state(edited(c=4))) == {"probe": ["c"]}
    assert stale(state({"prompts": SETTINGS["prompts"], "c": 3})) == {
        "zero": ["split"], "probe": ["split"], "splits": ["split"]
    }  # fmt: skip


def test_a_key_of_a_section_that_was_recorded_whole_is_found_in_it() -> None:
    """Of a stage that asks for all of params.yaml besides, DVC records the sections alone."""
    asked = {**ASKED, "probe": replace(ASKED["probe"], params=["split.seed", "split"])}
    runs = {**RUNS, "probe": replace(RUNS["probe"], params={"split": {"seed": 0}})}
    assert stale(state(asked=asked, runs=runs)) == {}
    other = {**RUNS, "probe": replace(RUNS["probe"], params={"split": {"seed": 7}})}
    assert stale(state(asked=asked, runs=other)) == {"probe": ["split.seed"]}


def test_a_stage_that_ran_again_stales_who_ran_before_it() -> None:
    again = {**RUNS, "prepare": Run({"raw": File("r1")}, {"splits": File("d2")}, {"split": {"seed": 0}})}
    assert stale(state(runs=again)) == {"zero": ["splits"], "probe": ["splits"]}


def test_a_source_that_changed_stales_what_is_made_of_it() -> None:
    assert stale(state(raw="r2")) == {"zero": ["raw"], "probe": ["raw"], "splits": ["raw"]}


def test_an_edited_set_stales_its_own_files_and_what_is_made_of_all_sets() -> None:
    scan, photo = ["prompts.sets.scan"], ["prompts.sets.photo"]
    assert stale(state(of_sets(scan=3))) == {"sets": scan, "texts/scan.h5": scan}
    assert stale(state(of_sets(new=3))) == {"sets": ["prompts.sets.new"]}
    assert stale(state(of_sets(photo=3))) == {"zero": photo, "sets": photo, "texts/photo.h5": photo}
    assert stale(state(of_sets(photographs=3))) == {"sets": ["prompts.sets.photographs"]}  # a longer name


def test_the_same_once_its_sentences_are_written_and_not_yet_embedded() -> None:
    """The folder of sentences has another digest then; only its listing knows which file changed."""
    again = {**RUNS, "prompts": Run({}, {"prompts": File("prompts-2.dir")}, {"prompts": SETTINGS["prompts"]})}
    assert stale(state(runs=again)) == {"sets": ["prompts"], "texts/scan.h5": ["prompts"]}
    unknown = {
        **RUNS,
        "prompts": Run({}, {"prompts": File("prompts-9.dir")}, {"prompts": SETTINGS["prompts"]}),
    }
    assert set(stale(state(runs=unknown))) == {"zero", "sets", "texts/scan.h5", "texts/photo.h5"}


def test_another_active_set_stales_what_uses_it_and_is_named_by_its_key() -> None:
    settings = edited(prompts={**SETTINGS["prompts"], "active": "scan"})  # type: ignore[dict-item]
    asked = {**ASKED, "zero_shot": stage([], ["splits", "texts/scan.h5"], ["zero"], scan="prompts.active")}
    active = ["prompts.active"]
    assert stale(state(settings, asked=asked)) == {"zero": active, "sets": active}


def test_an_output_that_no_run_recorded_is_said_to_be_of_none() -> None:
    without = {name: run for name, run in RUNS.items() if name != "probe"}
    reason = state(runs=without).stale("probe", "the probe")
    assert reason == Stale("the probe", "probe", [])
    assert str(reason) == "the probe is of no run that dvc.lock records; run `dvc repro probe`"
    other = state().stale("notes", "the notes")
    assert str(other) == "the notes is of no run that dvc.lock records; run `dvc repro`"


def test_another_command_in_dvc_yaml_stales_its_stage() -> None:
    asked = {**ASKED, "probe": replace(ASKED["probe"], cmd="python -m probe --deep")}
    runs = {**RUNS, "probe": replace(RUNS["probe"], cmd="python -m probe")}
    assert stale(state(runs=runs)) == {}  # what is not known
    assert stale(state(runs=runs, asked=asked)) == {"probe": ["the command of probe"]}
    same = {**RUNS, "probe": replace(RUNS["probe"], cmd="python -m probe --deep")}
    assert stale(state(runs=same, asked=asked)) == {}


def test_a_stage_that_dvc_yaml_has_no_more_makes_nothing() -> None:
    """It was renamed and back: dvc.lock holds both, the one that is asked for first."""
    old = Run({"splits": File("d0")}, {"probe": File("b0")}, {"c": 9})
    made = state(runs={**RUNS, "tested": old})
    assert made.stale("probe") is None
    assert made.maker("probe") == "probe"


def test_stages_that_dvc_repro_would_pass_over_are_unfrozen() -> None:
    asked = {**ASKED, "prepare": replace(ASKED["prepare"], is_frozen=True)}
    assert stale(state(asked=asked)) == {}
    reason = state(edited(split={"seed": 1}), asked=asked).stale("probe", "the probe")
    assert reason is not None
    assert mending([reason]) == "dvc unfreeze prepare && dvc repro probe"
    other = state(edited(c=4), asked=asked).stale("probe", "the probe")
    assert other is not None  # prepare is as it was
    assert mending([other]) == "dvc repro probe"


def test_files_of_dvc_that_go_in_a_circle_are_no_endless_work() -> None:
    """dvc.lock is anybody's."""
    runs = {
        "a": Run({"y": File("1")}, {"x": File("1")}, {}),
        "b": Run({"x": File("2")}, {"y": File("1")}, {}),
    }
    made = state(asked={}, runs=runs)
    assert made.changed("a") == ["x"]


@pytest.mark.parametrize(
    ("target", "command"),
    [("probe", "dvc repro probe"), ("studies/models/dvc.yaml:models", "clipcifar study models")],
)
def test_the_command_that_mends_is_of_the_stage_or_its_study(target: str, command: str) -> None:
    reason = Stale("it", target, ["a", "b", "c", "d"])
    assert str(reason) == f"it is stale, changed since it was made: a, b, c and 1 more; run `{command}`"


def test_one_line_mends_all() -> None:
    reasons = [Stale("", target, ["k"]) for target in ("a", "studies/s/dvc.yaml:t", "b", "a")]
    brought = [Stale("", "c", [], brought_by=("dvc checkout", path)) for path in ("c", "d")]
    assert mending([*reasons, *brought]) == "dvc repro a b && clipcifar study s && dvc checkout c d"
    assert mending([*reasons, Stale("", "", [])]) == "dvc repro && clipcifar study s"


def test_nothing_but_code_is_told_apart() -> None:
    assert Stale("", "a", ["clipcifar/core", "stages/a.py"]).is_of_other_code
    assert not Stale("", "a", ["clipcifar/core", "split.seed"]).is_of_other_code
    assert not Stale("", "a", []).is_of_other_code


def test_of_many_changes_those_for_which_it_is_refused_are_named_before_code() -> None:
    reason = Stale("it", "t", ["clipcifar/core", "clipcifar/store", "stages/a.py", "prompts.sets.mine"])
    assert reason.what.endswith(": prompts.sets.mine, clipcifar/core, clipcifar/store and 1 more")
