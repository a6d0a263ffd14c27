"""The explorer's state: of a prompt it says what `clipcifar try` says, and results change under it."""

from __future__ import annotations

import difflib
import html
import json
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipcifar.api import bench
from clipcifar.api.trials import RECORD
from clipcifar.core import params
from clipcifar.core.errors import ClipcifarError, ConfigError, DataError
from clipcifar.evaluation.signs import holm
from clipcifar.explorer import results, session as sessions
from clipcifar.explorer.answers import TRIED
from clipcifar.explorer.session import Session
from clipcifar.explorer.state import Tried
from clipcifar.prompts.save import edit_params, save_set
from clipcifar.store.embeddings import read_texts, write_texts
from clipcifar.store.places import IMAGES
from tests.support import explored, made
from tests.support.command_line import record
from tests.support.explored import ACTIVE, Asking, serving

SCAN = "a scan of the handwritten digit {classname}."
RAIN = "{classname} upside down in the rain"
AGAIN = "Results changed and were read again."
ANEW = f"{AGAIN} The prompts of this session began anew."
GDA = Path("data/predictions/gda.h5")


def last(session: Session) -> Tried:
    latest = session.state().last
    assert latest is not None
    return latest


def trials(project: Path) -> list[list[dict[str, Any]]]:
    """On record, by family."""
    families: dict[str, Any] = json.loads((project / RECORD).read_text())["families"]
    return list(families.values())


def other_active_set(project: Path) -> None:
    """Let the stage of the active set have run again, with the sentences of another."""
    texts = read_texts(project / ACTIVE)
    write_texts(
        project / ACTIVE,
        embeddings=texts.embeddings[::-1].copy(),
        class_index=texts.class_index,
        sentences=[f"another {sentence}" for sentence in texts.sentences],
        attributes=made.written(texts.attributes),
    )
    record(project, *explored.RECORDED)


@pytest.mark.parametrize("on", ["train", "test"])
def test_what_is_said_of_a_prompt_is_what_try_says_of_it(
    on: Any,
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other, session = Path(shutil.copytree(project, tmp_path / "other")), Session(project)
    for line in (SCAN, RAIN, f"{SCAN}; {RAIN}", SCAN):
        session.try_line(line, on)
        assert last(session).lines == explored.tried(monkeypatch, capsys, other, line, "--on", on)
    assert trials(project) == trials(other)
    assert len(trials(project)[0]) == 3  # the last one is the first again


def test_trials_are_counted_with_those_of_try_and_corrected_together(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session(project)
    session.try_line(SCAN, "train")
    assert "trial 2 of this session" in explored.tried(monkeypatch, capsys, project, RAIN)[2]
    session.try_line("the {classname}", "train")
    counted = last(session).counted
    assert (counted.number, counted.total) == (3, 3)
    alone = [trial["p_value"] for trial in trials(project)[0]]
    assert counted.p_holm == holm(alone)[2]
    assert all(c.p_holm <= 1 for c in last(session).comparison.per_class)
    session.try_line("the {classname}", "test")  # another family
    assert last(session).counted.total == 1
    session.try_line("the {classname}", "train")  # and back: word for word the same trial
    again = last(session)
    assert (again.counted.number, again.counted.total) == (3, 3)


def test_classes_are_corrected_over_all_trials_too(project: Path) -> None:
    session = Session(project)
    session.try_line(RAIN, "train")
    first = [item.p_holm for item in last(session).comparison.per_class]
    session.try_line(SCAN, "train")
    session.try_line(RAIN, "train")
    twice = [item.p_holm for item in last(session).comparison.per_class]
    assert twice == [min(1.0, 2 * p) for p in first]
    assert min(first) < 0.5  # or nothing was doubled


def test_undo_goes_back_to_the_prompt_before_and_what_was_looked_at_still_counts(project: Path) -> None:
    session = Session(project)
    session.try_line(SCAN, "train")
    first = session.state()
    session.try_line(RAIN, "test")
    assert TRIED not in session.state().answers("train")
    session.undo()
    assert session.state().history == first.history
    again, before = session.state().tried, first.tried
    assert again is not None
    assert before is not None
    np.testing.assert_array_equal(again.scores, before.scores)
    assert session.said == f"Undone: {RAIN}. It was looked at, so it still counts among the trials."
    session.try_line("the {classname}", "test")
    assert last(session).counted.number == 2
    for _ in range(2):
        session.undo()
    assert session.state().last is None
    assert TRIED not in session.state().answers("train")
    with pytest.raises(ConfigError, match="nothing to undo"):
        session.undo()


def test_a_classs_own_sentences_lie_on_top_of_what_was_tried_last(project: Path) -> None:
    session = Session(project)
    active = session.state().results.bench.active_sentences
    session.try_line("one: a scan of a one; the digit one", "train")
    assert last(session).typed.sentences == {**active, "one": ["a scan of a one", "the digit one"]}
    session.try_line(RAIN, "train")
    rain = last(session).typed.sentences
    session.try_line("two: a scan of a two", "train")
    session.try_line("one: the digit one", "train")
    assert last(session).typed.sentences == {**rain, "two": ["a scan of a two"], "one": ["the digit one"]}
    session.undo()
    assert last(session).typed.sentences == {**rain, "two": ["a scan of a two"]}


@pytest.mark.parametrize(
    "line", ["", " ; ", "no class at all", "one:", "eleven: a stick", "{classname} {x}", "{"]
)
def test_what_is_no_prompt_is_refused_and_not_counted(line: str, project: Path) -> None:
    session = Session(project)
    session.try_line(SCAN, "train")
    before = session.state()
    with pytest.raises(ConfigError):
        session.try_line(line, "train")
    assert session.state() is before
    assert len(trials(project)[0]) == 1


def test_a_kept_set_leaves_the_files_comments_and_is_no_change_of_results(project: Path) -> None:
    path = project / "params.yaml"
    edit_params(path, lambda document: None)  # in the form of the committed file
    path.write_text("# a comment at the top\n" + path.read_text() + "# and at the end\n")
    session = Session(project)
    with pytest.raises(ConfigError, match="nothing was tried"):
        session.save("scans")
    session.try_line(f"{SCAN}; {RAIN}", "train")
    before, text = session.state(), path.read_text()
    session.save("scans")
    assert not session.changed
    assert session.state() is before
    changes = list(difflib.unified_diff(text.splitlines(), path.read_text().splitlines(), n=0))[2:]
    assert not [line for line in changes if line.startswith("-")]
    assert [line[1:].strip() for line in changes if line.startswith("+")] == [
        *("scans:", "template_mode: shared", "templates:", f"- {SCAN}", f"- '{RAIN}'")
    ]
    kept = params.load(path)["prompts"]["sets"]
    assert kept["scans"] == {"template_mode": "shared", "templates": [SCAN, RAIN]}
    session.try_line("one: a scan of a one", "train")
    session.save("ones")
    saved = params.load(path)["prompts"]["sets"]["ones"]
    assert saved["sentences"] == last(session).typed.sentences
    for name in ("scans", "", "a b", "../x", "a: b"):
        with pytest.raises(ConfigError):
            session.save(name)
    assert len(params.load(path)["prompts"]["sets"]) == len(kept) + 1
    with serving(Session(project)) as address:  # and results are as fresh as they were
        assert "photo" in Asking(address).page("/")


def test_with_another_active_set_results_are_read_again_and_the_session_begins_anew(project: Path) -> None:
    session = Session(project)
    session.try_line(SCAN, "train")
    before = session.state()
    assert not session.changed
    other_active_set(project)
    assert session.changed
    session.try_line(RAIN, "train")  # the step that meets it
    assert [item.typed.line for item in session.state().history] == [RAIN]
    assert session.said == ANEW
    after = session.state().results
    assert after.number == before.results.number + 1
    assert after.bench.active_sentences != before.results.bench.active_sentences
    assert last(session).counted.number == 1  # of another family
    (project / GDA).touch()
    session.state()
    assert session.said == AGAIN  # nothing has begun anew since
    session.undo()
    session.try_line(SCAN, "train")
    assert session.said == ""


def test_a_prompt_that_is_tried_while_results_are_read_again_is_shown_on_them(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(project)
    session.try_line(SCAN, "train")
    before, embed = session.state().results, session._embed

    def embedding(sentences: list[str]) -> np.ndarray:
        (project / GDA).touch()
        return embed(sentences)

    monkeypatch.setattr(before.bench, "_embed", embedding)
    session.try_line(RAIN, "train")
    assert [item.typed.line for item in session.state().history] == [SCAN, RAIN]
    assert session.state().results is not before
    assert session.state().answers("train")[TRIED].title == f"tried: {RAIN}"


def test_a_refusal_that_comes_with_other_results_says_so(project: Path) -> None:
    session = Session(project)
    session.try_line(SCAN, "train")
    other_active_set(project)
    with serving(session) as address:
        refused = Asking(address).post("/save", name="scans")
    assert "nothing was tried" in refused.text
    assert ANEW in refused.text


def test_what_was_tried_stays_where_images_and_active_set_are_the_same(project: Path) -> None:
    session = Session(project)
    session.try_line(SCAN, "test")
    before = session.state()
    with (project / "params.yaml").open("a") as file:
        file.write("# a remark\n")
    after = session.state()
    assert after.results is not before.results
    assert (session.said, after.history, after.tried) == (AGAIN, before.history, before.tried)


def test_that_prompts_began_anew_is_said_until_the_next_though_results_are_read_twice(project: Path) -> None:
    session = Session(project)
    session.try_line(SCAN, "train")
    other_active_set(project)
    session.state()
    with (project / "params.yaml").open("a") as file:
        file.write("# a remark\n")
    session.state()
    assert session.said == ANEW
    session.try_line(SCAN, "train")
    (project / GDA).touch()
    session.state()
    assert session.said == AGAIN


@pytest.mark.parametrize("share", [0, 0.5, 0.9])
def test_a_lock_that_is_being_written_is_read_again(
    project: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """DVC truncates dvc.lock and writes it in pieces; a part of it looks as if stages had never run."""
    lock, slept = project / "dvc.lock", []
    whole = lock.read_text()
    lock.write_text(whole[: int(share * len(whole))])
    with monkeypatch.context() as patch:
        patch.setattr(results, "sleep", lambda _: slept.append(lock.write_text(whole)))
        assert Session(project).state().results.stale == []
    assert len(slept) == 1
    lock.write_text(whole[: int(share * len(whole))])
    monkeypatch.setattr(results, "sleep", slept.append)
    session = Session(project)
    for _ in range(2):
        with suppress(ClipcifarError):  # where it stays so, that is said, and waited for once
            assert session.state().results.stale
    assert len(slept) == 2


def test_a_lock_that_is_written_on_and_on_is_waited_for_a_while(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, slept = project / "dvc.lock", []
    lock.write_text("")

    def going_on(seconds: float) -> None:
        slept.append(seconds)
        lock.write_text("#" * len(slept))

    monkeypatch.setattr(results, "sleep", going_on)
    with pytest.raises(ClipcifarError):
        Session(project).state()
    assert 1 < len(slept) < 20
    assert sum(slept) < 5


def test_a_form_of_an_earlier_prompt_neither_saves_nor_undoes_a_later_one(project: Path) -> None:
    session = Session(project)
    session.try_line(SCAN, "train")
    shown = session.state().step
    session.try_line(RAIN, "train")
    kept = (project / "params.yaml").read_text()
    with serving(session) as address:
        asking = Asking(address)
        for refused in (
            asking.post("/save", name="scans", step=str(shown)),
            asking.post("/undo", step=str(shown)),
        ):
            assert refused.status == 400
            assert "another page has tried or undone a prompt since" in refused.text
        assert (project / "params.yaml").read_text() == kept
        assert last(session).typed.line == RAIN
        now = str(session.state().step)
        assert f'name="step" value="{now}"' in asking.page("/")
        assert asking.post("/undo", step=now).status == 303
        assert last(session).typed.line == SCAN


def test_what_a_classs_own_sentence_stands_on_is_in_its_title(project: Path) -> None:
    session = Session(project)
    session.try_line("three: a curly three", "train")
    assert last(session).title == "three: a curly three"
    session.try_line(RAIN, "train")
    assert last(session).title == RAIN
    session.try_line("three: a curly three", "train")
    session.try_line("seven: a seven with a bar", "train")
    title = f"seven: a seven with a bar, on top of three: a curly three, on top of {RAIN}"
    assert last(session).title == title
    assert session.state().answers("train")[TRIED].title == f"tried: {title}"
    session.try_line("three: a bold three", "train")
    assert (
        last(session).title == f"three: a bold three, on top of seven: a seven with a bar, on top of {RAIN}"
    )
    session.try_line("eight: a snowman", "train")
    assert last(session).title.endswith("on top of seven: a seven with a bar, and 1 more")
    for _ in range(3):
        session.undo()
    assert last(session).title == f"three: a curly three, on top of {RAIN}"


def test_what_has_happened_is_said_for_a_while_and_beside_no_refusal(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(project)
    session.try_line(SCAN, "train")
    session.save("scans")
    with serving(session) as address:
        asking, saved = Asking(address), "prompts.active: scans"
        assert saved in asking.page("/")
        assert saved in asking.page("/images")
        assert saved not in asking.post("/save", name="scans").text
        assert saved not in asking.ask("GET", "/nowhere").text
        later = time.monotonic() + 60
        monkeypatch.setattr(sessions, "monotonic", lambda: later)
        assert saved not in asking.page("/")


def test_results_that_a_saved_set_makes_stale_are_named_at_once(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(project)
    session.try_line(SCAN, "train")
    monkeypatch.setattr(results.freshness, "stale_results", lambda *_: ["the ranking is of other sets"])
    with serving(session) as address:
        asking = Asking(address)
        assert "of other sets" not in asking.page("/")
        assert asking.post("/save", name="scans").status == 303
        assert "the ranking is of other sets" in asking.page("/")
        assert not session.changed


def test_commands_of_the_shell_are_told_from_prompts(project: Path) -> None:
    with serving(Session(project)) as address:
        refused = Asking(address).post("/try", line=":reset", on="train")
    assert refused.status == 400
    assert "a command of `clipcifar try`" in html.unescape(refused.text)


def test_confusions_of_a_prompt_tried_on_train_open_train_images(project: Path) -> None:
    session = Session(project)
    session.try_line(RAIN, "train")
    with serving(session) as address:
        asking = Asking(address)
        page = asking.page("/confusion?split=train&by=tried")
        cells = re.findall(r'<a href="(/images\?[^"]*)" title="(\d+) of (\w+) called (\w+)"', page)
        assert sum(int(number) for _, number, _, _ in cells) == 700
        answers, results_ = session.state().answers("train")[TRIED], session.state().results
        for address_, number, actual, called in cells[::7]:
            classes = [results_.class_names.index(name) for name in (actual, called)]
            is_there = (results_.images.train.labels == classes[0]) & (answers.predicted == classes[1])
            assert int(number) == is_there.sum()
            assert f"<strong>{number}</strong> image" in asking.page(html.unescape(address_))


def test_undo_gives_the_verdict_among_all_trials_as_they_are_now(project: Path) -> None:
    session = Session(project)
    session.try_line(RAIN, "train")
    first = last(session)
    for word in ("dim", "old", "odd"):
        session.try_line(f"a {word} picture of the digit {{classname}}.", "train")
    for _ in range(3):
        session.undo()
    again = last(session)
    assert (again.typed, again.counted.number, again.counted.total) == (first.typed, 1, 4)
    assert again.counted.p_holm >= first.counted.p_holm
    doubled = [min(1.0, 4 * item.p_holm) for item in first.comparison.per_class]
    assert [item.p_holm for item in again.comparison.per_class] == doubled


def test_a_result_that_comes_while_a_set_is_saved_is_no_secret(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(project)
    session.try_line(SCAN, "test")

    def saving(*arguments: Any, **named: Any) -> str:
        (project / GDA).touch()
        return save_set(*arguments, **named)

    monkeypatch.setattr(bench, "save_set", saving)
    session.save("scans2")
    assert session.changed


def test_more_sentences_than_a_set_may_have_are_refused_before_they_are_embedded(project: Path) -> None:
    session = Session(project)
    monkeyed = session.state().results.active.prompts
    several = "; ".join("a [big|small|thin|bold] [red|blue] {classname}" + "!" * i for i in range(1, 4))
    object.__setattr__(monkeyed, "max_sentences", 239)
    with pytest.raises(ConfigError, match=r"240 sentences, more than prompts\.max_sentences, 239"):
        session.try_line(several, "train")
    assert session.state().history == ()


def test_predictions_that_are_replaced_are_read_again(project: Path) -> None:
    session = Session(project)
    before = session.state().answers("test")["gda"].scores
    shutil.copyfile(project / "data/predictions/zero_shot.h5", project / GDA)
    record(project, *explored.RECORDED)
    after = session.state().answers("test")
    scale = session.state().results.images.logit_scale
    np.testing.assert_allclose(after["gda"].scores, scale * after["zero_shot"].scores, rtol=1e-5, atol=1e-5)
    assert not np.array_equal(before, after["gda"].scores)
    assert session.said == AGAIN


def test_what_a_run_has_removed_is_said_and_its_results_are_shown_once_they_are_back(project: Path) -> None:
    """As DVC does: an output goes before its stage runs, other results come."""
    session = Session(project)
    with serving(session) as address:
        asking = Asking(address)
        assert asking.post("/try", line=SCAN, on="test").status == 303
        number = session.number
        images = project / IMAGES
        kept = images.rename(project / "kept")
        for path in ("/", "/images", "/confusion", "/map", "/points", "/image/test/0", "/picture/test/0"):
            refused = asking.ask("GET", path)
            assert refused.status == 409, path
            assert "dvc repro" in refused.text
        assert asking.post("/try", line=RAIN, on="test").status == 409
        assert asking.post("/undo").status == 409
        state = json.loads(asking.page("/state"))
        assert state == {"doing": "", "changed": True, "number": number, "step": 2}
        made.edit_images(kept, {"test/labels": np.arange(397) % 10})
        kept.rename(images)
        record(project, *explored.RECORDED)
        page = asking.page("/")
        assert ANEW in page
        assert SCAN not in page.replace("{classname}.", "")  # nothing that was tried on other results
        assert session.state().history == ()
        assert asking.page("/images?order=sure")
        state = json.loads(asking.page("/state"))
        assert state == {"doing": "", "changed": False, "number": number + 1, "step": 3}


def test_what_comes_back_as_it_was_is_shown_without_a_change_of_any_file(project: Path) -> None:
    session = Session(project)
    session.state()
    path = project / "data/dataset.h5"
    kept = path.rename(project / "kept")
    with pytest.raises(ClipcifarError):
        session.state()
    kept.rename(path)
    assert session.changed  # a page that shows the failure asks again
    session.state()
    assert not session.changed


def test_a_lock_that_is_written_after_the_results_takes_back_what_was_called_stale(project: Path) -> None:
    session = Session(project)
    lock = (project / "dvc.lock").read_text()
    record(project, *(output for output in explored.RECORDED if output != GDA.as_posix()))
    assert any("GDA" in line for line in session.state().results.stale)
    (project / "dvc.lock").write_text(lock)
    assert session.state().results.stale == []


DAMAGED = {
    "data/predictions/gda.h5": "gda.h5",
    "data/dataset.h5": "dataset.h5",
    "data/embeddings/images/manifest.h5": "dvc repro embed_images",
    "params.yaml": "params.yaml",
}


def test_files_that_are_damaged_are_named_and_no_page_fails(project: Path) -> None:
    with serving(Session(project)) as address:
        asking = Asking(address)
        for name, said in DAMAGED.items():
            path = project / name
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2] + b"\0" * 9)
            refused = asking.ask("GET", "/confusion")
            assert refused.status in (400, 409, 503), name
            assert "Traceback" not in refused.text
            assert said in refused.text
            path.write_bytes(content)
            assert asking.page("/confusion")


def test_without_predictions_the_active_set_answers_and_of_a_method_that_has_not_run_nothing_is_said(
    project: Path,
) -> None:
    session = Session(project)
    scores = session.state().answers("test")["zero_shot"]
    for missing, left in (("zero_shot", {"zero_shot", "gda"}), ("gda", {"zero_shot"})):
        (project / f"data/predictions/{missing}.h5").unlink()
        answers = session.state().answers("test")
        assert answers.keys() == left
        np.testing.assert_array_equal(answers["zero_shot"].predicted, scores.predicted)
    with serving(session) as address:
        asking = Asking(address)
        assert asking.post("/try", line=RAIN, on="test").status == 303
        assert "Lost: " in asking.page("/")
        assert asking.page("/images?by=tried&against=zero_shot&outcome=lost")
        for page in ("images", "confusion"):
            instead = "<p>Of test images there are no answers of GDA: zero-shot, photo is asked.</p>"
            of_gda, of_zero_shot = (asking.page(f"/{page}?by={by}") for by in ("gda", "zero_shot"))
            assert instead in of_gda
            assert of_gda.replace(instead, "").split() == of_zero_shot.split()
        assert asking.ask("GET", "/images?by=gdb").status == 400


def test_what_a_prompt_wins_and_loses_is_what_the_verdict_counts_though_zero_shot_is_of_an_earlier_set(
    project: Path,
) -> None:
    stale = (project / "data/predictions/zero_shot.h5").read_bytes()
    other_active_set(project)
    (project / "data/predictions/zero_shot.h5").write_bytes(stale)
    session = Session(project)
    session.try_line(SCAN, "test")
    state = session.state()
    answers, labels = state.answers("test"), state.results.split("test").labels
    own, active = answers[TRIED].predicted == labels, answers["zero_shot"].predicted == labels
    paired = last(session).comparison.overall
    assert (int((own & ~active).sum()), int((active & ~own).sum())) == (paired.only_b, paired.only_a)
    assert paired.only_b > 0


def test_a_method_of_other_images_or_other_classes_is_left_out_and_told_once(project: Path) -> None:
    gda = (project / GDA).read_bytes()
    explored.rename(project, [f"class {number}" for number in range(7)])
    (project / GDA).parent.mkdir()
    (project / GDA).write_bytes(gda)
    session = Session(project)
    with ThreadPoolExecutor(4) as pool:
        state = session.state()
        for answers in pool.map(lambda _: state.answers("test"), range(8)):
            assert answers.keys() == {"zero_shot"}
    told = [line for line in session.state().results.stale if "left out" in line]
    assert told == ["GDA is of other images, and left out; run `dvc repro gda`"]


def test_of_a_dataset_of_test_images_alone_every_page_is_there_and_train_is_refused(project: Path) -> None:
    explored.forget_train(project)
    with serving(Session(project)) as address:
        asking = Asking(address)
        refused = asking.post("/try", line=RAIN, on="train")
        assert (refused.status, "this dataset has none" in refused.text) == (400, True)
        assert asking.post("/try", line=RAIN, on="test").status == 303
        for path in ("/", "/images?split=train&order=unsure", "/confusion?by=tried", "/map", "/image/test/0"):
            assert asking.page(path)
        assert len(asking.ask("GET", "/points").body) == 10 * 397
        assert len(asking.ask("GET", "/colours").body) == 397


def test_two_who_try_at_once_are_both_counted_and_no_page_fails(project: Path) -> None:
    session = Session(project)
    lines = [f"{{classname}} number {number}" for number in range(8)]
    with serving(session) as address, ThreadPoolExecutor(4) as pool:
        asking = Asking(address)

        def work(number: int) -> list[int]:
            posted = asking.post("/try", line=lines[number], on=("train", "test")[number % 2])
            paths = ("/", "/images?split=test&order=disagreement", "/colours", "/state", "/image/train/3")
            return [posted.status, *(asking.ask("GET", path).status for path in paths)]

        assert list(pool.map(work, range(8))) == [[303, *[200] * 5]] * 8
    history = session.state().history
    assert sorted(item.typed.line for item in history) == lines
    assert sorted(item.counted.number for item in history) == [1, 1, 2, 2, 3, 3, 4, 4]
    assert sorted(map(len, trials(project))) == [4, 4]


def test_undone_while_others_look_no_page_fails(project: Path) -> None:
    session = Session(project)
    with serving(session) as address, ThreadPoolExecutor(4) as pool:
        asking = Asking(address)

        def work(number: int) -> set[int]:
            asking.post("/try", line=SCAN, on="test")
            asking.post("/undo")
            paths = ("/", "/images?order=disagreement", "/image/test/3", "/colours")
            return {asking.ask("GET", path).status for path in paths}

        assert set().union(*pool.map(work, range(12))) == {200}


def test_the_text_tower_is_loaded_beside_and_a_failure_is_said_with_the_first_new_sentence(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLIPCIFAR_CACHE", str(tmp_path / "nothing known"))
    session = Session(project)
    session.prepare().join()
    assert session.doing == ""
    session.try_line("a new {classname}", "train")
    weights = next((project / "data/weights").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    broken = Session(project)
    broken.prepare().join()  # without a word
    broken.try_line("a new {classname}", "train")  # known by now
    with pytest.raises(DataError):
        broken.try_line("another new {classname}", "train")
    assert broken.doing == ""
