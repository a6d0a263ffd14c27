"""Differences and p values as a person reads them, the same in sentences, tables and charts."""

from __future__ import annotations

from typing import Protocol


class Difference(Protocol):
    """A difference of two accuracies as a share, with its 95 % interval."""

    @property
    def difference(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def points(share: float, digits: int = 1) -> str:
    """A difference in points: "+1.2"."""
    return f"{100 * share:+.{digits}f}"


def with_interval(delta: Difference, digits: int = 1, *, unit: str = "") -> str:
    """The same with its interval: "+1.2 [+0.3, +2.1]"; `unit` (" points") follows the number."""
    low, high = points(delta.low, digits), points(delta.high, digits)
    return f"{points(delta.difference, digits)}{unit} [{low}, {high}]"


def interval(delta: Difference, digits: int = 2) -> str:
    """The interval alone, for a column of its own: "+0.30 to +2.10"."""
    return f"{points(delta.low, digits)} to {points(delta.high, digits)}"


def p_text(value: float) -> str:
    """A p value in a column of them; never nought."""
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def p_said(value: float) -> str:
    """The same in a sentence: "p < 0.0001", "p = 0.0123"."""
    return f"p {p_text(value)}" if value < 1e-4 else f"p = {p_text(value)}"
