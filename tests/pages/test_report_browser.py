"""The page of the default pipeline in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clipcifar.render.pictures import Pictures
from clipcifar.report import page
from tests.support import browser as browsing, finished_run
from tests.support.once import made_once

pytestmark = browsing.needed
TEMPLATES = ["a photo of a {classname} " + "that goes on and on " * 8, "unbroken" * 20 + " {classname}"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "report", _write) / "index.html"


def _write(folder: Path) -> None:
    finished_run.write(folder, class_names=browsing.LONG, templates=TEMPLATES)
    found = finished_run.read(folder)
    html = page.render(found, Pictures(found.dataset.test, folder), split="10 % val, seed 0")
    (folder / "index.html").write_text(html, encoding="utf-8")


@pytest.fixture(params=browsing.VIEWS, ids=str)
def shown(request: pytest.FixtureRequest, browser: Any, path: Path) -> Iterator[Any]:
    with browsing.shown(browser, path, *request.param) as opened:
        yield opened


def test_it_opens_without_a_complaint_or_a_request(shown: Any, path: Path) -> None:
    browsing.is_quiet(shown, path)


def test_every_picture_is_decoded(shown: Any) -> None:
    assert browsing.pictures(shown) > 20


def test_nothing_is_wider_than_the_window(shown: Any) -> None:
    browsing.fits(shown)


@pytest.mark.parametrize("width", [1240, 1440])
def test_on_a_desktop_the_methods_are_seen_whole(browser: Any, path: Path, width: int) -> None:
    with browsing.shown(browser, path, width, "light") as shown:
        table = shown.get_by_role("region", name="Table: Methods", exact=True)
        assert table.evaluate("region => region.scrollWidth <= region.clientWidth")


def test_the_theme_is_the_readers(shown: Any) -> None:
    browsing.wears_the_readers_theme(shown)


@pytest.mark.parametrize("view", browsing.VIEWS, ids=str)
def test_axe_finds_nothing_to_mend(browser: Any, path: Path, view: tuple[int, str]) -> None:
    with browsing.shown(browser, path, *view, bypass_csp=True) as shown:  # axe is a script
        assert browsing.violations(shown) == []


def test_the_keyboard_reaches_the_contents_and_opens_what_is_folded(shown: Any) -> None:
    shown.keyboard.press("Tab")
    assert shown.evaluate("document.activeElement.getAttribute('href')") == "few_shot.html"
    shown.get_by_role("link", name="Verdicts").focus()
    shown.keyboard.press("Enter")
    browsing.wait_until(shown, "location.hash == '#verdicts'")
    shown.locator("summary").last.focus()
    before = shown.evaluate("document.activeElement.parentElement.open")
    shown.keyboard.press("Enter")
    assert shown.evaluate("document.activeElement.parentElement.open") != before


def test_markup_in_a_class_name_is_shown_as_it_was_typed(shown: Any) -> None:
    assert shown.get_by_text("<b>eel</b>", exact=True).count() > 0
    assert shown.locator("td b, th b, h3 b, strong b").count() == 0
