"""The page of every study in a real browser, as that of the default pipeline in test_report_browser.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clipcifar.render import site
from tests.support import browser as browsing, study_pages
from tests.support.once import made_once

pytestmark = browsing.needed
BY_DAY = ((390, "dark"), (1440, "light"))  # every width and every theme
EXAMINED = [(study, *view) for study in study_pages.STUDIES for view in BY_DAY]
LOOKS = [
    pytest.param((study, *view), marks=() if view in BY_DAY else pytest.mark.nightly)
    for study in study_pages.STUDIES
    for view in browsing.VIEWS
]
PICTURES = {"label_errors": 1, "near_duplicates": 2, "corruptions": 2}  # at least; the others have none
NAMES_CLASSES = {"label_errors", "near_duplicates", "finetune"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(
        tmp_path_factory, "studies", lambda made: study_pages.write(made, class_names=browsing.LONG)
    )


@pytest.fixture(scope="module", params=LOOKS, ids=lambda look: "-".join(map(str, look)))
def shown(request: pytest.FixtureRequest, browser: Any, folder: Path) -> Iterator[Any]:
    """A page that was opened once for the tests below; `study` is whose it is."""
    study, width, theme = request.param
    with browsing.shown(browser, folder / f"{study}.html", width, theme) as opened:
        opened.study = study
        yield opened


def test_it_opens_without_a_complaint_or_a_request(shown: Any, folder: Path) -> None:
    browsing.is_quiet(shown, folder / f"{shown.study}.html")


def test_the_keyboard_reaches_every_section_and_scrolls_what_is_wide(shown: Any) -> None:
    """From the top: the links of the contents in their order, then whatever can be scrolled."""
    reached = []
    wanted = shown.locator("nav a, .scroll, pre, .search").count()
    for _ in range(wanted):
        shown.keyboard.press("Tab")
        reached.append(shown.evaluate("document.activeElement.getAttribute('href') || 'region'"))
    links = [link.get_attribute("href") for link in shown.locator("nav a").all()]
    assert reached == links + ["region"] * (wanted - len(links))
    assert links[: len(site.STUDIES)] == [
        f"{name}.html" for name in ("index", *site.STUDIES) if name != shown.study
    ]
    assert all(shown.locator(f"h2{link}").count() == 1 for link in links[len(site.STUDIES) :])
    for region in shown.locator(".scroll").all():
        if region.evaluate("region => region.scrollWidth > region.clientWidth"):
            region.focus()
            shown.keyboard.press("ArrowRight")
            browsing.wait_until(shown, "document.activeElement.scrollLeft > 0")


def test_every_picture_is_decoded(shown: Any) -> None:
    assert browsing.pictures(shown) >= PICTURES.get(shown.study, 0)


def test_nothing_is_wider_than_the_window(shown: Any) -> None:
    browsing.fits(shown)


def test_the_theme_is_the_readers(shown: Any) -> None:
    browsing.wears_the_readers_theme(shown)


def test_a_table_keeps_its_distance_from_what_follows(shown: Any) -> None:
    gaps = shown.evaluate(
        "[...document.querySelectorAll('section > .grid')].filter(grid => grid.previousElementSibling)"
        ".map(grid => grid.getBoundingClientRect().top"
        " - grid.previousElementSibling.getBoundingClientRect().bottom)"
    )
    assert all(gap >= 8 for gap in gaps)


def test_markup_in_a_class_name_is_shown_as_it_was_typed(shown: Any) -> None:
    assert (shown.get_by_text("<b>eel</b>").count() > 0) == (shown.study in NAMES_CLASSES)
    assert shown.locator("td b, th b, h3 b, strong b").count() == 0


@pytest.mark.parametrize("look", EXAMINED, ids=lambda look: "-".join(map(str, look)))
def test_axe_finds_nothing_to_mend(browser: Any, folder: Path, look: tuple[str, int, str]) -> None:
    study, width, theme = look
    path = folder / f"{study}.html"
    with browsing.shown(browser, path, width, theme, bypass_csp=True) as shown:  # axe is a script
        assert browsing.violations(shown) == []
