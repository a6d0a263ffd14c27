"""The colours of charts: one for each method, in both themes."""

from __future__ import annotations

import re

import pytest

from clipcifar.evaluation.names import METHODS
from clipcifar.render import charts
from tests.support.import_closure import ROOT

CSS = (ROOT / "clipcifar/render/page.css").read_text()
LIGHT, DARK = CSS.split("@media (prefers-color-scheme: dark)", 1)


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb`, as WCAG 2 defines it."""
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def colour(theme: str, name: str) -> str:
    return re.findall(rf"--{name}: (#[0-9a-f]{{6}});", theme)[0]


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_every_method_has_a_colour_of_its_own_that_stands_out(theme: str) -> None:
    names = [f"series-{i}" for i in range(1, len(charts.SERIES) + 1)]
    assert len(names) >= len(METHODS)
    assert len({colour(theme, name) for name in names}) == len(names)
    for name in names:
        light, dark = sorted((luminance(colour(theme, key)) for key in (name, "surface")), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 3, name  # WCAG 2.1, 1.4.11: what is drawn


def test_bars_of_all_methods_are_in_different_colours_and_named() -> None:
    values = {name: [0.1 * i + 0.2, 0.5] for i, name in enumerate(METHODS.values())}
    drawn = charts.class_bars(["cat", "dog"], values, name="classes")
    used = set(re.findall(r"fill: var\(--(series-\d)\)", drawn))
    assert used == {f"series-{i}" for i in range(1, len(METHODS) + 1)}
    assert all(name in drawn for name in METHODS.values())


def test_no_name_of_a_method_is_cut_in_the_chart_of_intervals() -> None:
    drawn = charts.intervals(
        dict.fromkeys(METHODS.values(), (0.5, 0.4, 0.6)), name="m", description="", x_label="", zero=False
    )
    assert all(name in drawn for name in METHODS.values())
    assert "…" not in drawn
