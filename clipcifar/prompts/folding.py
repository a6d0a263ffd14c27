"""Many templates as few: what they have in common once, and what they differ in as `[a|b]` alternatives."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from clipcifar.prompts.templates import MAX_LENGTH, PLACEHOLDER, expand_alternatives

_TOKEN = re.compile(rf"\[[^\]]*\]|{re.escape(PLACEHOLDER)}|\s+|\w+|.", re.DOTALL)
_LONGEST = 120  # characters of a template that is folded; the frames of one grow with their square
_LINE = 8  # characters that a line of YAML takes besides its text


class _Frame(NamedTuple):
    """What some templates begin and end with alike."""

    start: str
    end: str


def fold(templates: Sequence[str]) -> list[str]:
    """Fewer templates with brackets that expand to the same readings, each once, perhaps in another order.

    Round by round alternatives are bracketed wherever they occur, those of most places first: [a|the] in
    hundreds of them, before what a few lines have in common.

    Args:
        templates: without brackets, as `expand_alternatives` gives them; where one has any, or folded they
            would not say the same, they are returned as they are.
    """
    if any(character in template for template in templates for character in "[]|"):
        return list(templates)
    lines = list(templates)
    while merged := _round(lines):
        lines = merged
    readings = [reading for line in lines for reading in expand_alternatives(line)]
    return lines if sorted(readings) == sorted(templates) else list(templates)


def _round(lines: list[str]) -> list[str]:
    """Lines after one round, empty where nothing is to be saved any more."""
    places: dict[tuple[str, ...], list[_Frame]] = {}
    for frame, pieces in _frames(lines).items():
        if len(pieces) > 1:
            places.setdefault(tuple(pieces), []).append(frame)
    offers = sorted(places.items(), key=lambda item: (-len(item[1]), -_saved(*item)))
    merged: dict[str, str] = {}  # the line that takes the place of each
    for middles, frames in offers:
        for frame in frames:
            members = [frame.start + middle + frame.end for middle in middles]
            if _saved(middles, [frame]) > 0 and not any(member in merged for member in members):
                shorter = f"{frame.start}[{'|'.join(middles)}]{frame.end}"
                if len(shorter) <= MAX_LENGTH:
                    merged |= dict.fromkeys(members, shorter)
    return list(dict.fromkeys(merged.get(line, line) for line in lines)) if merged else []


def _frames(lines: Sequence[str]) -> Mapping[_Frame, list[str]]:
    """By frame what stands in it, one piece of each line; never a bracket, which cannot be nested."""
    middles: dict[_Frame, list[str]] = {}
    for line in lines:
        if "[" not in line and len(line) > _LONGEST:
            continue
        ends = [0, *(match.end() for match in _TOKEN.finditer(line))]
        for i, start in enumerate(ends):
            for end in ends[i:]:
                middle = line[start:end]
                if "[" in middle or PLACEHOLDER in middle:
                    break
                middles.setdefault(_Frame(line[:start], line[end:]), []).append(middle)
    return middles


def _saved(middles: tuple[str, ...], frames: Sequence[_Frame]) -> int:
    """Characters that are saved by bracketing the same alternatives in all these frames."""
    return sum((len(middles) - 1) * (len(frame.start + frame.end) + _LINE - 1) - 2 for frame in frames)
