"""The page in a real browser: headless Chromium, where it is installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clipcifar.report import page
from clipcifar.report.pictures import Pictures
from tests import finished_run

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

WIDTHS, THEMES = (390, 1440), ("light", "dark")
LONG = ["a-class-name-of-many-letters-without-any-space-in-it", "dog", "<b>eel</b>"]
TEMPLATES = ["a photo of a {classname} " + "that goes on and on " * 8, "unbroken" * 20 + " {classname}"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    finished_run.write(folder, class_names=LONG, templates=TEMPLATES)
    found = finished_run.read(folder)
    html = page.render(found, Pictures(found.dataset.test, folder), split="10 % val, seed 0")
    (folder / "index.html").write_text(html, encoding="utf-8")
    return folder / "index.html"


@pytest.fixture(params=[(width, theme) for width in WIDTHS for theme in THEMES], ids=str)
def shown(request: pytest.FixtureRequest, browser: Any, path: Path) -> Iterator[Any]:
    width, theme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    opened = context.new_page()
    opened.said, opened.asked = [], []
    opened.on("console", lambda message: opened.said.append(message.text))
    opened.on("pageerror", lambda error: opened.said.append(str(error)))
    opened.on("request", lambda request: opened.asked.append(request.url))
    opened.goto(path.as_uri())
    yield opened
    context.close()


def test_it_opens_without_a_complaint_or_a_request(shown: Any, path: Path) -> None:
    assert shown.said == []
    assert [url for url in shown.asked if not url.startswith("data:")] == [path.as_uri()]


def test_every_picture_is_decoded(shown: Any) -> None:
    shown.evaluate("document.querySelectorAll('details').forEach(item => item.open = true)")
    shown.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
    broken = "Promise.all([...document.images].map(image => image.decode().then(() => 0, () => 1)))"
    found = shown.evaluate(broken)
    assert len(found) > 20
    assert sum(found) == 0


def test_nothing_is_wider_than_the_window(shown: Any) -> None:
    shown.evaluate("document.querySelectorAll('details').forEach(item => item.open = true)")
    assert shown.evaluate("document.documentElement.scrollWidth") <= shown.viewport_size["width"]


def test_the_theme_is_the_readers(shown: Any) -> None:
    background = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = shown.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (sum(map(int, background.strip("rgb()").split(","))) < 200) == dark
    ink = "getComputedStyle(document.querySelector('svg text')).fill"
    assert (sum(map(int, shown.evaluate(ink).strip("rgb()").split(","))) > 400) == dark


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_to_mend(browser: Any, path: Path, width: int, theme: str) -> None:
    """Contrast, names, landmarks, tables, and what a keyboard must reach."""
    from axe_playwright_python.sync_playwright import Axe

    viewport = {"width": width, "height": 900}
    context = browser.new_context(viewport=viewport, color_scheme=theme, bypass_csp=True)  # axe is a script
    opened = context.new_page()
    opened.goto(path.as_uri())
    opened.evaluate("document.querySelectorAll('details').forEach(item => item.open = true)")
    response = Axe().run(opened).response
    context.close()
    assert "color-contrast" in {item["id"] for item in response["passes"]}
    found = [(item["id"], [node["html"][:120] for node in item["nodes"]]) for item in response["violations"]]
    assert found == []


def test_the_keyboard_reaches_the_contents_and_opens_what_is_folded(shown: Any) -> None:
    shown.keyboard.press("Tab")
    assert shown.evaluate("document.activeElement.getAttribute('href')") == "#verdicts"
    shown.locator("summary").last.focus()
    before = shown.evaluate("document.activeElement.parentElement.open")
    shown.keyboard.press("Enter")
    assert shown.evaluate("document.activeElement.parentElement.open") != before


def test_markup_in_a_class_name_is_shown_as_it_was_typed(shown: Any) -> None:
    assert shown.get_by_text("<b>eel</b>", exact=True).count() > 0
    assert shown.locator("td b, th b, h3 b, strong b").count() == 0
