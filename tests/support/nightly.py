"""Repetitions: a few by day, all of them under the mark `nightly`."""

from __future__ import annotations

import pytest


def repeated(name: str, *, by_day: int, nightly: int) -> pytest.MarkDecorator:
    """The test twice, with a small number for its argument `name` and, by night, with a large one."""
    return pytest.mark.parametrize(name, [by_day, pytest.param(nightly, marks=pytest.mark.nightly)])
