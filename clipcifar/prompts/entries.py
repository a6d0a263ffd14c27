"""The entries of one prompt set, from params.yaml or from a file, to sentences by class.

What is wrong with an entry is gathered and the next one read, so that one report names all of it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from clipcifar.core import class_files
from clipcifar.core.counts import count_of
from clipcifar.core.errors import ConfigError
from clipcifar.core.faults import LISTED, Faults
from clipcifar.core.params import suggestion
from clipcifar.prompts.templates import (
    MAX_CHARACTERS,
    MAX_LENGTH,
    MAX_SENTENCES,
    PLACEHOLDER,
    check_text,
    expand,
    normal_form,
    spoken,
)
from clipcifar.store.prompt_set import OWN_SENTENCES

_MARKS = ("<start_of_text>", "<end_of_text>")  # to CLIP's tokenizer; what follows an end is lost


def holds_mark(text: str) -> bool:
    """Whether a text holds what the tokenizer reads as a mark of its own."""
    return "<" in text and any(mark in text.lower() for mark in _MARKS)


def marked(text: str, origin: str) -> ConfigError:
    """What is wrong with such a text."""
    return ConfigError(f"{text!r} holds a mark of the tokenizer", where=origin, fix="remove it")


def _no_list(where: str) -> ConfigError:
    return ConfigError("expected a list with at least one entry", where=where, fix='write ["…", "…"]')


def _require_list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise _no_list(where)
    return value


class Sentence(NamedTuple):
    """A sentence on its way into a set.

    Attributes:
        origin: where params.yaml or a file has it.
        weight: of its template, where the set has weights.
    """

    origin: str
    label: int
    template: str
    text: str
    weight: float = 1.0


class Entries:
    """Reads the entries of one set.

    Args:
        class_names: the dataset's C class names in label order.
        where: the set, for messages.
        faults: gathers what is wrong with entries.
        folder: that files lie in.
    """

    def __init__(self, class_names: list[str], *, where: str, faults: Faults, folder: Path) -> None:
        self._class_names, self._where, self._faults, self._folder = class_names, where, faults, folder
        self._sentences: list[Sentence] = []

    def shared(self, values: Mapping[str, Any]) -> list[Sentence]:
        """The sentences of a set whose templates serve every class.

        Raises:
            ConfigError: there are too many, or they are no templates at all.
        """
        names, stands_at = self._names(values), dict[str, str]()
        weights = self._weights(values) if "weights" in values else None
        left, num_readings, is_whole = iter(weights or ()), 0, True
        for i, template in enumerate(_require_list(values["templates"], f"{self._where}.templates")):
            origin = f"{self._where}.templates[{i}]"
            readings = self._readings(template, origin)
            num_readings, is_whole = num_readings + len(readings), is_whole and bool(readings)
            weighed = [(text, next(left, 1.0)) for text in readings]
            sound = {text: own for text, own in weighed if self._is_sound(text, origin, stands_at)}
            for c, class_name in enumerate(self._class_names):
                own_weights = list(sound.values())
                self._add(
                    origin, c, list(sound), names[class_name], templates=list(sound), weights=own_weights
                )
        if weights is not None and is_whole and len(weights) != num_readings:
            many = f"{count_of(num_readings, 'template')} with all alternatives"
            what, where = f"{count_of(len(weights), 'weight')} for {many}", f"{self._where}.weights"
            self._faults.add(ConfigError(what, where=where, fix="give one for each, in their order"))
        return self._sentences

    def _weights(self, values: Mapping[str, Any]) -> list[float]:
        """A number above 0 for each template; what is none is gathered, and counts as 1."""
        weights = []
        for i, weight in enumerate(_require_list(values["weights"], f"{self._where}.weights")):
            if type(weight) not in (int, float) or not 0 < weight <= sys.float_info.max:
                what, where = f"the weight {weight!r:.80} is no number above 0", f"{self._where}.weights[{i}]"
                self._faults.add(ConfigError(what, where=where, fix="write one, or leave its template out"))
                weight = 1.0
            weights.append(float(weight))
        return weights

    def _readings(self, template: object, origin: str) -> list[str]:
        """The readings of a template or sentence; none where it is not one, which is gathered."""
        with self._faults.gathered():
            return expand(template, origin)
        return []

    def _is_sound(self, template: str, origin: str, stands_at: dict[str, str]) -> bool:
        """Whether a template names the class, and is not there yet; if not, it is gathered.

        Args:
            stands_at: where each template so far is from; this one is put there.
        """
        if PLACEHOLDER not in template:
            what = f"the template {template!r} does not name the class"
            fix = f"write {PLACEHOLDER} where the class name belongs, outside optional alternatives"
            self._faults.add(ConfigError(what, where=origin, fix=fix))
            return False
        if holds_mark(template):
            self._faults.add(marked(template, origin))
            return False
        first = stands_at.get(normal_form(template))
        if first is not None:
            place = "twice here" if first == origin else f"here and in {first}"
            what = f"the template {template!r} occurs {place}"
            self._faults.add(ConfigError(what, where=origin, fix="keep one"))
            return False
        stands_at[normal_form(template)] = origin
        return True

    def _names(self, values: Mapping[str, Any]) -> dict[str, list[str]]:
        """What each class is called, by class: what the set says, else its name as it is spoken."""
        names = {name: [spoken(name)] for name in self._class_names}
        place, content = f"{self._where}.class_names", values.get("class_names", {})
        if "class_names_file" in values:
            place, content = class_files.class_names(
                values["class_names_file"],
                self._class_names,
                where=f"{self._where}.class_names_file",
                folder=self._folder,
            )
        if not isinstance(content, dict):
            raise ConfigError("expected a mapping of class to names", where=place)
        for class_name, (where, own) in self._by_class(content, place).items():
            with self._faults.gathered():
                names[class_name] = [
                    check_text(item, f"{where}[{i}]") for i, item in enumerate(_require_list(own, where))
                ]
        alike: dict[frozenset[str], str] = {}
        for class_name, own in names.items():
            other = alike.setdefault(frozenset(map(class_files.reading, own)), class_name)
            if other != class_name:
                what = f"two classes read alike: {other!r} and {class_name!r}"
                fix = "rename one of the two, or give it another name under class_names"
                self._faults.add(ConfigError(what, where=place if content else self._where, fix=fix))
        return names

    def per_class(self, values: Mapping[str, Any]) -> list[Sentence]:
        """The sentences of a set in which each class has its own.

        Raises:
            ConfigError: there are too many, or they are not by class at all.
        """
        place, content = f"{self._where}.sentences", values.get("sentences")
        if "sentences_file" in values:
            place, content = class_files.read(
                values["sentences_file"], where=f"{self._where}.sentences_file", folder=self._folder
            )
        if not isinstance(content, dict):
            raise ConfigError("expected a mapping of class to sentences", where=place)
        entries = self._by_class(content, place)
        for c, class_name in enumerate(self._class_names):
            if class_name not in entries:
                what = f"the class {class_name!r} has no sentences"
                self._faults.add(ConfigError(what, where=place, fix=f"add {class_name}:"))
                continue
            where, own = entries[class_name]
            if not isinstance(own, list) or not own:
                self._faults.add(_no_list(where))
                continue
            for i, sentence in enumerate(own):
                readings = self._readings(sentence, f"{where}[{i}]")
                templates, weights = [OWN_SENTENCES] * len(readings), [1.0] * len(readings)
                origin, name = f"{where}[{i}]", spoken(class_name)
                self._add(origin, c, readings, [name], templates=templates, weights=weights)
        return self._sentences

    def _by_class(self, content: Mapping[str, Any], place: str) -> dict[str, tuple[str, Any]]:
        """Where each class's entry stands, and what it is; classes that there are not are faults."""
        entries, unknown = class_files.by_class(content, self._class_names, where=place, faults=self._faults)
        for i, key in enumerate(unknown):
            fix = suggestion(key, self._class_names) if i < LISTED else ""  # which takes some milliseconds
            self._faults.add(ConfigError(f"unknown class {key!r}", where=place, fix=fix))
        separator = "." if place.startswith(self._where) else ": "
        return {label: (f"{place}{separator}{label}", own) for label, own in entries.items()}

    def _add(
        self,
        origin: str,
        label: int,
        readings: list[str],
        names: list[str],
        *,
        templates: list[str],
        weights: list[float],
    ) -> None:
        """Add every reading, made from the template beside it, with every name, within bounds."""
        name_length = max(map(len, names))
        count = len(self._sentences) + len(readings) * len(names)
        longest = max((len(text) + text.count(PLACEHOLDER) * name_length for text in readings), default=0)
        if count > MAX_SENTENCES or count * longest > MAX_CHARACTERS:
            most = f"{MAX_SENTENCES:,} sentences, or {MAX_CHARACTERS:,} characters"
            raise ConfigError(f"more than {most}", where=origin, fix="use fewer alternatives")
        if longest > MAX_LENGTH:
            what = f"a sentence of over {MAX_LENGTH:,} characters"
            self._faults.add(ConfigError(what, where=origin, fix="shorten it"))
            return
        self._sentences += [
            Sentence(origin, label, template, reading.replace(PLACEHOLDER, name), weight)
            for reading, template, weight in zip(readings, templates, weights, strict=True)
            for name in names
        ]
