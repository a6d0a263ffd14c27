from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clipcifar.api.bench import Bench
from clipcifar.api.trials import Trials
from clipcifar.cli.console import HELP, Console, interact
from clipcifar.core import params
from clipcifar.core.errors import ConfigError
from clipcifar.core.files import Attribute
from clipcifar.methods import zero_shot
from clipcifar.prompts.save import save_set
from clipcifar.store.embeddings import ImageEmbeddings, Split, TextEmbeddings
from clipcifar.store.fields import class_names_attribute
from tests.support.import_closure import ROOT

NAMES = ["cat", "dog", "eel"]
DIM = 6


def _embed(sentences: list[str]) -> NDArray[np.float32]:
    """A sentence that names a class points at it; a "blurry" cat points nearly where dogs do."""
    rows = np.full((len(sentences), DIM), 0.1, dtype=np.float32)
    for row, sentence in zip(rows, sentences, strict=True):
        for label, name in enumerate(NAMES):
            if name in sentence:
                row[1 if name == "cat" and "blurry" in sentence else label] += 2
                row[-1] += 0.01 * label
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def bench() -> Bench:
    """40 train and 10 test images of each class, each pointing at its class."""
    attributes: dict[str, Attribute] = {
        "class_names": class_names_attribute(NAMES),
        "dataset": "cifar10",
        "logit_scale": 10.0,
        "fingerprint": "f" * 64,
    }

    def split(n: int) -> Split:
        labels = np.repeat(np.arange(3), n)
        return Split(_embed([NAMES[label] for label in labels]), labels, [str(i) for i in range(3 * n)])

    sentences = [f"a photo of a {name}." for name in NAMES]
    active = TextEmbeddings(_embed(sentences), np.arange(3), sentences, attributes)
    return Bench(ImageEmbeddings(split(40), split(10), attributes), active, _embed)


def test_a_trial_is_compared_with_the_active_set_on_the_split_asked_for(bench: Bench) -> None:
    sentences = bench.from_templates(["a blurry photo of a {classname}."])
    assert sentences == {name: [f"a blurry photo of a {name}."] for name in NAMES}
    for on, n in (("train", 120), ("test", 30)):
        overall = bench.run(sentences, on=on).comparison.overall  # type: ignore[arg-type]
        assert (overall.n, overall.accuracy_a) == (n, 1.0)
        assert overall.accuracy_b == pytest.approx(1 - n / 3 / n, abs=1e-9)
        assert overall.only_a == n // 3


def test_the_active_set_itself_differs_nowhere(bench: Bench) -> None:
    overall = bench.run(bench.active_sentences, on="train").comparison.overall
    assert (overall.only_a, overall.only_b, overall.p_value) == (0, 0, 1.0)


def test_one_classes_sentences_replace_its_own_alone(bench: Bench) -> None:
    changed = bench.with_class_sentences(bench.active_sentences, "cat", ["a blurry cat"])
    assert changed["cat"] == ["a blurry cat"]
    assert changed["dog"] == bench.active_sentences["dog"]
    per_class = bench.run(changed, on="test").comparison.per_class
    # The cats' sentence now points nearly where dogs do, and further from cats: they are called dogs.
    assert [item.paired.difference for item in per_class] == [-1.0, 0.0, 0.0]
    literal = {**bench.active_sentences, "dog": ["a [crane] {x}"]}
    assert bench.with_class_sentences(literal, "cat", ["[a|b] cat"]) == {
        **literal,
        "cat": ["a cat", "b cat"],
    }
    with pytest.raises(ConfigError, match="unknown class 'cta'"):
        bench.with_class_sentences(bench.active_sentences, "cta", ["x"])


def test_beside_a_classes_own_sentence_the_weights_of_the_active_set_do_not_count_and_it_is_said(
    bench: Bench,
) -> None:
    """A set that is saved from it could not hold them."""
    images, note = bench._images, "; the active set's weights do not count here"
    sentences = [f"{word} {name}." for name in NAMES for word in ("a", "the")]
    index, attributes = np.repeat(np.arange(3), 2), images.attributes
    for weights in (None, np.arange(1.0, 7.0)):
        active = TextEmbeddings(_embed(sentences), index, sentences, attributes, weights)
        own = Bench(images, active, _embed)
        changed = own.with_class_sentences(own.active_sentences, "cat", ["a tom cat"])
        assert own.run(changed, on="train").note.endswith(note) == (weights is not None)
        assert note not in own.run(own.from_templates(["a {classname}."]), on="train").note


def test_a_class_may_be_written_as_prompts_say_it(bench: Bench) -> None:
    bench.class_names = ["hot", "my_hot_dog"]
    assert bench.with_class_sentences({}, "my hot dog", ["a dog"]) == {"my_hot_dog": ["a dog"]}


def test_several_templates_are_averaged_as_a_set_would_be(bench: Bench) -> None:
    sentences = bench.from_templates(["a {classname}", "a blurry {classname}", "the {classname}"])
    flat = [sentence for name in NAMES for sentence in sentences[name]]
    weights = zero_shot.class_weights(_embed(flat), np.repeat(np.arange(3), 3), class_names=NAMES)
    assert weights[0, 0] > weights[0, 1]  # two of three cat sentences point at cat
    assert bench.run(sentences, on="train").comparison.overall.accuracy_b == 1.0


def _console(bench: Bench, folder: Path) -> Console:
    counter = Trials(folder, on_note=pytest.fail)
    return Console(bench, counter, active="photo", params_path=folder / "params.yaml")


@pytest.fixture
def console(bench: Bench, tmp_path: Path) -> Console:
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text())
    return _console(bench, tmp_path)


def test_the_console_answers_prompts_and_class_sentences(console: Console) -> None:
    reply = console.reply("a blurry photo of a {classname}.")
    assert reply is not None
    assert reply.startswith(
        "top-1 0.6667, photo 1.0000 (120 train images)\nthis prompt is worse than photo: -33.3"
    )
    again = console.reply("cat: a cat; one cat")
    assert again is not None
    assert again.startswith("top-1 1.0000")
    assert console.reply(":on test") == "scoring on the test images"
    third = console.reply("the {classname}")
    assert third is not None
    assert "(30 test images)" in third


def test_where_images_are_copies_a_trial_says_so_in_one_line(bench: Bench, tmp_path: Path) -> None:
    """All 40 cats are one image, which shows nothing; and nothing is said where no image is a copy."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    sentences = [f"a photo of a {name}." for name in NAMES]
    active = TextEmbeddings(_embed(sentences), np.arange(3), sentences, bench._images.attributes)
    copies = np.where(bench._images.train.labels == 0, 0, np.arange(120))
    images = replace(bench._images, train=replace(bench._images.train, copies=copies))
    console = _console(Bench(images, active, _embed), tmp_path)
    reply = console.reply("a blurry photo of a {classname}.")
    assert reply is not None
    _, said, line, trial = reply.splitlines()
    assert said.startswith("no difference shown between this prompt and photo: -33.3")
    assert line.startswith("39 images are exact copies of others among the 120: the test takes")
    assert trial.startswith("trial 1 of this session")
    console.reply(":on test")
    assert "copies" not in (console.reply("a blurry photo of a {classname}.") or "")


@pytest.mark.parametrize("line", ["a {classnam}", "no class here", "cat: ", "cat: a {x}", ":save bad.name"])
def test_the_console_survives_mistakes(console: Console, line: str) -> None:
    console.reply("the {classname}")
    reply = console.reply(line)
    assert reply is not None
    assert reply.startswith("error: ")
    assert console.reply("the {classname}") is not None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a {classnam}", "where: the prompt"),
        ("elephant: an elephant.", "unknown class 'elephant'"),
        ("cta: a cat.", "did you mean cat?"),
        ("cat: ", "no sentence for cat"),
        (":on val", "error: it takes one of :on train and :on test"),
        (":save", "error: it takes one name"),
        (":save two names", "error: it takes one name"),
        (":foo", "unknown command :foo"),
    ],
)
def test_a_mistake_is_named_where_it_was_made(console: Console, line: str, message: str) -> None:
    reply = console.reply(line)
    assert reply is not None
    assert message in reply
    assert "params.yaml" not in reply.replace(HELP, "")


def _last(reply: str | None) -> str:
    return (reply or "").splitlines()[-1]


def test_trials_are_counted_over_sessions_by_split_until_they_are_reset(
    bench: Bench, console: Console, tmp_path: Path
) -> None:
    assert console.so_far() == ""
    assert _last(console.reply("a {classname}")) == "trial 1 of this session."
    blurry = console.reply("a blurry {classname}") or ""
    assert ", p < 0.0001 after Holm's correction; " in blurry
    assert "cat -100.0" in blurry
    assert _last(blurry) == "trial 2 of this session."
    assert _last(console.reply("a {classname}")) == "trial 1 of this session, of 2 so far."
    assert _last(console.reply("cat: the cat")) == "trial 3 of this session."
    console.reply("a {classname}")
    assert _last(console.reply("cat: a cat")) == "trial 1 of this session, of 3 so far."  # word for word
    assert console.reply("no class") is not None  # a mistake is no trial
    assert console.reply(":on test") == "scoring on the test images"
    assert _last(console.reply("a {classname}")) == "trial 1 of this session."
    again = _console(bench, tmp_path)
    assert again.so_far() == "3 trials so far on the train images"
    written: list[str] = []
    interact(again, read=_lines(":on test", ":on train"), write=written.append)
    assert written[1] == "\n3 trials so far on the train images; they count together with those to come"
    assert written[2] == "scoring on the test images; 1 trial so far on the test images"
    assert again.reply(":reset") == (
        "3 trials against photo on the train images forgotten: the correction starts anew and does not "
        "cover them"
    )
    assert again.reply(":reset") == "no trial against photo on the train images was on record"
    assert _last(again.reply("the {classname}")) == "trial 1 of this session."
    assert ":on test | :on train" in HELP
    assert ":reset" in HELP
    assert "1 trial so far" in (again.reply(":on test") or "")  # another family, and still there


def test_another_active_set_begins_another_family_and_another_name_of_it_does_not(bench: Bench) -> None:
    first = bench.family("train")
    assert first != bench.family("test")
    bench.active_sentences = {name: list(reversed(of)) for name, of in bench.active_sentences.items()}
    assert bench.family("train") == first
    bench.active_sentences["cat"] = ["a cat"]
    assert bench.family("train") != first


def test_the_classes_of_a_trial_are_corrected_over_the_trials_too(console: Console) -> None:
    """Ten of ten cats are lost, p = 2^-9: over three classes and 8 trials 0.0469, and over 9 0.0527."""
    console.reply(":on test")
    for number in range(7):
        console.reply(f"{number}: the {{classname}}")
    reply = (console.reply("a blurry {classname}") or "").splitlines()
    assert "cat -100.0" in reply[1]
    console.reply("a ninth {classname}")
    reply = (console.reply("a blurry {classname}") or "").splitlines()
    assert reply[1].startswith("this prompt is worse than photo: -33.3 points")
    assert "cat" not in reply[1]
    assert reply[2] == "trial 8 of this session, of 9 so far; alone it would have p = 0.0020."


def test_no_set_is_written_over(console: Console, tmp_path: Path) -> None:
    before = (tmp_path / "params.yaml").read_text()
    console.reply("the {classname}")
    assert "there is a prompt set 'photo' already" in (console.reply(":save photo") or "")
    assert (tmp_path / "params.yaml").read_text() == before


def test_a_set_that_prompts_would_refuse_is_not_saved(console: Console, tmp_path: Path) -> None:
    before = (tmp_path / "params.yaml").read_text()
    reply = console.reply("cat: a photo of a dog.") or ""  # and dog says nothing else
    assert "error: to this model two classes are the same: 'cat' and 'dog'" in reply
    assert "where: the prompt" in reply
    assert "nothing was tried yet" in (console.reply(":save mine") or "")
    assert (tmp_path / "params.yaml").read_text() == before


def test_a_sentence_of_two_classes_is_tried_and_saved(console: Console, tmp_path: Path) -> None:
    assert (console.reply("cat: a photo of a dog.; a cat") or "").startswith("top-1 ")
    assert "saved" in (console.reply(":save mine") or "")
    saved = params.load(tmp_path / "params.yaml")["prompts"]["sets"]["mine"]["sentences"]
    assert (saved["cat"], saved["dog"]) == (["a photo of a dog.", "a cat"], ["a photo of a dog."])


def test_a_prompt_that_says_the_same_twice_to_the_model_is_told(bench: Bench, console: Console) -> None:
    once = bench.run(bench.from_templates(["a {classname}"]), on="train")
    twice = bench.run(bench.from_templates(["a {classname}", "A {classname}"]), on="train")  # one vector here
    assert (once.note, twice.comparison) == ("", once.comparison)
    reply = console.reply("a {classname}; A {classname}") or ""
    assert "train images); 3 sentences become the same tokens as another of the class" in reply


def test_every_fault_of_a_prompt_is_named_without_a_key_of_params_yaml(console: Console) -> None:
    reply = console.reply("a {classnam}; no class here") or ""
    assert reply.startswith("error: 2 faults in the prompt:\n    templates[0]: only {classname}")
    assert "where: the prompt" in reply


def test_a_file_of_windows_lines_stays_one(console: Console, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    before = path.read_bytes()
    console.reply("the {classname}")
    assert (console.reply(":save mine") or "").startswith("saved")
    after = path.read_bytes()
    assert after.count(b"\n") == after.count(b"\r\n") == before.count(b"\n") + 4


def test_nothing_is_saved_before_a_trial(console: Console) -> None:
    assert (console.reply(":save mine") or "").startswith("error: nothing was tried")


def test_saved_sets_are_what_was_tried_and_leave_the_rest_of_the_file(
    console: Console, tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    before = path.read_text()
    console.reply("a [good|bad] photo of a {classname}.; no: {classname}")
    console.reply(":save mine")
    console.reply("cat: a cat")
    console.reply(":save own_sentences")
    after = path.read_text()
    added = set(after.splitlines()) - set(before.splitlines())
    assert [line for line in before.splitlines() if line not in after.splitlines()] == []
    assert len(added) > 5
    sets = params.load(path)["prompts"]["sets"]
    assert sets["mine"] == {
        "template_mode": "shared",
        "templates": ["a [good|bad] photo of a {classname}.", "no: {classname}"],
    }
    assert sets["own_sentences"]["sentences"]["cat"] == ["a cat"]
    assert sets["own_sentences"]["sentences"]["dog"] == [
        "a good photo of a dog.",
        "a bad photo of a dog.",
        "no: dog",
    ]
    assert sets["own_sentences"]["dataset"] == "cifar10"


def _lines(*lines: str) -> Callable[[str], str]:
    remaining = iter(lines)

    def read(prompt: str) -> str:
        try:
            return next(remaining)
        except StopIteration:
            raise EOFError from None

    return read


def test_a_session_ends_at_quit_and_at_the_end_of_input(console: Console) -> None:
    for lines in (
        *((word, "the {classname}") for word in (":quit", "quit", "exit", "q", "Quit")),
        ("",),
    ):
        written: list[str] = []
        interact(console, read=_lines(*lines), write=written.append)
        assert written[0] == HELP
        assert not any("top-1" in text for text in written)


@pytest.mark.parametrize("line", [":help", ":h", "help", "?", ":?", "HELP"])
def test_help_is_what_the_session_began_with(console: Console, line: str) -> None:
    assert console.reply(line) == HELP
    assert "help or ?" in HELP
    assert "quit, exit or q" in HELP


def test_a_class_that_is_called_like_a_command_keeps_its_sentences(bench: Bench, console: Console) -> None:
    bench.class_names[0] = "help"
    reply = console.reply("help: a cat; one cat") or ""
    assert reply.startswith("top-1 1.0000")
    assert (console.reply("q: a cat") or "").startswith("error: unknown class 'q'")


def test_a_class_whose_name_holds_braces_is_not_saved_as_what_it_does_not_mean(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text())
    before = path.read_text()
    values = {"template_mode": "per_class", "dataset": "digits", "sentences": {"a": ["a [b]"], "b": ["{x}"]}}
    with pytest.raises(ConfigError, match="a class name holds brackets or braces"):
        save_set(path, "mine", values, class_names=["a", "b"], dataset="digits")
    assert path.read_text() == before
