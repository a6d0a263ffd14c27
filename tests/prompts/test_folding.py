"""Many templates in few lines that say the same."""

from __future__ import annotations

import yaml
from hypothesis import given, settings, strategies as st

from clipcifar.prompts import pool
from clipcifar.prompts.folding import fold
from clipcifar.prompts.save import compact
from clipcifar.prompts.sets import expand_set
from clipcifar.prompts.templates import MAX_LENGTH, expand_alternatives
from tests.support.import_closure import ROOT


def readings(lines: list[str]) -> list[str]:
    return sorted(reading for line in lines for reading in expand_alternatives(line))


def test_templates_that_differ_in_words_are_one_by_hand() -> None:
    assert fold(["a photo of a {classname}.", "a photo of the {classname}."]) == [
        "a photo of [a|the] {classname}."
    ]
    product = [
        f"a {kind} of {article} {{classname}}." for kind in ("photo", "sketch") for article in ("a", "my")
    ]
    assert fold(product) == ["a [photo|sketch] of [a|my] {classname}."]
    assert fold(["a {classname}.", "a {classname} in a photo."]) == ["a {classname}[| in a photo]."]
    assert fold(["{classname}!", "what is that?{classname}"]) == ["{classname}!", "what is that?{classname}"]
    assert fold(["one {classname}"]) == ["one {classname}"]


def test_the_plain_average_of_all_templates_takes_no_more_lines_than_a_person_would() -> None:
    sets = yaml.safe_load((ROOT / "params.yaml").read_text())["prompts"]["sets"]
    written = [*sets["photo"]["templates"], *sets["wide"]["templates"], *pool.TEMPLATES]
    templates = list(dict.fromkeys(readings(written)))
    folded = fold(templates)
    assert len(templates) > 590
    assert len(folded) <= len(written) + 5
    assert sum(map(len, folded)) < sum(map(len, templates)) / 4
    assert readings(folded) == templates


def test_the_set_is_the_same_for_every_class() -> None:
    about = {"class_names": ["cat", "sea_lion"], "dataset": "digits"}
    values = {
        "template_mode": "shared",
        "templates": [r for t in pool.TEMPLATES for r in expand_alternatives(t)],
    }
    plain, short = (expand_set("average", own, **about) for own in (values, compact(values)))  # type: ignore[arg-type]
    assert plain is not None
    assert short is not None
    pairs = [sorted(zip(own.class_index, own.sentences, strict=True)) for own in (plain, short)]
    assert pairs[0] == pairs[1]
    values["weights"] = [1 + i / 8 for i in range(len(values["templates"]))]
    plain, short = (expand_set("average", own, **about) for own in (values, compact(values)))  # type: ignore[arg-type]
    weights = [dict(zip(own.sentences, own.weights or [], strict=True)) for own in (plain, short) if own]
    assert weights[0] == weights[1]
    assert len(set(weights[0].values())) == len(values["templates"])
    own_sentences = {
        "template_mode": "per_class",
        "dataset": "digits",
        "sentences": {"cat": ["a cat.", "the cat."]},
    }
    assert compact(own_sentences) == own_sentences


WORDS = st.sampled_from(
    ["a", "the", "big", "black and white", "{classname}", "of", ".", ",", "in", "é", "貓", "  "]
)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.lists(st.lists(WORDS, min_size=1, max_size=6).map(" ".join), min_size=1, max_size=25, unique=True))
def test_folded_lines_read_as_the_templates_each_once(templates: list[str]) -> None:
    folded = fold(templates)
    assert readings(folded) == sorted(templates)
    assert len(folded) <= len(templates)


def test_what_brackets_would_change_stays_as_it_is() -> None:
    for odd in ("a {classname} | b", "a [b] {classname}", "a ] {classname}"):
        templates = ["a {classname}", "the {classname}", odd]
        assert fold(templates) == templates


def test_long_templates_stay_and_no_line_grows_beyond_what_is_read() -> None:
    long = [f"{'very ' * 100}{word} {{classname}}" for word in ("a", "the")]
    assert fold(long) == long
    many = [f"{word * 20} {{classname}}" for word in map("w{}".format, range(200))]
    folded = fold(many)
    assert max(map(len, folded)) <= MAX_LENGTH
    assert readings(folded) == sorted(many)
