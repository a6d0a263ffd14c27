"""Prompt sets: from templates in params.yaml to one list of sentences per class.

Only one placeholder exists, `{classname}`, and it is replaced, never formatted. Square brackets
hold alternatives: `a [good|bad] photo of [a|the] {classname}.` is four templates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from clipcifar.core.errors import ConfigError
from clipcifar.core.params import DATASETS, check_keys, suggestion
from clipcifar.prompts.params import PromptsParams
from clipcifar.prompts.templates import (
    MAX_CHARACTERS,
    MAX_LENGTH,
    MAX_SENTENCES,
    PLACEHOLDER,
    check_text,
    expand,
    normal_form,
    num_shared,
    spoken,
)
from clipcifar.store.prompt_set import OWN_SENTENCES, PromptSet

_MARKS = ("<start_of_text>", "<end_of_text>")  # to CLIP's tokenizer; what follows an end is lost
SET_NAME = re.compile(r"[A-Za-z0-9_-]+")  # a dot would be read as nesting by DVC


class _Sentence(NamedTuple):
    """A sentence on its way into a set; `origin` is where params.yaml has it."""

    origin: str
    label: int
    template: str
    text: str


def _require_list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ConfigError("expected a list with at least one entry", where=where, fix='write ["…", "…"]')
    return value


def _check_class(name: str, class_names: list[str], where: str) -> None:
    if name not in class_names:
        raise ConfigError(f"unknown class {name!r}", where=where, fix=suggestion(name, class_names))


def _shared_sentences(values: Mapping[str, Any], class_names: list[str], where: str) -> list[_Sentence]:
    """The sentences of a set whose templates serve every class."""
    names = {name: [spoken(name)] for name in class_names}
    other_names = values.get("class_names", {})
    if not isinstance(other_names, dict):
        raise ConfigError("expected a mapping of class to names", where=f"{where}.class_names")
    for name, own in other_names.items():
        _check_class(name, class_names, f"{where}.class_names")
        own_where = f"{where}.class_names.{name}"
        names[name] = [
            check_text(item, f"{own_where}[{i}]") for i, item in enumerate(_require_list(own, own_where))
        ]
    sentences: list[_Sentence] = []
    for i, template in enumerate(_require_list(values["templates"], f"{where}.templates")):
        origin = f"{where}.templates[{i}]"
        readings = expand(template, origin)
        if any(PLACEHOLDER not in reading for reading in readings):
            raise ConfigError(
                f"the template {template!r} does not name the class",
                where=origin,
                fix=f"write {PLACEHOLDER} where the class name belongs, outside optional alternatives",
            )
        for c, class_name in enumerate(class_names):
            _add(sentences, origin, c, readings, names[class_name], templates=readings)
    return sentences


def _add(
    sentences: list[_Sentence],
    origin: str,
    label: int,
    readings: list[str],
    names: list[str],
    *,
    templates: list[str],
) -> None:
    """Add every reading, made from the template beside it, with every name, within bounds."""
    name_length = max(len(name) for name in names)
    count = len(sentences) + len(readings) * len(names)
    longest = max(len(reading) + reading.count(PLACEHOLDER) * name_length for reading in readings)
    if count > MAX_SENTENCES or count * longest > MAX_CHARACTERS:
        most = f"{MAX_SENTENCES:,} sentences, or {MAX_CHARACTERS:,} characters"
        raise ConfigError(f"more than {most}", where=origin, fix="use fewer alternatives")
    if longest > MAX_LENGTH:
        raise ConfigError(f"a sentence of over {MAX_LENGTH:,} characters", where=origin, fix="shorten it")
    sentences += [
        _Sentence(origin, label, template, reading.replace(PLACEHOLDER, name))
        for reading, template in zip(readings, templates, strict=True)
        for name in names
    ]


def _per_class_sentences(values: Mapping[str, Any], class_names: list[str], where: str) -> list[_Sentence]:
    """The sentences of a set in which each class has its own."""
    own_sentences = values["sentences"]
    if not isinstance(own_sentences, dict):
        raise ConfigError("expected a mapping of class to sentences", where=f"{where}.sentences")
    for name in own_sentences:
        _check_class(name, class_names, f"{where}.sentences")
    sentences: list[_Sentence] = []
    for c, class_name in enumerate(class_names):
        if class_name not in own_sentences:
            raise ConfigError(
                f"the class {class_name!r} has no sentences",
                where=f"{where}.sentences",
                fix=f"add {class_name}:",
            )
        own = f"{where}.sentences.{class_name}"
        for i, sentence in enumerate(_require_list(own_sentences[class_name], own)):
            readings = expand(sentence, f"{own}[{i}]")
            templates = [OWN_SENTENCES] * len(readings)
            _add(sentences, f"{own}[{i}]", c, readings, [spoken(class_name)], templates=templates)
    return sentences


_KEYS = {"shared": ("templates", ("class_names", "dataset")), "per_class": ("sentences", ())}


def expand_set(name: str, values: object, *, class_names: list[str], dataset: str) -> PromptSet | None:
    """Validate one set of params.yaml and expand it, sentences grouped by class.

    Args:
        name: the set's name.
        values: its mapping as read from params.yaml.
        class_names: the dataset's C class names in label order.
        dataset: the dataset's registry name.

    Returns:
        The expanded set, or None when the set names another dataset.

    Raises:
        ConfigError: naming the set and the index of the offending entry.
    """
    where = f"params.yaml: prompts.sets.{name}"
    if not SET_NAME.fullmatch(name):
        raise ConfigError(
            f"the set name {name!r} may hold only letters, digits, _ and -", where=where, fix="rename it"
        )
    if not isinstance(values, dict):
        raise ConfigError("a prompt set is a mapping", where=where, fix="give it template_mode and sentences")
    mode = values.get("template_mode")
    if not isinstance(mode, str) or mode not in _KEYS:
        raise ConfigError(f"template_mode is {mode!r}", where=where, fix="use shared or per_class")
    key, optional = _KEYS[mode]
    own_names = mode == "per_class" or "class_names" in values
    if own_names and "dataset" not in values:
        raise ConfigError(
            "the key 'dataset' is missing: a set that speaks of classes is for one dataset",
            where=where,
            fix=f"add dataset: {dataset}",
        )
    required = ["template_mode", key] + (["dataset"] if own_names else [])
    check_keys(values, required, where=where, optional=optional)
    if "dataset" in values and values["dataset"] not in DATASETS:
        raise ConfigError(
            f"unknown dataset {values['dataset']!r}",
            where=f"{where}.dataset",
            fix=suggestion(str(values["dataset"]), DATASETS),
        )
    if values.get("dataset", dataset) != dataset:
        return None
    if mode == "shared":
        sentences = _shared_sentences(values, class_names, where)
    else:
        sentences = _per_class_sentences(values, class_names, where)
    _check_sentences(sentences)
    sentences.sort(key=lambda item: item.label)  # stable: template order within a class
    templates = list(dict.fromkeys(item.template for item in sentences))
    index = {template: i for i, template in enumerate(templates)}
    return PromptSet(
        name,
        class_index=[item.label for item in sentences],
        sentences=[item.text for item in sentences],
        template_index=[index[item.template] for item in sentences],
        templates=templates,
        origins=[item.origin.removeprefix(f"{where}.") for item in sentences],
    )


def _check_sentences(sentences: list[_Sentence]) -> None:
    """Raise ConfigError when a sentence is blank, occurs twice or holds one of the tokenizer's marks."""
    seen: dict[str, str] = {}
    for origin, _, _, sentence in sentences:
        if not sentence.strip():
            raise ConfigError("one of the alternatives is empty", where=origin, fix="write a sentence")
        if any(mark in sentence.lower() for mark in _MARKS):
            raise ConfigError(f"{sentence!r} holds a mark of the tokenizer", where=origin, fix="remove it")
        normal = normal_form(sentence)
        if normal in seen:
            first = "twice here" if seen[normal] == origin else f"here and in {seen[normal]}"
            raise ConfigError(f"the sentence {sentence!r} occurs {first}", where=origin, fix="keep one")
        seen[normal] = origin


class Expanded(NamedTuple):
    """All sets of the `prompts` section: expanded, skipped for their dataset, or too large, by size."""

    sets: list[PromptSet]
    skipped: list[str]
    left_out: dict[str, int]


def expand_sets(prompts: PromptsParams, *, class_names: list[str], dataset: str) -> Expanded:
    """Expand all sets of the `prompts` section, the active one whatever its size.

    Raises:
        ConfigError: a set is wrong, or the active one is unknown or names another dataset.
    """
    where = "params.yaml: prompts.active"
    if prompts.active not in prompts.sets:
        raise ConfigError(
            f"there is no prompt set {prompts.active!r}",
            where=where,
            fix=suggestion(prompts.active, prompts.sets),
        )
    expanded, skipped, left_out = list[PromptSet](), list[str](), dict[str, int]()
    for name, values in prompts.sets.items():
        unasked, count = name != prompts.active, num_shared(values, len(class_names))
        if unasked and count > prompts.max_sentences:  # what is wrong with its templates, one class shows
            few = {key: value for key, value in values.items() if key != "class_names"}
            prompt_set = expand_set(name, few, class_names=class_names[:1], dataset=dataset)
        else:
            prompt_set = expand_set(name, values, class_names=class_names, dataset=dataset)
            count = len(prompt_set.sentences) if prompt_set is not None else 0
        if prompt_set is None and unasked:
            skipped.append(name)
        elif prompt_set is None:
            raise ConfigError(
                f"the active set {name!r} was written for the dataset {values['dataset']!r}",
                where=where,
                fix=f"choose another set, or write one for {dataset}",
            )
        elif unasked and count > prompts.max_sentences:
            left_out[name] = count
        else:
            expanded.append(prompt_set)
    return Expanded(expanded, skipped, left_out)
