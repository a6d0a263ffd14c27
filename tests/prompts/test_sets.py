from __future__ import annotations

import math
import time
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from clipcifar.core import params
from clipcifar.core.errors import ConfigError, DataError
from clipcifar.prompts import sets as prompts
from clipcifar.prompts.params import PromptsParams
from clipcifar.prompts.sets import expand_set, expand_sets
from clipcifar.prompts.templates import MAX_LENGTH, check_text, expand_alternatives
from clipcifar.store.prompt_set import PromptSet
from tests.support.import_closure import ROOT

CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def _shared(*templates: Any, **more: Any) -> dict[str, Any]:
    return {"template_mode": "shared", "templates": list(templates), **more}


def _per_class(sentences: Any, dataset: str = "cifar10") -> dict[str, Any]:
    return {"template_mode": "per_class", "dataset": dataset, "sentences": sentences}


def _expand(values: Any, names: list[str] | None = None) -> prompts.PromptSet:
    found = expand_set("s", values, class_names=names or ["cat", "dog"], dataset="cifar10")
    assert found is not None
    return found


def _refused(values: Any, names: list[str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        _expand(values, names)
    assert caught.value.exit_code == 2
    return str(caught.value)


def _naive(pieces: list[list[str]]) -> list[str]:
    if not pieces:
        return [""]
    return [head + tail for head in pieces[0] for tail in _naive(pieces[1:])]


_plain = st.text(alphabet="abc .", max_size=4)


@settings(max_examples=50)
@given(st.lists(st.one_of(_plain.map(lambda t: [t]), st.lists(_plain, min_size=2, max_size=3)), max_size=6))
def test_alternatives_expand_as_nested_loops_would(pieces: list[list[str]]) -> None:
    template = "".join(p[0] if len(p) == 1 else f"[{'|'.join(p)}]" for p in pieces)
    assert expand_alternatives(template) == _naive(pieces)


def test_six_templates_in_a_line() -> None:
    found = _expand(_shared("a [good|bad|blurry] photo of [a|the] {classname}."))
    assert found.sentences[:3] == [
        "a good photo of a cat.",
        "a good photo of the cat.",
        "a bad photo of a cat.",
    ]
    assert found.class_index == [0] * 6 + [1] * 6


@pytest.mark.parametrize("template", ["a [b", "a b]", "a [b|[c]] d", "]["])
def test_unbalanced_and_nested_brackets_are_refused(template: str) -> None:
    assert "templates[0]" in _refused(_shared(template + " {classname}"))


def test_an_explosion_of_alternatives_is_refused_before_it_is_built() -> None:
    assert "more than" in _refused(_shared("[a|b]" * 60 + "{classname}"))


@pytest.mark.parametrize(
    "template",
    [
        "{}",
        "a {classnam}",
        "{classname.__class__}",
        "{classname:>200000000}",
        "{classname!r}",
        "{classname",
        "classname}",
        "{{classname}}",
    ],
)
def test_only_the_placeholder_is_substituted(template: str) -> None:
    message = _refused(_shared("a {classname}", template))
    assert "prompts.sets.s.templates[1]" in message
    assert "{classname}" in message


@pytest.mark.parametrize("template", ["a photo", "a photo[ of a {classname}|]"])
def test_a_template_that_does_not_name_the_class_is_refused(template: str) -> None:
    assert "templates[0]" in _refused(_shared(template))


@pytest.mark.parametrize(
    "template", ["", "   ", "\n", "a\x00 {classname}", "a\x1b {classname}", 3, None, ["a"]]
)
def test_what_is_no_sentence_is_refused(template: Any) -> None:
    assert "templates[1]" in _refused(_shared("a {classname}", template))


def test_emoji_and_right_to_left_text_are_sentences() -> None:
    found = _expand(_shared("\U0001f408 {classname}", "صورة {classname}"))
    assert found.sentences == ["\U0001f408 cat", "صورة cat", "\U0001f408 dog", "صورة dog"]


def test_duplicates_after_unicode_normalisation_are_refused() -> None:
    message = _refused(_shared("caf\u00e9 {classname}", "cafe\u0301  {classname}"))
    assert "templates[0]" in message
    assert "templates[1]" in message


def test_class_names_are_not_templates() -> None:
    names = ["{x}", "[a|b]", "{classname}"]
    assert _expand(_shared("a {classname}."), names).sentences == [f"a {name}." for name in names]


def test_underscores_of_class_names_become_spaces_in_prompts() -> None:
    assert _expand(_shared("a {classname}."), ["maple_tree"]).sentences == ["a maple tree."]


def test_other_names_for_a_class() -> None:
    found = _expand(_shared("a {classname}.", class_names={"cat": ["cat", "kitten"]}, dataset="cifar10"))
    assert found.sentences == ["a cat.", "a kitten.", "a dog."]
    assert found.class_index == [0, 0, 1]
    assert "dataset" in _refused(_shared("a {classname}.", class_names={"cat": ["x"]}))
    assert "did you mean cat?" in _refused(
        _shared("{classname}", class_names={"catt": ["x"]}, dataset="cifar10")
    )


def test_per_class_sentences_need_every_class_and_no_other() -> None:
    sentences: dict[str, Any] = {name: [f"one {name}"] for name in CIFAR}
    assert _expand(_per_class(sentences), CIFAR).class_index == list(range(10))
    message = _refused(_per_class({**sentences, "aeroplane": ["x"]}), CIFAR)
    assert "did you mean airplane?" in message
    del sentences["dog"]
    assert "'dog'" in _refused(_per_class(sentences), CIFAR)
    sentences["dog"] = []
    assert "sentences.dog" in _refused(_per_class(sentences), CIFAR)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (3, "is a mapping"),
        ({"template_mode": "both"}, "use shared or per_class"),
        ({"template_mode": "shared"}, "'templates' is missing"),
        (_shared("{classname}", templats=[]), "did you mean templates?"),
        (_shared(), "at least one entry"),
        ({"template_mode": "per_class", "sentences": {}}, "'dataset' is missing"),
        (_per_class([]), "mapping of class"),
    ],
)
def test_malformed_sets_are_refused(values: Any, expected: str) -> None:
    assert expected in _refused(values)


@pytest.mark.parametrize("name", ["v1.0", "a b", "", "é", "../x"])
def test_set_names_that_dvc_would_misread_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="letters, digits"):
        expand_set(name, _shared("{classname}"), class_names=["cat"], dataset="d")


def test_a_set_for_another_dataset_is_skipped_and_an_error_only_if_active() -> None:
    sets = {"photo": _shared("a {classname}"), "own": _per_class({"cat": ["x"]}, dataset="digits")}
    found, skipped, left_out = expand_sets(
        PromptsParams("photo", sets), class_names=["cat"], dataset="cifar10"
    )
    assert ([s.name for s in found], skipped, left_out) == (["photo"], ["own"], {})
    with pytest.raises(ConfigError, match="'digits'") as other:
        expand_sets(PromptsParams("own", sets), class_names=["cat"], dataset="cifar10")
    assert "choose another set (photo), or write one for cifar10" in str(other.value)
    with pytest.raises(ConfigError) as caught:
        expand_sets(PromptsParams("foto", sets), class_names=["cat"], dataset="cifar10")
    assert "did you mean photo?" in str(caught.value)


def _sizes(max_sentences: int, active: str, **sets: Any) -> tuple[list[str], list[str], dict[str, int]]:
    prompts = PromptsParams(active, sets, max_sentences)
    expanded = expand_sets(prompts, class_names=["cat", "dog", "eel"], dataset="d")
    return [prompt_set.name for prompt_set in expanded.sets], expanded.skipped, expanded.left_out


def test_a_set_of_more_sentences_than_wanted_is_left_out_and_counted_unless_it_is_active() -> None:
    sets = {
        "six": _shared("a [big|small] {classname}."),
        "nine": _shared("a [big|small|odd] {classname}."),
        "own": _per_class({"cat": ["[a|b|c|d|e]"], "dog": ["x"], "eel": ["y"]}, dataset="digits")
        | {"dataset": "digits"},
    }
    assert _sizes(9, "six", **sets) == (["six", "nine"], ["own"], {})
    assert _sizes(8, "six", **sets) == (["six"], ["own"], {"nine": 9})
    assert _sizes(1, "nine", **sets) == (["nine"], ["own"], {"six": 6})


def test_names_of_classes_and_own_sentences_count_too() -> None:
    names = _shared("a {classname}.", class_names={"cat": ["cat", "kitten"]}, dataset="cifar10")
    own = _per_class({"cat": ["[a|b|c] cat"], "dog": ["dog"], "eel": ["eel"]}, dataset="cifar10")
    prompts = PromptsParams("photo", {"photo": _shared("{classname}"), "names": names, "own": own}, 3)
    expanded = expand_sets(prompts, class_names=["cat", "dog", "eel"], dataset="cifar10")
    assert expanded.left_out == {"names": 4, "own": 5}


def test_what_is_wrong_with_a_set_that_is_left_out_is_said_all_the_same() -> None:
    with pytest.raises(ConfigError, match=r"sets.large.templates\[0\]"):
        _sizes(1, "photo", photo=_shared("{classname}"), large=_shared("a [big|small] dog"))


def test_a_set_that_is_left_out_is_never_built() -> None:
    """A thousand classes times a hundred thousand readings, within the time of the readings."""
    large = _shared("[a|b]" * 16 + " {classname}")
    prompts = PromptsParams("photo", {"photo": _shared("{classname}"), "large": large})
    names = [f"class {i}" for i in range(1000)]
    expanded = expand_sets(prompts, class_names=names, dataset="d")
    assert expanded.left_out == {"large": 65_536_000}
    assert [prompt_set.name for prompt_set in expanded.sets] == ["photo"]


@settings(max_examples=20)
@given(st.permutations(CIFAR))
def test_permuting_the_classes_permutes_the_sentences(names: list[str]) -> None:
    values = _shared("a [big|small] {classname}.")
    sentences = {
        name: [s for c, s in zip(found.class_index, found.sentences, strict=True) if order[c] == name]
        for order in (names,)
        for found in (_expand(values, order),)
        for name in order
    }
    assert sentences == {name: [f"a big {name}.", f"a small {name}."] for name in names}


def _shipped() -> dict[str, prompts.PromptSet]:
    section = params.read(params.load(ROOT / "params.yaml"), "prompts", PromptsParams)
    found, _, _ = expand_sets(section, class_names=CIFAR, dataset="cifar10")
    return {item.name: item for item in found}


def test_the_shipped_sets_have_their_published_sizes() -> None:
    sets = _shipped()
    assert sets["photo"].sentences == [f"a photo of a {name}." for name in CIFAR]
    assert sets["scenes"].sentences[7] == "a horse in a field."
    assert {name: len(sets[name].sentences) // 10 for name in sets} == {
        "photo": 1,
        "scenes": 1,
        "cifar18": 18,
        "wide": 300,
    }


def test_the_wide_set_holds_the_benchmark_templates_and_all_differ_to_the_tokenizer() -> None:
    import open_clip
    import torch
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

    sets = _shipped()
    assert {template("dog") for template in OPENAI_IMAGENET_TEMPLATES} <= set(sets["wide"].sentences)
    assert len(OPENAI_IMAGENET_TEMPLATES) == 80
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    for item in sets.values():
        assert len(torch.unique(tokenizer(item.sentences), dim=0)) == len(item.sentences)
        assert max(len(tokenizer.encode(sentence)) for sentence in item.sentences) + 2 <= 77


def test_a_mistyped_dataset_does_not_make_a_set_vanish() -> None:
    message = _refused(_per_class({"cat": ["x"]}, dataset="cifar1O"))
    assert "did you mean cifar10?" in message


def test_the_known_datasets_are_the_registrys() -> None:
    from clipcifar.datasets.registry import REGISTRY

    assert tuple(REGISTRY) == params.DATASETS


@pytest.mark.parametrize("text", ["a <end_of_text> {classname}", "<START_OF_TEXT> {classname}"])
def test_the_tokenizers_own_marks_are_refused(text: str) -> None:
    """Behind an end mark CLIP reads nothing, so two classes would be one."""
    assert "mark of the tokenizer" in _refused(_shared(text))


def test_many_classes_do_not_multiply_a_template_beyond_the_limit() -> None:
    names = [str(i) for i in range(1000)]
    assert "more than" in _refused(_shared("[a|b]" * 10 + " {classname}"), names)


@pytest.mark.parametrize(
    "values", [_shared("{classname}", class_names=["x"], dataset="cifar10"), {"template_mode": ["shared"]}]
)
def test_values_of_another_type_are_messages_and_no_crash(values: Any) -> None:
    assert "prompts.sets.s" in _refused(values)


def test_replacement_is_exact_and_happens_once() -> None:
    names = ["cat", "{classname}", "[a|b]", "a|b", "{0}", "%s", "$x", "\\1", "猫"]
    found = _expand(_shared("{classname}{classname}: {classname}"), names)
    assert found.sentences == [f"{name}{name}: {name}" for name in names]
    own = {name: [f"{i} {{classname}} [x|y]"] for i, name in enumerate(names)}
    assert _expand(_per_class(own), names).sentences == [
        f"{i} {name} {end}" for i, name in enumerate(names) for end in "xy"
    ]


@settings(max_examples=50)
@given(st.text(alphabet="ab {}[]|classname.", max_size=12), st.sampled_from(["cat", "{classname}", "[x|y]"]))
def test_a_template_is_replaced_exactly_or_refused(text: str, name: str) -> None:
    template = "{classname}" + text
    try:
        found = _expand(_shared(template), [name]).sentences
    except ConfigError:
        assert set(text) & set("{}[]")
        return
    rest = text.replace("{classname}", "")
    assert not set(rest) & set("{}")
    if not set(rest) & set("[]"):
        assert found == [template.replace("{classname}", name)]
    assert all(sentence.startswith(name) for sentence in found)


@settings(max_examples=50)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_there_are_as_many_readings_as_the_product_of_the_alternatives(counts: list[int]) -> None:
    template = " ".join(f"[{'|'.join(f'{i}.{j}' for j in range(n))}]" for i, n in enumerate(counts))
    found = expand_alternatives(template)
    assert len(found) == len(set(found)) == math.prod(counts)


@pytest.mark.parametrize("sentence", ["[a cat|]", "[ |a cat]", "[|]"])
def test_an_alternative_that_leaves_nothing_to_say_is_refused(sentence: str) -> None:
    message = _refused(_per_class({"cat": ["a cat"], "dog": ["a dog", sentence]}))
    assert "sentences.dog[1]" in message


def test_a_class_whose_name_is_blank_leaves_nothing_to_say_either() -> None:
    assert "empty" in _refused(_shared("{classname}"), ["cat", "_"])


@pytest.mark.parametrize(
    "values",
    [
        _shared(*("[a|b]" * 16 + " {classname}" + "." * i for i in range(16))),
        _shared(
            "[a|b]" * 12 + " {classname}",
            class_names={"cat": [f"cat {i}" for i in range(300)]},
            dataset="cifar10",
        ),
        _per_class({"cat": ["[a|b]" * 16 + str(i) for i in range(16)], "dog": ["x"]}),
        _per_class({"cat": ["x"], "dog": ["[a|b]" * 16] * 1000}),
    ],
)
def test_a_set_of_too_many_sentences_is_refused_before_it_is_built(values: Any) -> None:
    start = time.process_time()
    message = _refused(values)
    assert "more than 1,000,000 sentences, or 500,000,000 characters" in message
    assert "fewer alternatives" in message
    assert time.process_time() - start < 5


def test_a_set_of_too_many_characters_is_refused_before_it_is_built() -> None:
    """A tenth of the sentences that there may be."""
    message = _refused(_shared("[a|b]" * 16 + " {classname}" + "." * 4_500))
    assert "or 500,000,000 characters" in message


LONG_NAME = "c" * 250


@pytest.mark.parametrize(
    "values",
    [
        _shared("{classname} " + "x" * 6_000),
        _shared("{classname}" * 20),  # of the long name
        _shared("{classname}" * 5, class_names={"dog": ["x" * 1_500]}, dataset="cifar10"),
        _per_class({LONG_NAME: ["{classname}" * 20], "dog": ["x"]}),
    ],
)
def test_a_sentence_of_absurd_length_is_refused_before_it_is_built(values: Any) -> None:
    assert "5,000 characters" in _refused(values, [LONG_NAME, "dog"])
    assert _expand(_shared("{classname}" * 19), [LONG_NAME]).sentences == [LONG_NAME * 19]


@pytest.mark.parametrize("template", ["a [b {classname}", "[a|b]" * 60 + "{classname}"])
def test_the_fix_fits_what_is_wrong_with_the_alternatives(template: str) -> None:
    message = _refused(_shared(template))
    assert ("fewer" in message) == (template.count("[") == template.count("]"))


@pytest.mark.parametrize(
    ("values", "place"),
    [
        (_shared("{classname}", class_names=["cat"], dataset="cifar10"), "class_names"),
        (_shared("{classname}", class_names={"cat": "kitten"}, dataset="cifar10"), "class_names.cat"),
        (_shared("{classname}", class_names={"cat": [""]}, dataset="cifar10"), "class_names.cat[0]"),
        (_shared("{classname}", class_names={"cat": ["a{b}"]}, dataset="cifar10"), "class_names.cat[0]"),
        ({"template_mode": "shared", "templates": "a {classname}"}, "templates"),
        (_per_class({"cat": "a cat", "dog": ["x"]}), "sentences.cat"),
        (_per_class({"cat": ["x"], "dog": [3]}), "sentences.dog[0]"),
        (_per_class({"cat": ["x"], "dog": ["a {dog}"]}), "sentences.dog[0]"),
        (_per_class({"cat": ["x"], "dog": ["a [dog"]}), "sentences.dog[0]"),
        (_per_class(None), "sentences"),
    ],
)
def test_the_place_of_a_mistake_is_named_to_the_entry(values: Any, place: str) -> None:
    assert f"where: params.yaml: prompts.sets.s.{place}\n" in _refused(values) + "\n"


def test_a_sentence_of_two_classes_is_said_of_both_and_told() -> None:
    expanded = _expand(_per_class({"cat": ["a pet", "a cat"], "dog": ["a dog", "a  pet"]}))
    assert expanded.sentences == ["a pet", "a cat", "a dog", "a  pet"]
    assert expanded.class_index == [0, 0, 1, 1]
    assert prompts.notes(expanded, ["cat", "dog"]) == [
        "s: 1 sentence is said of several classes, such as 'a pet' (cat, dog)"
    ]


def test_what_a_class_says_again_is_left_out_and_counted() -> None:
    """As language models write; of spellings that differ in white space or normal form, the first stays."""
    cats = ["a cat", "a caf\u00e9 cat", "a  cat", "a cafe\u0301 cat", "[a|the] cat"]
    expanded = _expand(_per_class({"cat": cats, "dog": ["a dog"]}))
    assert expanded.sentences == ["a cat", "a caf\u00e9 cat", "the cat", "a dog"]
    assert (expanded.num_repeated, _expand(_per_class({"cat": ["a"], "dog": ["b"]})).num_repeated) == (3, 0)
    assert prompts.notes(expanded, ["cat", "dog"]) == [
        "s: 3 sentences left out, which its class says already"
    ]


def test_names_of_a_class_that_lead_two_templates_to_one_sentence_say_it_once() -> None:
    values = _shared("a {classname}.", "a big {classname}.", class_names={"cat": ["cat", "big cat"]})
    expanded = _expand({**values, "dataset": "cifar10"})
    assert expanded.sentences[:3] == ["a cat.", "a big cat.", "a big big cat."]
    assert (expanded.num_repeated, len(expanded.sentences)) == (1, 5)


def test_a_weight_for_each_template_as_expanded_is_that_of_its_sentences() -> None:
    expanded = _expand(_shared("a [good|bad] {classname}.", "the {classname}.", weights=[2, 0.5, 1.25]))
    assert expanded.sentences[:3] == ["a good cat.", "a bad cat.", "the cat."]
    assert expanded.weights == [2.0, 0.5, 1.25, 2.0, 0.5, 1.25]
    assert _expand(_shared("a {classname}.")).weights is None
    assert expanded.only({*expanded.sentences} - {"a bad dog."}).weights == [2.0, 1.25, 2.0, 1.25]


def test_weights_of_what_a_class_says_again_add_up() -> None:
    names = {"cat": ["cat", "big cat"]}
    values = _shared("a {classname}.", "a big {classname}.", class_names=names, weights=[1, 4])
    expanded = _expand({**values, "dataset": "cifar10"})
    said = dict(zip(expanded.sentences, expanded.weights or [], strict=True))
    assert said == {"a cat.": 1, "a big cat.": 5, "a big big cat.": 4, "a dog.": 1, "a big dog.": 4}
    assert prompts.notes(expanded, ["cat", "dog"]) == [
        "s: 1 sentence left out, which its class says already, their weights added to those"
    ]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([1, 2], "2 weights for 3 templates with all alternatives"),
        ([1, 2, 3, 4], "4 weights for 3 templates with all alternatives"),
        ([], "at least one entry"),
        (None, "at least one entry"),
        ({"a": 1}, "at least one entry"),
        (["1", 2, 3], "the weight '1' is no number above 0"),
        ([1, 0, 3], "the weight 0 is no number above 0"),
        ([1, 2, -0.5], "the weight -0.5 is no number above 0"),
        ([1, True, 3], "the weight True is no number above 0"),
        ([1, 2, float("nan")], "the weight nan is no number above 0"),
        ([1, 2, float("inf")], "the weight inf is no number above 0"),
        ([1, 10**400, 3], "is no number above 0"),
    ],
)
def test_weights_that_are_none_are_named(weights: Any, expected: str) -> None:
    message = _refused(_shared("a [good|bad] {classname}.", "the {classname}.", weights=weights))
    assert expected in message
    assert "prompts.sets.s.weights" in message


def test_every_faulty_weight_is_in_one_report_and_none_is_counted_where_a_template_is_faulty() -> None:
    message = _refused(_shared("a {classname}.", "the {classname}.", weights=[0, "x"]))
    assert "weights[0]: the weight 0" in message
    assert "weights[1]: the weight 'x'" in message
    message = _refused(_shared("a [good|bad {classname}.", "the {classname}.", weights=[1, 2, 3]))
    assert "templates[0]" in message
    assert "weights" not in message


def test_a_set_whose_classes_have_their_own_sentences_has_no_weights() -> None:
    values = {**_per_class({"cat": ["a cat"], "dog": ["a dog"]}), "weights": [1]}
    assert "weights are for templates that all classes share" in _refused(values)


@pytest.mark.parametrize(
    "names", [["hot_dog", "hot dog"], ["hot  dog", "hot dog"], ["hot dog ", "hot dog"], ["a\u200bb", "ab"]]
)
def test_classes_that_differ_in_nothing_that_is_read_are_named(names: list[str]) -> None:
    message = _refused(_shared("a {classname}.", "the {classname}."), names)
    assert f"two classes read alike: {names[0]!r} and {names[1]!r}" in message
    assert "faults" not in message  # said once, not for every template
    assert len(_expand(_shared("a {classname}."), ["hot-dog", "hot dog"]).sentences) == 2


def test_classes_of_which_a_set_says_the_same_are_named_wherever_it_says_so() -> None:
    message = _refused(_per_class({"cat": ["a pet", "mine"], "dog": ["mine", "a  pet"]}))
    assert "the classes 'cat' and 'dog' have the same sentences, here and in params.yaml" in message
    message = _refused(_shared("a {classname}.", class_names={"cat": ["dog"]}, dataset="cifar10"))
    assert "two classes read alike: 'cat' and 'dog'" in message


def test_sentences_are_kept_as_written_not_as_compared() -> None:
    decomposed = "cafe\u0301"
    assert _expand(_shared(f"{decomposed}  {{classname}}"), ["cat"]).sentences == [f"{decomposed}  cat"]


def test_a_set_for_another_dataset_is_not_judged_by_the_classes_of_this_one() -> None:
    assert (
        expand_set("s", _per_class({"zero": ["x"]}, "digits"), class_names=CIFAR, dataset="cifar10") is None
    )
    shared = _shared("{classname}", class_names={"zero": ["nought"]}, dataset="digits")
    assert expand_set("s", shared, class_names=CIFAR, dataset="cifar10") is None


def test_the_scenes_say_one_thing_about_each_class() -> None:
    scenes = _shipped()["scenes"]
    assert scenes.class_index == list(range(10))
    assert scenes.sentences == [
        "an airplane is flying.",
        "a car driving on the road.",
        "a photo of a bird.",
        "a photo of a cat.",
        "a photo of a deer.",
        "a photo of a dog.",
        "a photo of a frog.",
        "a horse in a field.",
        "a ship sailing on the sea.",
        "a truck on the highway.",
    ]


def test_cifar18_is_the_list_that_openai_published() -> None:
    published = {
        start + "{}."
        for article in ("a", "the")
        for start in (
            f"a photo of {article} ",
            f"a blurry photo of {article} ",
            f"a black and white photo of {article} ",
            f"a low contrast photo of {article} ",
            f"a high contrast photo of {article} ",
            f"a bad photo of {article} ",
            f"a good photo of {article} ",
            f"a photo of {article} small ",
            f"a photo of {article} big ",
        )
    }
    assert len(published) == 18
    found = _shipped()["cifar18"]
    for label, name in enumerate(CIFAR):
        own = [s for c, s in zip(found.class_index, found.sentences, strict=True) if c == label]
        assert len(own) == 18
        assert set(own) == {template.replace("{}", name) for template in published}


def test_a_template_that_names_the_class_in_some_readings_only_is_refused() -> None:
    assert "does not name the class" in _refused(_shared("a photo[ of a {classname}|]."))


def test_a_text_may_be_as_long_as_the_limit_and_no_longer() -> None:
    longest = "{classname}".ljust(MAX_LENGTH, "x")
    check_text(longest, "here")
    with pytest.raises(ConfigError, match="longer than 5,000 characters"):
        check_text(longest + "x", "here")


def test_half_a_character_is_refused_by_itself() -> None:
    with pytest.raises(ConfigError, match="control character"):
        check_text("a \ud800 {classname}", "here")


def test_a_set_on_disk_that_lacks_something_is_bad_data() -> None:
    whole: dict[str, Any] = {
        field: [] for field in ("class_index", "sentences", "template_index", "templates", "origins")
    }
    assert PromptSet.from_json({"name": "photo", **whole, "class_names": []}).name == "photo"
    for field in whole:
        rest = {key: value for key, value in whole.items() if key != field}
        with pytest.raises(DataError, match=f"not a prompt set: '{field}' is missing"):
            PromptSet.from_json({"name": "photo", **rest})
