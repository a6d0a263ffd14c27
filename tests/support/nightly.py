"""Repetitions: a few by day, all of them with those under the mark `nightly`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest


def repeated(name: str, *, by_day: object, nightly: object) -> pytest.MarkDecorator:
    """The test twice, with a small case for its argument `name` and, by night, with a large one."""
    return pytest.mark.parametrize(name, [by_day, pytest.param(nightly, marks=pytest.mark.nightly)])


def first(count: int, cases: Sequence[Any]) -> list[Any]:
    """Cases of which the first `count` stay by day; tuples stand for several arguments."""
    return [
        case
        if number < count
        else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.nightly)
        for number, case in enumerate(cases)
    ]
