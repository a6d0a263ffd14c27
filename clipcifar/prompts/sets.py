"""Prompt sets: from templates in params.yaml to one list of sentences per class.

Only one placeholder exists, `{classname}`, and it is replaced, never formatted. Square brackets
hold alternatives: `a [good|bad] photo of [a|the] {classname}.` is four templates.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clipcifar.core import class_files
from clipcifar.core.counts import count_of
from clipcifar.core.errors import ConfigError
from clipcifar.core.faults import Faults
from clipcifar.core.params import DATASETS, NAMED, check_keys, suggestion
from clipcifar.prompts.entries import Entries, Sentence, holds_mark, marked
from clipcifar.prompts.params import PromptsParams
from clipcifar.prompts.templates import normal_form, num_shared
from clipcifar.store.prompt_set import PromptSet, words_of_left_out

SET_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")  # part of a file's name; DVC would read a dot as nesting
_SAID = {"shared": ("templates",), "per_class": ("sentences", "sentences_file")}
_NAMES = ("class_names", "class_names_file")


def expand_set(
    name: str,
    values: object,
    *,
    class_names: list[str],
    dataset: str,
    folder: Path = class_files.FOLDER,
) -> PromptSet | None:
    """Validate one set of params.yaml and expand it, sentences grouped by class.

    What a class says twice, it says once; what several classes say, each of them says.

    Args:
        name: the set's name.
        values: its mapping as read from params.yaml.
        class_names: the dataset's C class names in label order.
        dataset: the dataset's registry name.
        folder: that the files which a set names must lie in.

    Returns:
        The expanded set, or None when the set names another dataset.

    Raises:
        ConfigError: naming the set and the index of every offending entry.
    """
    faults, expanded = Faults(), None
    with faults.gathered():
        expanded = _expanded(
            name, values, class_names=class_names, dataset=dataset, folder=folder, faults=faults
        )
    faults.raise_all(f"the prompt set {name}")
    return expanded


def _of_dataset(sets: Mapping[str, Any], dataset: str) -> str:
    """Those to choose another one from, in parentheses; nothing where there is none."""
    names = [
        name
        for name, values in sets.items()
        if isinstance(values, dict) and values.get("dataset", dataset) == dataset
    ]
    return f" ({', '.join(names[:NAMED])})" if names else ""


def _expanded(
    name: str, values: object, *, class_names: list[str], dataset: str, folder: Path, faults: Faults
) -> PromptSet | None:
    """As `expand_set`; what is wrong with single entries is gathered in `faults`."""
    where = f"params.yaml: prompts.sets.{name}"
    if not SET_NAME.fullmatch(name):
        raise ConfigError(
            f"the set name {name!r} may hold only ASCII letters, digits, _ and -, 100 of them",
            where=where,
            fix="rename it",
        )
    if not isinstance(values, dict):
        raise ConfigError("a prompt set is a mapping", where=where, fix="give it template_mode and sentences")
    mode = _checked_mode(values, where, dataset)
    if values.get("dataset", dataset) != dataset:
        return None
    entries = Entries(class_names, where=where, faults=faults, folder=folder)
    said = entries.shared(values) if mode == "shared" else entries.per_class(values)
    sentences = _said_once(said, faults)
    sentences.sort(key=lambda item: item.label)  # stable: template order within a class
    if mode == "per_class":
        _check_distinct(sentences, class_names, faults)
    templates = list(dict.fromkeys(item.template for item in sentences))
    index = {template: i for i, template in enumerate(templates)}
    return PromptSet(
        name,
        class_index=[item.label for item in sentences],
        sentences=[item.text for item in sentences],
        template_index=[index[item.template] for item in sentences],
        templates=templates,
        origins=[item.origin.removeprefix(f"{where}.") for item in sentences],
        num_repeated=len(said) - len(sentences),
        weights=[item.weight for item in sentences] if "weights" in values else None,
    )


def _checked_mode(values: Mapping[str, Any], where: str, dataset: str) -> str:
    """The template_mode of a set; ConfigError unless its keys are those of this mode."""
    mode = values.get("template_mode")
    if not isinstance(mode, str) or mode not in _SAID:
        raise ConfigError(f"template_mode is {mode!r}", where=where, fix="use shared or per_class")
    for pair in (_SAID["per_class"], _NAMES):
        if set(pair) <= values.keys():
            raise ConfigError(f"both {pair[0]} and {pair[1]} are given", where=where, fix="keep one of them")
    if mode == "per_class" and "weights" in values:
        what, fix = "weights are for templates that all classes share", "remove them, or use shared"
        raise ConfigError(what, where=f"{where}.weights", fix=fix)
    speaks_of_classes = mode == "per_class" or any(key in values for key in _NAMES)
    if speaks_of_classes and "dataset" not in values:
        raise ConfigError(
            "the key 'dataset' is missing: a set that speaks of classes is for one dataset",
            where=where,
            fix=f"add dataset: {dataset}",
        )
    said = next((key for key in _SAID[mode] if key in values), _SAID[mode][0])
    optional = (*_NAMES, "dataset", "weights") if mode == "shared" else ("dataset",)
    check_keys(values, ["template_mode", said], where=where, optional=optional)
    if "dataset" in values and values["dataset"] not in DATASETS:
        raise ConfigError(
            f"unknown dataset {values['dataset']!r}",
            where=f"{where}.dataset",
            fix=suggestion(str(values["dataset"]), DATASETS),
        )
    return mode


def _said_once(sentences: Sequence[Sentence], faults: Faults) -> list[Sentence]:
    """The sentences, each once for its class, with the sum of its weights; what is none is gathered."""
    seen: dict[tuple[int, str], Sentence] = {}
    for sentence in sentences:
        if not sentence.text.strip():
            what = "one of the alternatives is empty"
            faults.add(ConfigError(what, where=sentence.origin, fix="write a sentence"))
        elif holds_mark(sentence.text):
            faults.add(marked(sentence.text, sentence.origin))
        else:
            key = sentence.label, normal_form(sentence.text)
            before = seen.get(key)
            seen[key] = before._replace(weight=before.weight + sentence.weight) if before else sentence
    return list(seen.values())


def _check_distinct(sentences: Sequence[Sentence], class_names: list[str], faults: Faults) -> None:
    """Gather classes of which a set says the same, so that no image could be told apart by it."""
    said: defaultdict[int, set[str]] = defaultdict(set)
    first: dict[int, str] = {}  # where the first sentence of each class is from
    for sentence in sentences:
        said[sentence.label].add(class_files.reading(sentence.text))
        first.setdefault(sentence.label, sentence.origin)
    holders: dict[frozenset[str], int] = {}
    for label, texts in said.items():
        other = holders.setdefault(frozenset(texts), label)
        if other != label:
            pair = f"{class_names[other]!r} and {class_names[label]!r}"
            what = f"the classes {pair} have the same sentences, here and in {first[other]}"
            faults.add(ConfigError(what, where=first[label], fix="say something else of one of them"))


def notes(prompt_set: PromptSet, class_names: list[str]) -> list[str]:
    """What a person should know of an expanded set: what was left out, and what several classes say."""
    said = []
    if prompt_set.num_repeated:
        weights = ", their weights added to those" if prompt_set.weights else ""
        repeated = count_of(prompt_set.num_repeated, "sentence")
        said.append(f"{repeated} left out, which its class says already{weights}")
    holders: defaultdict[str, dict[int, None]] = defaultdict(dict)
    for label, text in zip(prompt_set.class_index, prompt_set.sentences, strict=True):
        holders[normal_form(text)][label] = None
    shared = {text: labels for text, labels in holders.items() if len(labels) > 1}
    if shared:
        text, labels = next(iter(shared.items()))
        names = ", ".join(class_names[label] for label in list(labels)[:3])
        are = count_of(len(shared), "sentence is", "sentences are")
        said.append(f"{are} said of several classes, such as {text!r} ({names})")
    return [f"{prompt_set.name}: {note}" for note in said]


class Expanded(NamedTuple):
    """All sets of the `prompts` section: expanded, skipped for their dataset, or too large, by size."""

    sets: list[PromptSet]
    skipped: list[str]
    left_out: dict[str, int]

    def told(self, active: str) -> list[str]:
        """How many sets there are, and which are left out, in a line each."""
        left_out = [words_of_left_out(self.left_out)] if self.left_out else []
        return [f"{count_of(len(self.sets), 'prompt set')}, {active} active", *left_out]


def expand_sets(
    prompts: PromptsParams, *, class_names: list[str], dataset: str, folder: Path = class_files.FOLDER
) -> Expanded:
    """Expand all sets of the `prompts` section, the active one whatever its size.

    Args:
        folder: that the files which sets name must lie in.

    Raises:
        ConfigError: entries of sets are wrong, or the active set is unknown or names another dataset; all in
            one report.
    """
    where = "params.yaml: prompts.active"
    faults = Faults()
    if prompts.active not in prompts.sets:
        fix = suggestion(prompts.active, prompts.sets)
        faults.add(ConfigError(f"there is no prompt set {prompts.active!r}", where=where, fix=fix))
    expanded, skipped, left_out = list[PromptSet](), list[str](), dict[str, int]()
    for name, values in prompts.sets.items():
        unasked, names = name != prompts.active, class_names
        count = num_shared(values, len(class_names))
        if unasked and count > prompts.max_sentences:  # what is wrong with its templates, one class shows
            values = {key: value for key, value in values.items() if key not in _NAMES}
            names = class_names[:1]
        prompt_set = None
        with faults.gathered():
            prompt_set = _expanded(
                name, values, class_names=names, dataset=dataset, folder=folder, faults=faults
            )
            if prompt_set is None and unasked:
                skipped.append(name)
            elif prompt_set is None:
                raise ConfigError(
                    f"the active set {name!r} was written for the dataset {values['dataset']!r}",
                    where=where,
                    fix=f"choose another set{_of_dataset(prompts.sets, dataset)}, or write one for {dataset}",
                )
        if prompt_set is not None:
            count = count if names is not class_names else len(prompt_set.sentences)
            if unasked and count > prompts.max_sentences:
                left_out[name] = count
            else:
                expanded.append(prompt_set)
    faults.raise_all("the prompt sets")
    return Expanded(expanded, skipped, left_out)
