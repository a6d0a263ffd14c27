"""A page in headless Chromium, where it is installed, and what every page must live up to in it."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.waiting import PATIENCE_S, wait_for

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
needed = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

WIDTHS, THEMES = (390, 1440), ("light", "dark")
VIEWS = [(width, theme) for width in WIDTHS for theme in THEMES]
LONG = ["a-class-name-of-many-letters-without-any-space-in-it", "dog", "<b>eel</b>"]


@contextmanager
def launched() -> Iterator[Any]:
    """A browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"], timeout=1000 * PATIENCE_S
        )
        yield opened
        opened.close()


@contextmanager
def shown(browser: Any, path: Path | str, width: int, theme: str, **options: Any) -> Iterator[Any]:
    """A page of the browser that shows a file or an address; `said` and `asked` are messages and requests."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, **options)
    context.set_default_timeout(1000 * PATIENCE_S)
    page = context.new_page()
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(path.as_uri() if isinstance(path, Path) else path)
    yield page
    context.close()


def unfold(page: Any) -> None:
    """Open whatever is folded, and load what waits to be scrolled to."""
    page.evaluate("document.querySelectorAll('details').forEach(item => item.open = true)")
    page.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")


def is_quiet(page: Any, path: Path) -> None:
    """Assert that nothing was said on the console, and nothing asked for but the file itself."""
    assert page.said == []
    assert [url for url in page.asked if not url.startswith("data:")] == [path.as_uri()]


def pictures(page: Any) -> int:
    """The number of pictures; asserts that every one is decoded."""
    unfold(page)
    found: list[int] = page.evaluate(
        "Promise.all([...document.images].map(image => image.decode().then(() => 0, () => 1)))"
    )
    assert sum(found) == 0
    return len(found)


def fits(page: Any) -> None:
    """Assert that the page cannot be scrolled sideways."""
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


def wears_the_readers_theme(page: Any) -> None:
    """Assert that background and charts are light where light is asked for, and dark where dark is."""
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (sum(map(int, background.strip("rgb()").split(","))) < 200) == dark
    ink = "[...document.querySelectorAll('svg text')].map(text => getComputedStyle(text).fill)"
    for colour in page.evaluate(ink):
        assert (sum(map(int, colour.strip("rgb()").split(","))) > 400) == dark


_CHARTS = """
[...document.querySelectorAll("svg")].filter(svg => svg.getBoundingClientRect().width).map(svg => {
  const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  const box = element => {
    const b = element.getBoundingClientRect();
    return [b.left, b.top, b.right, b.bottom];
  };
  const within = (element, part) => element.closest(`[data-part="${part}"]`) !== null;
  const texts = [...svg.querySelectorAll("text")];
  const drawn = [...svg.querySelectorAll('[data-part="axes"] :is(path, use)')].filter(mark =>
    !within(mark, "axis") && !mark.closest(".hover") && !mark.closest("defs")
    && !(mark.getAttribute("fill") === "none" && !mark.getAttribute("stroke")));
  return {
    name: svg.getAttribute("aria-label"), kind: svg.getAttribute("class"),
    width: svg.getBoundingClientRect().width,
    room: svg.parentElement.clientWidth - 2 * parseFloat(getComputedStyle(svg.parentElement).paddingLeft),
    letters: texts.map(text => parseFloat(getComputedStyle(text).fontSize) * scale),
    texts: texts.map(text => [text.textContent, box(text)]),
    legends: [...svg.querySelectorAll('[data-part="legend"]')].map(box),
    inside: texts.filter(text => within(text, "axes") && !within(text, "axis")).map(box),
    outline: box(svg), marks: drawn.map(box),
  };
})
"""


def charts(page: Any) -> list[dict[str, Any]]:
    """What can be measured of every chart that is shown, in CSS pixels; a box is left, top, right, bottom."""
    unfold(page)
    measured: list[dict[str, Any]] = page.evaluate(_CHARTS)
    return measured


def overlap(a: list[float], b: list[float]) -> bool:
    """Whether two boxes share more than a pixel and a half in both directions."""
    across, down = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    return across > 1.5 and down > 1.5


def edges(page: Any, region: Any) -> tuple[float, float]:
    """How far the left and the right edge of a region are from its background, 0 to 255.

    The mean over a column of pixels just inside of the edge, which thin lines of a table hardly move.
    """
    region.scroll_into_view_if_needed()
    picture = np.asarray(Image.open(io.BytesIO(region.screenshot())).convert("L")).astype(float)
    background = float(np.median(picture))
    left, right = (float(np.median(np.abs(picture[:, column] - background))) for column in (2, -3))
    return left, right


def violations(page: Any) -> list[Any]:
    """What axe finds wrong: contrast, names, landmarks, tables, and what a keyboard must reach."""
    from axe_playwright_python.sync_playwright import Axe

    unfold(page)
    response = Axe().run(page).response
    assert "color-contrast" in {item["id"] for item in response["passes"]}
    return [(item["id"], [node["html"][:120] for node in item["nodes"]]) for item in response["violations"]]


def wait_until(page: Any, condition: str) -> None:
    """Return when an expression has come true."""
    wait_for(lambda: bool(page.evaluate(condition)), what=condition)  # the page's policy allows no eval
