"""One template: its `[a|b]` alternatives, its placeholder, and what is not a sentence."""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from typing import Any

from clipcifar.core.class_files import holds_control
from clipcifar.core.errors import ConfigError

PLACEHOLDER = "{classname}"
MAX_READINGS = 100_000  # of one template
MAX_SENTENCES = 1_000_000  # of a set: hundreds of templates for thousands of classes
MAX_LENGTH = 5_000  # characters, far beyond any context
MAX_CHARACTERS = 500_000_000  # of a set, to bound the memory
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")


def expand_alternatives(template: str) -> list[str]:
    """All readings of a template's `[a|b]` alternatives, leftmost bracket slowest.

    >>> expand_alternatives("a [good|bad] photo of [a|the] dog")[:2]
    ['a good photo of a dog', 'a good photo of the dog']

    Raises:
        ValueError: a bracket is unbalanced or nested, or there are more than `MAX_READINGS`.
    """
    pieces = _BRACKETS.split(template)  # odd positions are the insides of brackets
    if any(bracket in piece for piece in pieces[::2] for bracket in "[]"):
        raise ValueError("square brackets are unbalanced or nested; they hold alternatives: [a|b]")
    choices = [piece.split("|") if i % 2 else [piece] for i, piece in enumerate(pieces)]
    if math.prod(len(choice) for choice in choices) > MAX_READINGS:
        raise ValueError(f"the alternatives give more than {MAX_READINGS:,} sentences; use fewer")
    return ["".join(reading) for reading in itertools.product(*choices)]


def num_shared(values: Any, num_classes: int) -> int:
    """How many sentences a set's templates make, before they make them; 0 of what has none, or is wrong."""
    templates = values.get("templates") if isinstance(values, dict) else None
    if not isinstance(templates, list) or not all(isinstance(template, str) for template in templates):
        return 0
    brackets = (_BRACKETS.findall(template) for template in templates)
    counts = [math.prod(str(inside).count("|") + 1 for inside in own) for own in brackets]
    return num_classes * sum(counts)


def check_text(text: object, where: str) -> str:
    """Raise ConfigError unless `text` is a template: some text, no control characters, known braces."""
    if not isinstance(text, str):
        raise ConfigError(f"a sentence must be text, found {text!r:.80}", where=where, fix="put it in quotes")
    if len(text) > MAX_LENGTH:
        raise ConfigError(
            f"the text is longer than {MAX_LENGTH:,} characters", where=where, fix="shorten or divide it"
        )
    if not text.strip():
        raise ConfigError("the sentence is empty", where=where, fix="remove it or write one")
    if holds_control(text):
        raise ConfigError("the sentence holds a control character", where=where, fix="remove it")
    if re.search(r"[{}]", text.replace(PLACEHOLDER, "")):
        raise ConfigError(
            f"only {PLACEHOLDER} is substituted, found other braces in {text!r}",
            where=where,
            fix=f"write {PLACEHOLDER} where the class name belongs, and no other braces",
        )
    return text


def expand(template: object, where: str) -> list[str]:
    """Check one template of params.yaml and expand it; ConfigError says where it is wrong."""
    try:
        return expand_alternatives(check_text(template, where))
    except ValueError as error:
        raise ConfigError(str(error), where=where, fix="write [a|b], each [ closed by a ]") from error


def normal_form(sentence: str) -> str:
    """What two sentences have in common when they say the same: NFC, and white space as one blank."""
    return " ".join(unicodedata.normalize("NFC", sentence).split())


def spoken(class_name: str) -> str:
    """A class name as prompts say it: underscores of folder and label names become spaces."""
    return class_name.replace("_", " ")
