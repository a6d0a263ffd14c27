"""What two runs say, compared save for the last digits."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import pytest


def close(value: Any, expected: Any, *, besides: Set[str] = frozenset()) -> bool:
    """Whether two JSON values are equal, save the last digits of numbers and what stands under some keys."""
    if isinstance(expected, dict):
        return list(value) == list(expected) and all(
            close(value[key], expected[key], besides=besides) for key in expected.keys() - besides
        )
    if isinstance(expected, list):
        return len(value) == len(expected) and all(
            close(a, b, besides=besides) for a, b in zip(value, expected, strict=True)
        )
    return bool(
        value == pytest.approx(expected, abs=2e-4) if isinstance(expected, float) else value == expected
    )
