"""What a reader sees of charts and tables: letters large enough, nothing covered, what scrolls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clipcifar.render.pictures import Pictures
from clipcifar.report import page
from tests.support import browser as browsing, finished_run, study_pages
from tests.support.once import made_once

pytestmark = browsing.needed
CLASSES = (10, 100, 300)
LEAST = 11.0  # CSS pixels, of a letter's height
TEMPLATES = ["a photo of a {classname} " + "that goes on and on " * 8, "unbroken" * 20 + " {classname}"]
PAGES = [*(f"{n}-classes" for n in CLASSES), *study_pages.STUDIES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "many-classes", _write)


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(
        tmp_path_factory, "studies", lambda made: study_pages.write(made, class_names=browsing.LONG)
    )


def _write(folder: Path) -> None:
    for n in CLASSES:
        names = [f"{'long name of a ' * (i % 3)}class {i:03d}" for i in range(n)]
        finished_run.write(folder / str(n), class_names=names, templates=TEMPLATES, n=max(120, 3 * n))
        run = finished_run.read(folder / str(n))
        html = page.render(run, Pictures(run.dataset.test, folder), split="10 % val, seed 0")
        (folder / f"{n}-classes.html").write_text(html, encoding="utf-8")


TURN = (959, 960)  # the widest window of narrow drawings, and the narrowest of wide ones
LOOKS = [(name, width) for name in PAGES for width in browsing.WIDTHS]
LOOKS += [(name, width) for name in ("10-classes", "ensemble", "few_shot") for width in TURN]


@pytest.fixture(scope="module", params=LOOKS, ids=lambda look: "-".join(map(str, look)))
def charts(request: pytest.FixtureRequest, browser: Any, folder: Path, studies: Path) -> list[Any]:
    """The charts of a page at a width, measured."""
    name, width = request.param
    path = (folder if name.endswith("-classes") else studies) / f"{name}.html"
    with browsing.shown(browser, path, width, "light") as shown:
        return browsing.charts(shown)


def test_every_letter_of_a_chart_can_be_read(charts: list[Any]) -> None:
    small = [(chart["name"], min(chart["letters"])) for chart in charts if min(chart["letters"]) < LEAST]
    assert small == []
    assert max((max(chart["letters"]) for chart in charts), default=LEAST) < 20


def test_a_chart_is_as_wide_as_its_place(charts: list[Any]) -> None:
    assert [
        (chart["name"], chart["width"], chart["room"])
        for chart in charts
        if chart["width"] < min(chart["room"], 520) - 1 or chart["width"] > chart["room"] + 1
    ] == []
    assert all(chart["width"] >= chart["room"] - 1 for chart in charts if chart["kind"] in ("wide", "half"))


def test_no_word_of_a_chart_covers_another_or_a_mark_or_is_cut_off(charts: list[Any]) -> None:
    covered = []
    for chart in charts:
        texts = chart["texts"]
        covered += [
            (chart["name"], a, b)
            for i, (a, box_a) in enumerate(texts)
            for b, box_b in texts[:i]
            if browsing.overlap(box_a, box_b)
        ]
        words = [*chart["legends"], *chart["inside"]]
        covered += [
            (chart["name"], box, mark)
            for box in words
            for mark in chart["marks"]
            if browsing.overlap(box, mark)
        ]
        left, top, right, bottom = chart["outline"]
        covered += [
            (chart["name"], text, "outside")
            for text, (a, b, c, d) in texts
            if a < left - 1 or b < top - 1 or c > right + 1 or d > bottom + 1
        ]
    assert covered == []


def test_boxes_that_meet_are_seen_to() -> None:
    assert browsing.overlap([0, 0, 10, 10], [5, 5, 15, 15])
    assert not browsing.overlap([0, 0, 10, 10], [10, 0, 20, 10])


@pytest.fixture(params=CLASSES)
def many(request: pytest.FixtureRequest, browser: Any, folder: Path) -> Iterator[Any]:
    """The main page of many classes, on a telephone."""
    with browsing.shown(browser, folder / f"{request.param}-classes.html", 390, "light") as shown:
        shown.classes = request.param
        yield shown


def test_a_table_shows_that_it_scrolls_and_when_it_has_come_to_its_end(many: Any) -> None:
    regions = many.locator("section > div > div > .scroll, section > .scroll").all()
    wide = [region for region in regions if region.evaluate("r => r.scrollWidth > r.clientWidth + 4")]
    assert len(wide) >= 3
    for region in wide:
        assert browsing.edges(many, region)[1] > 25
        region.evaluate("r => { r.scrollLeft = r.scrollWidth; }")
        assert browsing.edges(many, region)[1] < 5
    whole = [region for region in regions if region not in wide]
    assert all(browsing.edges(many, region)[1] < 5 for region in whole)


def test_the_name_of_a_row_stays_in_sight_when_its_table_is_scrolled(many: Any) -> None:
    region = many.get_by_role("region", name="Table: Methods", exact=True)
    region.evaluate("r => { r.scrollLeft = r.scrollWidth; }")
    heads = region.locator("tbody th").all()
    left = region.bounding_box()["x"]
    assert all(abs(head.bounding_box()["x"] - left) < 1 for head in heads)


def test_a_class_is_found_by_a_part_of_its_name(many: Any) -> None:
    searches = many.locator("#classes ~ * .search, #classes ~ .search")
    if many.classes == 10:
        assert searches.count() == 0
        return
    field = searches.locator("input").first
    rows = many.get_by_role("region", name="Table: Accuracy within each class").locator("tbody tr")
    assert rows.count() == many.classes
    field.fill("CLASS 04")
    assert rows.locator("visible=true").count() == 10
    assert searches.locator("output").first.inner_text() == f"10 of {many.classes}"
    field.fill("")
    assert rows.locator("visible=true").count() == many.classes
    assert many.said == []


def test_without_its_script_a_page_has_the_whole_table_and_no_field(browser: Any, folder: Path) -> None:
    path = folder / "100-classes.html"
    with browsing.shown(browser, path, 1440, "light", java_script_enabled=False) as shown:
        assert shown.locator(".search input").first.is_hidden()
        assert shown.get_by_role("region", name="Table: Accuracy").locator("tbody tr").count() == 100


def test_the_policy_lets_no_other_script_or_style_in(many: Any) -> None:
    many.evaluate(
        "const script = document.createElement('script'); script.textContent = 'window.ran = 1';"
        "document.body.append(script);"
        "document.body.insertAdjacentHTML('beforeend', '<p id=\"styled\" style=\"color: red\">a</p>');"
    )
    assert many.evaluate("window.ran") is None
    assert many.evaluate("getComputedStyle(document.getElementById('styled')).color") != "rgb(255, 0, 0)"
    assert len(many.said) == 2


def test_a_mark_that_is_pointed_at_is_the_one_that_tells_its_value(browser: Any, folder: Path) -> None:
    with browsing.shown(browser, folder / "10-classes.html", 1440, "light") as shown:
        told = shown.evaluate(
            "[...document.querySelectorAll('svg.wide .hover, svg.small .hover')].map(mark => {"
            "  mark.scrollIntoView({block: 'center'});"
            "  const b = mark.getBoundingClientRect();"
            "  const hit = document.elementFromPoint(b.left + b.width / 2, b.top + b.height / 2);"
            "  const text = mark.querySelector('title').textContent;"
            "  return [text, Boolean(hit && hit.closest('.hover')), b.width];"
            "})"
        )
        seen = [(text, hit) for text, hit, width in told if width > 2]
        assert len(seen) > 100
        assert [text for text, hit in seen if not hit] == []


@pytest.mark.parametrize("view", [(390, "dark"), (1440, "light")], ids=str)
def test_axe_finds_nothing_to_mend_where_classes_are_many(
    browser: Any, folder: Path, view: tuple[int, str]
) -> None:
    with browsing.shown(browser, folder / "100-classes.html", *view, bypass_csp=True) as shown:
        assert browsing.violations(shown) == []


def test_where_classes_are_many_nothing_is_wider_than_the_window(many: Any) -> None:
    browsing.fits(many)


def test_the_head_of_a_long_table_stays_in_sight_and_its_first_cell_at_the_left(many: Any) -> None:
    if many.classes == 10:
        return
    region = many.get_by_role("region", name="Table: Accuracy within each class")
    region.evaluate("r => { r.scrollIntoView(); r.scrollLeft = 120; r.scrollTop = 400; }")
    corner, box = region.locator("thead th").first.bounding_box(), region.bounding_box()
    assert (corner["x"], corner["y"]) == pytest.approx((box["x"], box["y"]), abs=1)
    assert many.evaluate(
        "([x, y]) => document.elementFromPoint(x, y).closest('thead') !== null",
        [corner["x"] + 5, corner["y"] + corner["height"] - 5],
    )
