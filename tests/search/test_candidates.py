"""Single templates as candidates, and the chosen ones as one prompt set again; the pool of templates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from clipcifar.core.errors import DataError
from clipcifar.methods.zero_shot import class_weights
from clipcifar.prompts import pool
from clipcifar.prompts.sets import expand_set
from clipcifar.prompts.templates import expand_alternatives, spoken
from clipcifar.search.candidates import (
    Candidate,
    as_set,
    averageable,
    clashes,
    collect,
    keys_of,
    sums,
    tell_apart,
)
from clipcifar.search.ranking import normalised
from clipcifar.store.prompt_set import OWN_SENTENCES, PromptSet
from tests.support.import_closure import ROOT
from tests.support.synthetic import unit

DATASET = "imagefolder"
NAMES = ["cat", "sea_lion", "eel"]

PHOTO = {"template_mode": "shared", "templates": ["a photo of a {classname}."]}
MORE = {"template_mode": "shared", "templates": ["a [drawing|photo] of a {classname}.", "one {classname}."]}
SCENES = {
    "template_mode": "per_class",
    "dataset": DATASET,
    "sentences": {
        "cat": ["a cat asleep.", "a cat on a mat."],
        "sea_lion": ["a sea lion on a rock."],
        "eel": ["an [eel|eel larva] in a reef."],
    },
}
SYNONYMS = {
    "template_mode": "shared",
    "dataset": DATASET,
    "templates": ["the {classname}.", "see [a|the] {classname}!"],
    "class_names": {"cat": ["cat", "kitten"], "eel": ["moray", "conger"], "sea_lion": ["seal", "sea cat"]},
}


def expanded(name: str, values: dict[str, Any]) -> PromptSet:
    found = expand_set(name, values, class_names=NAMES, dataset=DATASET)
    assert found is not None
    return found


def offered(**sets: dict[str, Any]) -> list[Candidate]:
    return collect([expanded(name, values) for name, values in sets.items()], num_classes=len(NAMES))


def by_class(found: PromptSet) -> list[list[str]]:
    """The sentences of each class."""
    return [
        [text for label, text in zip(found.class_index, found.sentences, strict=True) if label == c]
        for c in range(len(NAMES))
    ]


def chosen_set(chosen: list[Candidate]) -> dict[str, Any]:
    return as_set(chosen, class_names=NAMES, dataset=DATASET)


def embedded(texts: list[str], *, dim: int = 8, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    rows = unit(np.random.default_rng(seed).standard_normal((len(texts), dim)))
    return dict(zip(texts, rows, strict=True))


# --- collect -------------------------------------------------------------------------------------


def test_a_template_of_two_sets_is_one_candidate_that_names_both_in_order_of_appearance() -> None:
    found = offered(photo=PHOTO, more=MORE)
    assert [(candidate.template, candidate.sets) for candidate in found] == [
        ("a photo of a {classname}.", ["photo", "more"]),
        ("a drawing of a {classname}.", ["more"]),
        ("one {classname}.", ["more"]),
    ]
    assert found[0].sentences == [["a photo of a cat."], ["a photo of a sea lion."], ["a photo of a eel."]]
    assert [candidate.template for candidate in offered(more=MORE, photo=PHOTO)] == [
        "a drawing of a {classname}.",
        "a photo of a {classname}.",
        "one {classname}.",
    ]


def test_a_set_with_sentences_of_its_own_is_one_candidate() -> None:
    found = offered(photo=PHOTO, scenes=SCENES)
    assert len(found) == 2
    assert (found[1].template, found[1].sets, found[1].label) == (
        OWN_SENTENCES,
        ["scenes"],
        "all of scenes",
    )
    assert found[1].sentences == by_class(expanded("scenes", SCENES))
    assert found[1].sentences[2] == ["an eel in a reef.", "an eel larva in a reef."]
    assert found[0].label == "a photo of a {classname}."


def test_two_sets_with_other_sentences_of_their_own_are_two_candidates_and_equal_ones_are_one() -> None:
    other = {**SCENES, "sentences": {**SCENES["sentences"], "eel": ["an eel."]}}  # type: ignore[dict-item]
    found = offered(scenes=SCENES, other=other, copy=SCENES)
    assert [candidate.sets for candidate in found] == [["scenes", "copy"], ["other"]]


def test_synonyms_give_each_class_as_many_sentences_as_it_has_names() -> None:
    found = offered(synonyms=SYNONYMS)
    assert [candidate.template for candidate in found] == [
        "the {classname}.",
        "see a {classname}!",
        "see the {classname}!",
    ]
    assert found[0].sentences == [
        ["the cat.", "the kitten."],
        ["the seal.", "the sea cat."],
        ["the moray.", "the conger."],
    ]


def test_the_same_template_with_other_names_is_another_candidate() -> None:
    plain = {"template_mode": "shared", "templates": ["the {classname}."]}
    found = offered(plain=plain, synonyms=SYNONYMS)
    assert [candidate.template for candidate in found].count("the {classname}.") == 2


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from(["photo", "more", "scenes", "synonyms", "pool"]), unique=True, min_size=1),
)
def test_every_sentence_of_every_set_is_said_for_its_class_by_a_candidate_of_that_set(
    names: list[str],
) -> None:
    known = {"photo": PHOTO, "more": MORE, "scenes": SCENES, "synonyms": SYNONYMS}
    sets = [
        pool.expand(NAMES, dataset=DATASET) if name == "pool" else expanded(name, known[name])
        for name in names
    ]
    found = collect(sets, num_classes=len(NAMES))
    for prompt_set in sets:
        own = [candidate for candidate in found if prompt_set.name in candidate.sets]
        assert len(own) == len(prompt_set.templates)
        for label, said in enumerate(by_class(prompt_set)):
            assert sorted(text for candidate in own for text in candidate.sentences[label]) == sorted(said)
    assert len({str(candidate.sentences) for candidate in found}) == len(found)


def test_plain_is_a_candidate_whose_template_says_it_all_with_the_classes_own_names() -> None:
    own = {**PHOTO, "dataset": DATASET, "class_names": {"eel": ["eel"]}}
    moray = {**own, "class_names": {"eel": ["moray"]}}
    more = {**own, "class_names": {"eel": ["eel", "moray"]}}
    for values, plain in ((PHOTO, True), (own, True), (moray, False), (more, False), (SCENES, False)):
        (found,) = offered(made=values)
        assert found.is_plain(NAMES) is plain
    (photo,) = offered(photo=PHOTO)
    assert photo.is_plain(["cat", "sea lion", "eel"])  # as it is spoken
    assert not photo.is_plain(["cat", "eel", "sea_lion"])


# --- sums ----------------------------------------------------------------------------------------


def test_sums_are_a_loop_over_sentences() -> None:
    candidates = offered(photo=PHOTO, scenes=SCENES, synonyms=SYNONYMS)
    embedding_of = embedded([text for c in candidates for own in c.sentences for text in own])
    found = sums(candidates, embedding_of)
    assert found.shape == (5, 3, 8)
    assert found.dtype == np.float32
    for i, candidate in enumerate(candidates):
        for label, own in enumerate(candidate.sentences):
            total = np.zeros(8)
            for text in own:
                total += embedding_of[text]
            np.testing.assert_allclose(found[i, label], total, atol=1e-6)


def test_sums_are_not_normalised_so_that_a_candidate_of_two_sentences_counts_twice() -> None:
    one, two = Candidate("x", ["s"], [["a"]]), Candidate("y", ["s"], [["b", "c"]])
    axes = dict(zip("abc", np.eye(3, dtype=np.float32), strict=True))
    np.testing.assert_array_equal(sums([one, two], axes), [[[1, 0, 0]], [[0, 1, 1]]])


def test_normalised_the_sum_over_candidates_is_the_zero_shot_classifier_of_all_their_sentences() -> None:
    prompt_sets = [expanded("scenes", SCENES), expanded("synonyms", SYNONYMS)]
    candidates = collect(prompt_sets, num_classes=3)
    texts = [text for found in prompt_sets for text in found.sentences]
    embedding_of = embedded(texts)
    expected = class_weights(
        np.stack([embedding_of[text] for text in texts]),
        np.array([label for found in prompt_sets for label in found.class_index]),
        class_names=NAMES,
    )
    np.testing.assert_allclose(normalised(sums(candidates, embedding_of).sum(axis=0)), expected, atol=1e-6)


def test_a_sentence_that_was_not_embedded_is_named() -> None:
    candidates = offered(photo=PHOTO, scenes=SCENES)
    texts = [text for c in candidates for own in c.sentences for text in own]
    embedding_of = embedded(texts)
    sums(candidates, embedding_of)
    del embedding_of["a sea lion on a rock."]
    with pytest.raises(DataError, match=r"'a sea lion on a rock\.' was not embedded") as caught:
        sums(candidates, embedding_of)
    assert "dvc repro" in caught.value.fix


def test_sentences_that_cancel_out_are_refused_and_the_candidate_is_named() -> None:
    embedding_of = embedded(["a", "b", "c"])
    embedding_of["b"] = -embedding_of["a"]
    candidates = [Candidate(OWN_SENTENCES, ["scenes"], [["c"], ["a", "b"]])]
    with pytest.raises(DataError, match="'all of scenes' cancel out"):
        sums(candidates, embedding_of)
    assert sums([Candidate(OWN_SENTENCES, ["scenes"], [["c"], ["a"]])], embedding_of).shape == (1, 2, 8)


# --- as_set --------------------------------------------------------------------------------------


def said_by(chosen: list[Candidate]) -> list[list[str]]:
    return [[text for candidate in chosen for text in candidate.sentences[c]] for c in range(len(NAMES))]


def test_templates_alone_make_a_shared_set() -> None:
    candidates = offered(photo=PHOTO, more=MORE)
    assert chosen_set([candidates[2], candidates[0]]) == {
        "template_mode": "shared",
        "templates": ["one {classname}.", "a photo of a {classname}."],
    }


@pytest.mark.parametrize("other", [SCENES, SYNONYMS])
def test_with_a_member_that_says_more_than_its_template_every_class_gets_its_own_sentences(
    other: dict[str, Any],
) -> None:
    plain, *others = offered(photo=PHOTO, other=other)
    for chosen in ([plain, others[0]], [others[0]], [others[0], plain]):
        found = chosen_set(chosen)
        assert (found["template_mode"], found["dataset"]) == ("per_class", DATASET)
        assert found["sentences"] == dict(zip(NAMES, said_by(chosen), strict=True))
    assert chosen_set([plain])["template_mode"] == "shared"


def test_one_synonym_for_one_class_is_enough_for_sentences_of_its_own() -> None:
    values = {**PHOTO, "dataset": DATASET, "class_names": {"eel": ["moray"]}}
    found = chosen_set(offered(moray=values))
    assert found["sentences"]["eel"] == ["a photo of a moray."]
    assert found["sentences"]["sea_lion"] == ["a photo of a sea lion."]
    same = {**values, "class_names": {"eel": ["eel"], "sea_lion": ["sea lion"]}}
    assert chosen_set(offered(same=same))["template_mode"] == "shared"


@settings(max_examples=40)
@given(st.lists(st.integers(0, 6), unique=True, min_size=1))
def test_the_set_expands_to_exactly_what_its_members_say(picked: list[int]) -> None:
    """Through params.yaml's own form and text, in any order of the members, `sea_lion` among the classes."""
    candidates = offered(photo=PHOTO, more=MORE, scenes=SCENES, synonyms=SYNONYMS)
    assert len(candidates) == 7
    chosen = [candidates[i] for i in picked]
    found = chosen_set(chosen)
    again = expanded("again", yaml.safe_load(yaml.safe_dump(found)))
    assert by_class(again) == said_by(chosen)
    if found["template_mode"] == "shared":
        assert again.templates == [candidate.template for candidate in chosen]


def test_candidates_that_share_a_sentence_clash_whatever_its_class_or_white_space() -> None:
    """As photo and scenes of params.yaml share "a photo of a bird."."""
    scenes = {**SCENES, "sentences": {**SCENES["sentences"], "cat": ["a photo  of a cat.", "a cat."]}}  # type: ignore[dict-item]
    assert clashes(offered(photo=PHOTO, scenes=scenes)) == {0: {1}, 1: {0}}
    assert clashes(offered(photo=PHOTO, scenes=SCENES)) == {}
    one = Candidate("a", ["x"], [["a pet."], ["a dog."]])
    other = Candidate("b", ["y"], [["a cat."], ["a pet."]])  # of another class
    third = Candidate("c", ["z"], [["one cat."], ["one dog."]])
    assert clashes([one, third, other]) == {0: {2}, 2: {0}}


def test_a_plain_average_takes_single_templates_none_of_which_clashes_with_one_before() -> None:
    names = ["photo", "cat"]
    found = collect(
        [
            expanded_for(names, ["a photo of {classname}.", "a {classname} of photo.", "the {classname}"]),
        ],
        num_classes=2,
    )
    clashing = clashes(found)
    assert clashing == {0: {1}, 1: {0}}  # both say "a photo of photo."
    assert averageable(found, clashing, class_names=names) == [0, 2]
    own = Candidate(OWN_SENTENCES, ["scenes"], [["a print."], ["a pet."]])
    assert averageable([own, *found], {}, class_names=names) == [1, 2, 3]


def expanded_for(names: list[str], templates: list[str]) -> PromptSet:
    """A set in which templates may repeat each other's sentences, as those of two sets may."""
    return PromptSet(
        "any",
        class_index=[c for c in range(len(names)) for _ in templates],
        sentences=[text.replace("{classname}", name) for name in names for text in templates],
        template_index=[t for _ in names for t in range(len(templates))],
        templates=templates,
        origins=[f"said as {text}" for _ in names for text in templates],
    )


def test_only_keeps_the_templates_all_of_whose_sentences_are_there() -> None:
    whole = expanded_for(["cat", "dog"], ["a {classname}.", "the {classname}.", "my {classname}."])
    part = whole.only({"a cat.", "a dog.", "the cat.", "my cat.", "my dog."})
    assert part == expanded_for(["cat", "dog"], ["a {classname}.", "my {classname}."])


# --- the pool ------------------------------------------------------------------------------------


def pool_templates() -> list[str]:
    return pool.expand(NAMES, dataset=DATASET).templates


def test_the_pool_is_300_templates_that_differ_in_more_than_case_and_space() -> None:
    found = pool_templates()
    assert len(found) == 300
    assert len({" ".join(template.lower().split()) for template in found}) == 300
    assert all(template.count("{classname}") == 1 for template in found)
    assert not any(bracket in template for template in found for bracket in "[]|")
    assert not any("  " in template or template != template.strip() for template in found)


def test_no_template_of_the_pool_is_in_a_set_of_params_yaml() -> None:
    sets = yaml.safe_load((ROOT / "params.yaml").read_text())["prompts"]["sets"]
    shared = [
        reading.lower()
        for values in sets.values()
        if values["template_mode"] == "shared"
        for template in values["templates"]
        for reading in expand_alternatives(template)
    ]
    assert len(shared) > 300  # photo, cifar18 and wide
    assert not {template.lower() for template in pool_templates()} & set(shared)


@pytest.mark.parametrize("names", [NAMES, ["ox", "yak"]])
def test_the_pool_says_every_template_once_for_every_class(names: list[str]) -> None:
    found = pool.expand(names, dataset="made")
    assert found.name == pool.NAME
    expected = [
        (c, t, template.replace("{classname}", spoken(name)))
        for c, name in enumerate(names)
        for t, template in enumerate(pool_templates())
    ]
    assert list(zip(found.class_index, found.template_index, found.sentences, strict=True)) == expected


@pytest.mark.parametrize("names", [["cat", "cat in a photo"], ["cat in a photo", "cat"]])
def test_a_template_of_the_pool_that_repeats_another_is_left_out(names: list[str]) -> None:
    found = pool.expand(names, dataset="made")
    assert 280 < len(found.templates) < 300
    assert len(set(found.sentences)) == len(found.sentences) == 2 * len(found.templates)


def test_where_every_template_says_the_same_of_two_classes_the_pool_is_empty() -> None:
    """Class folders may differ in their underscores alone, which no sentence shows."""
    found = pool.expand(["great_auk", "great auk"], dataset="made")
    assert (found.name, found.sentences, found.templates) == (pool.NAME, [], [])


def test_of_the_pool_an_even_part_serves_very_many_classes() -> None:
    whole = pool_templates()
    found = pool.expand([f"class {i}" for i in range(1000)], dataset="made")
    assert len(found.templates) == 30
    assert found.templates == whole[::10]
    assert len(found.sentences) == pool.MAX_SENTENCES
    assert len(pool.expand([f"class {i}" for i in range(100)], dataset="made").templates) == 300


# --- sentences that are the same to the model ------------------------------------------------------


def told_by_a_tokenizer_that_lowers(texts: list[str]) -> dict[str, NDArray[np.float32]]:
    rows = embedded(sorted({text.lower() for text in texts}))
    return {text: rows[text.lower()] for text in texts}


def test_templates_that_are_the_same_to_the_model_are_one_candidate() -> None:
    sets = [
        expanded("small", {"template_mode": "shared", "templates": ["a photo of {classname}."]}),
        expanded(
            "large",
            {
                "template_mode": "shared",
                "templates": ["A Photo of {classname}.", "A {classname}!", "A PHOTO of {classname}."],
            },
        ),
    ]
    keys = keys_of(told_by_a_tokenizer_that_lowers([text for item in sets for text in item.sentences]))
    merged = collect(sets, num_classes=3, keys=keys)
    assert [(item.template, item.sets) for item in merged] == [
        ("a photo of {classname}.", ["small", "large"]),
        ("A {classname}!", ["large"]),
    ]
    assert len(collect(sets, num_classes=3)) == 4


def test_a_candidate_counts_a_sentence_once_and_clashes_with_who_says_the_same_to_the_model() -> None:
    own = {
        **SCENES,
        "sentences": {"cat": ["A photo of a CAT.", "a photo of a cat."], "sea_lion": ["x"], "eel": ["y"]},
    }
    sets = [expanded("photo", PHOTO), expanded("own", own)]
    embedding_of = told_by_a_tokenizer_that_lowers([text for item in sets for text in item.sentences])
    keys = keys_of(embedding_of)
    photo, scenes = merged = collect(sets, num_classes=3, keys=keys)
    assert scenes.sentences == [["A photo of a CAT."], ["x"], ["y"]]
    np.testing.assert_allclose(sums(merged, embedding_of)[1, 0], embedding_of["a photo of a cat."])
    assert clashes(merged, keys) == {0: {1}, 1: {0}}
    assert clashes([photo, Candidate(OWN_SENTENCES, ["own"], [["A photo of a CAT."], ["x"], ["y"]])]) == {}


def test_candidates_in_which_two_classes_are_the_same_are_left_out() -> None:
    a, b, c = np.eye(3, dtype=np.float32)
    assert tell_apart(np.stack([[a, b, c], [a, 2 * a, c], [a, b, a + b]])) == [0, 2]


def test_sets_that_share_sentences_between_classes_can_be_searched() -> None:
    """As long as the whole set tells classes apart; a template that adds nothing for a class is none."""
    shared = {
        **SCENES,
        "sentences": {"cat": ["a pet.", "a cat."], "sea_lion": ["a pet."], "eel": ["an eel."]},
    }
    candidates = offered(shared=shared)
    texts = [text for own in candidates[0].sentences for text in own]
    assert tell_apart(sums(candidates, embedded(texts))) == [0]
    again = expanded("again", chosen_set(candidates))
    assert by_class(again) == candidates[0].sentences
    repeats = {
        "template_mode": "shared",
        "dataset": DATASET,
        "templates": ["a {classname} cat.", "a cat {classname}."],
    }
    found = expand_set("r", repeats, class_names=["cat", "eel"], dataset=DATASET)
    assert found is not None
    assert found.num_repeated == 1  # "a cat cat."
    assert [item.template for item in collect([found], num_classes=2)] == ["a {classname} cat."]


def test_where_no_single_template_is_offered_the_first_candidate_stands_for_the_average() -> None:
    own = Candidate(OWN_SENTENCES, ["scenes"], [["a print."], ["a pet."]])
    assert averageable([own], {}, class_names=["photo", "cat"]) == [0]
