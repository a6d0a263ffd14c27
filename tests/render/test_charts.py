"""The colours of charts: one for each method, in both themes."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from clipcifar.evaluation.calibration import Bin
from clipcifar.evaluation.names import METHODS
from clipcifar.render import charts, svg
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
    names = [f"series-{i}" for i in range(1, len(svg.SERIES) + 1)]
    assert len(names) >= len(METHODS)
    assert len({colour(theme, name) for name in names}) == len(names)
    for name in names:
        light, dark = sorted((luminance(colour(theme, key)) for key in (name, "surface")), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 3, name  # WCAG 2.1, 1.4.11: what is drawn


def test_bars_of_all_methods_are_in_different_colours_and_named() -> None:
    values = {name: [0.1 * i + 0.2, 0.5] for i, name in enumerate(METHODS.values())}
    drawn = charts.class_bars(["cat", "dog"], values, name="classes")
    used = set(re.findall(r'fill="var\(--(series-\d)\)"', drawn))
    assert used == {f"series-{i}" for i in range(1, len(METHODS) + 1)}
    assert all(name in drawn for name in METHODS.values())


def test_no_name_of_a_method_is_cut_in_the_chart_of_intervals() -> None:
    drawn = charts.intervals(
        dict.fromkeys(METHODS.values(), (0.5, 0.4, 0.6)), name="m", description="", x_label="", zero=False
    )
    assert all(name in drawn for name in METHODS.values())
    assert "…" not in drawn


DRAWN = {
    "intervals": lambda: charts.intervals(
        {"a<b>": (0.5, 0.4, 0.6)}, name="i", description="d", x_label="x", zero=False
    ),
    "ranking_bars": lambda: charts.ranking_bars(
        [{"template": "a<b>", "points": 1.0, "low": 0.5, "high": 2.0}], active="photo", name="r"
    ),
    "class_bars": lambda: charts.class_bars(["a<b>"], {"gda": [0.25]}, name="c"),
    "curves": lambda: charts.curves(
        {"a<b>": charts.Line([1, 2], [0.5, 0.25])}, name="l", description="d", x_label="x", y_label="y"
    ),
    "reliability": lambda: charts.reliability(
        [Bin(0.5, 0.75, 7)], [Bin(0.5, 0.75, 7)], name="q", method="a<b>"
    ),
}


@pytest.mark.parametrize(
    ("chart", "said"),
    [
        ("intervals", ["a&lt;b&gt;: 0.5000 [0.4000, 0.6000]"]),
        ("ranking_bars", ["a&lt;b&gt;: +1.00 [+0.50, +2.00]"]),
        ("class_bars", ["a&lt;b&gt;, gda: 0.250"]),
        ("curves", ["a&lt;b&gt;, 1: 0.5000", "a&lt;b&gt;, 2: 0.2500"]),
        ("reliability", ["as it is, confidence 0.50: 0.75 right, n 7"]),
    ],
)
def test_what_is_pointed_at_says_its_values_as_text(chart: str, said: list[str]) -> None:
    titles = re.findall('<g class="hover"><title>([^<]*)</title>', DRAWN[chart]())
    assert set(said) <= set(titles)


@pytest.mark.parametrize("chart", DRAWN)
def test_a_chart_needs_no_style_of_its_own_so_that_any_policy_lets_it_in(chart: str) -> None:
    drawn = DRAWN[chart]()
    assert not re.search(r"<[^>]*\sstyle[\s=>]|<style", drawn)
    assert not re.search(r"<[^>]*\.\d{3}", drawn)  # nor digits that none can see
    for element in drawn.split("<svg")[1:]:
        ET.fromstring(f"<svg{element}".partition("</svg>")[0] + "</svg>")


def test_a_chart_that_stands_alone_is_drawn_for_two_widths_and_one_of_many_for_one() -> None:
    assert re.findall('<svg class="([a-z]+)"', DRAWN["intervals"]()) == ["wide", "narrow"]
    assert re.findall('<svg class="([a-z]+)"', DRAWN["reliability"]()) == ["small"]
