"""The contact sheet: what it says, that names stay text, and that it needs nothing beside itself."""

from __future__ import annotations

import re

import pytest

from clipcifar.render import contact_sheet
from clipcifar.render.pictures import Card
from tests.report.test_page import HOSTILE, Tags
from tests.support.synthetic import ATTRIBUTES

PIXEL = "data:image/png;base64,AA"


def html_of(name: str, *, with_image: bool = False, source: str = PIXEL) -> str:
    """The page of a query with one picture, everything that is not ours called by the same name."""
    return contact_sheet.render(
        [Card(source, name, name, [name])],
        asked=Card(PIXEL, name, name, []) if with_image else name,
        said=[name],
        tiny=False,
        attributes={**ATTRIBUTES, "dataset": name},
        command=name,
    )


@pytest.mark.parametrize("with_image", [False, True])
def test_every_name_is_shown_and_none_is_markup(with_image: bool) -> None:
    plain, hostile = (Tags(html_of(name, with_image=with_image)) for name in ("cat", HOSTILE))
    assert hostile.found == plain.found
    for page, name in ((plain, "cat"), (hostile, HOSTILE)):
        texts = [text for text in page.text if text == name]
        assert len(texts) == 6  # the query, what is said, the picture's two lines, the dataset, the command
        assert page.values.count(name) == 1 + with_image  # what is read in place of a picture


def test_it_has_the_policy_and_the_sections_of_the_other_pages() -> None:
    html = html_of("cat")
    assert re.search(r"content=\"default-src 'none'; img-src data:; style-src 'sha256-[\w+/=]{44}'\">", html)
    assert "<script" not in html
    assert re.findall(r'<h2 id="([^"]+)"', html) == re.findall(r'<a href="#([^"]+)"', html)
    assert "ab" * 32 in html
    assert "script" not in {tag for tag, _ in Tags(html).found}
    assert "All numbers are on test images" not in html  # which is said of numbers in the other pages


def test_a_picture_that_is_gone_is_a_place_that_says_so() -> None:
    assert "picture gone" in Tags(html_of("cat", source="")).text
    assert "picture gone" not in Tags(html_of("cat")).text
