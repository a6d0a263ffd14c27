"""The page that every study shares, with text that would like to be markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from clipcifar.render import charts, frame, study
from clipcifar.render.cells import Cell
from clipcifar.render.pictures import Card
from clipcifar.render.study import Chart, Gallery, Matrix, Section, Table
from clipcifar.render.svg import BESIDE
from tests.support import synthetic

HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}$x^2$"


def _page(text: str) -> str:
    section = Section(
        "curves",
        f"On {text}",
        paragraphs=[text],
        tables=[Table(text, ["method", text], [[text, "0.5"]], note=text)],
        charts=[Chart(text, Markup("<svg></svg>"), text)],
        matrices=[Matrix(text, [text], ["x", text], [[Cell(5, "25"), Cell(15, text, text)]], text)],
        galleries=[Gallery(text, [Card("data:,", text, text, [text])], small=True)],
    )
    attributes = {**synthetic.ATTRIBUTES, "model": text, "version_torch": "2"}
    return study.render(
        name="few_shot",
        title=text,
        question=text,
        verdicts=[text],
        sections=[section],
        attributes=attributes,
        commands=["dvc repro", text],
    )


class _Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[str]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, [name for name, _ in attrs]))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_markup_in_names_is_text() -> None:
    hostile, benign = _Tags(_page(HOSTILE)), _Tags(_page("benign"))
    assert hostile.tags == benign.tags
    assert "script" not in {tag for tag, _ in hostile.tags}
    # heading, subtitle, nav, question, verdict, section (h2, p, th, th, note, ...): all of it is shown
    assert hostile.text.count(HOSTILE) == benign.text.count("benign") > 15


def test_what_is_given_is_shown_where_it_belongs() -> None:
    html = _page("benign")
    assert '<a href="#curves">On benign</a>' in html
    assert '<td class="shade-15" title="benign">benign</td>' in html
    assert '<strong aria-current="page">Few-shot</strong>' in html
    assert '<a href="index.html" title="made by dvc repro">Main page</a>' in html
    assert '<td class="shade-5">25</td>' in html
    assert '<pre tabindex="0">dvc repro\nbenign</pre>' in html
    assert "synthetic with benign a-tag" in html
    assert "<dd>torch 2</dd>" in html


def test_a_field_that_the_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        frame.render("study.html", heading="x")


def test_a_curve_goes_through_its_points() -> None:
    series = {
        "a": charts.Line([0, 1, 2], [0.0, 0.5, 0.5], [0, 0.4, 0.4], [0.1, 0.6, 0.6]),
        "b<": charts.Line([0, 2], [1, 1]),
    }
    options = {"name": "c", "description": "d", "x_label": "k", "y_label": "accuracy"}
    drawn = charts.curves(
        series, **options, x_ticks={0: "none", 2: "all"}, levels={"zero-shot": 0.25}, sizes=BESIDE
    )
    points = re.search(r'<path d="([^"]*)" clip-path[^>]*stroke="var\(--series-1\)"', drawn)
    assert points is not None
    found = [tuple(map(float, pair.split())) for pair in re.split("[ML]", points[1]) if pair.strip()]
    assert len(found) == 3
    (x0, y0), (x1, y1), (x2, y2) = found
    assert x2 - x1 == pytest.approx(x1 - x0, abs=0.02)
    assert y1 == pytest.approx(y2)
    assert y1 < y0  # upwards is up
    for text in ("none", "all", "zero-shot", "b&lt;"):
        assert f">{text}</text>" in drawn
    assert "zero-shot" not in charts.curves(series, **options)


def test_names_do_not_turn_a_sentence_around() -> None:
    html = _page("gnp\u202eexe called שלום עולם 22 %")
    text = "gnp\\u202eexe called \u2068שלום עולם\u2069 22 %"  # the number stays behind the name
    assert _Tags(html).text.count(text) == _Tags(_page("benign")).text.count("benign")
    assert f'alt="{text}"' in html
    assert "\u202e" not in html


def test_labels_of_charts_are_cut_between_letters_and_take_their_width(
    recwarn: pytest.WarningsRecorder,
) -> None:
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    names = ["卡车" * 10, "cafe\u0301" * 5, family * 10, "a\x1b\u202eb", "automobile" * 2]
    drawn = charts.class_bars(names, {"zero-shot": [0.5] * len(names)}, name="c")
    for label in (
        "卡车" * 4 + "…",
        "cafe\u0301" * 4 + "c…",
        family * 8 + "…",
        "a\\u001b\\u202eb",
        "automobileautomob…",
    ):
        assert f">{label}</text>" in drawn
    description = charts.intervals(
        {"a": (1, 0, 2)}, name="d", description="of a\u202eb", x_label="x", zero=False
    )
    assert 'aria-label="of a\\u202eb"' in description
    assert not recwarn  # of glyphs that matplotlib's own font lacks
