"""The contact sheet of `clipcifar find` in a real browser, as the other pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipcifar.render import contact_sheet
from clipcifar.render.pictures import Card, data_uri
from tests.support import browser as browsing
from tests.support.once import made_once
from tests.support.synthetic import ATTRIBUTES

pytestmark = browsing.needed
QUERIES = ("sentence", "image")
SENTENCE = "<b>two cats</b> on a sofa, " + "and on it goes " * 12 + "unbroken" * 20
LOOKS = [(query, *view) for query in QUERIES for view in browsing.VIEWS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "contact-sheets", _write)


def _write(folder: Path) -> None:
    rng = np.random.default_rng(0)
    sizes = [(192, 192), (120, 400), (300, 90), (8, 8), (32, 32), (64, 48)]  # height and width

    def picture(number: int) -> str:
        height, width = sizes[number % len(sizes)]
        pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        return "" if number == 3 else data_uri(pixels, contact_sheet.SHEET_SIDE)

    cards = [
        Card(
            picture(number),
            alt=f"test image {number}, {browsing.LONG[number % 3]}",
            title=f"{number + 1}. {browsing.LONG[number % 3]}",
            lines=[
                f"cosine {0.3 - number / 100:.4f}, test",
                f"{browsing.LONG[0]}/{'nested/' * 4}IMG {number}.jpg",
            ],
        )
        for number in range(12)
    ]
    for query in QUERIES:
        asked = SENTENCE if query == "sentence" else Card(picture(1), "the image a.jpg", "a.jpg", [])
        html = contact_sheet.render(
            cards,
            asked=asked,
            said=["The 12 nearest images."],
            tiny=False,
            attributes={**ATTRIBUTES, "version_numpy": "2.4.6"},
            command=f"clipcifar find '{SENTENCE}'",
        )
        (folder / f"{query}.html").write_text(html, encoding="utf-8")


@pytest.fixture(scope="module", params=LOOKS, ids=lambda look: "-".join(map(str, look)))
def shown(request: pytest.FixtureRequest, browser: Any, folder: Path) -> Iterator[Any]:
    query, width, theme = request.param
    with browsing.shown(browser, folder / f"{query}.html", width, theme) as opened:
        opened.query = query
        yield opened


def test_it_opens_without_a_complaint_or_a_request(shown: Any, folder: Path) -> None:
    browsing.is_quiet(shown, folder / f"{shown.query}.html")


def test_every_picture_is_decoded_and_the_one_that_is_gone_keeps_its_place(shown: Any) -> None:
    assert browsing.pictures(shown) == 11 + (shown.query == "image")
    places = shown.locator("#nearest ~ .sheet :is(img, .gone)").all()
    boxes = [place.bounding_box() for place in places]
    assert len(boxes) == 12
    assert len({(round(box["width"]), round(box["height"])) for box in boxes}) == 1
    assert all(box["width"] >= 140 for box in boxes)


def test_nothing_is_wider_than_the_window(shown: Any) -> None:
    browsing.fits(shown)


def test_the_theme_is_the_readers(shown: Any) -> None:
    browsing.wears_the_readers_theme(shown)


def test_markup_in_a_name_is_shown_as_it_was_typed(shown: Any) -> None:
    assert shown.get_by_text("<b>eel</b>").count() > 0
    assert shown.locator("main b").count() == 0


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: "-".join(map(str, look)))
def test_axe_finds_nothing_to_mend(browser: Any, folder: Path, look: tuple[str, int, str]) -> None:
    query, width, theme = look
    with browsing.shown(browser, folder / f"{query}.html", width, theme, bypass_csp=True) as shown:
        assert browsing.violations(shown) == []
