"""The explorer in a real browser: typed, clicked, drawn round, by keyboard alone, and without a script."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from clipcifar.core import params
from clipcifar.explorer.browsing import ALONE
from clipcifar.explorer.embedding_map import inside
from clipcifar.explorer.session import Session
from tests.support import browser as browsing, explored, local_server, made
from tests.support.command_line import record
from tests.support.explored import Asking, serving
from tests.support.waiting import PATIENCE_S, wait_for

pytestmark = browsing.needed
SCAN = "a scan of the handwritten digit {classname}."
RAIN = "{classname} upside down in the rain"
PAGES = ["/", "/images", "/images?by=tried&order=sure", "/confusion", "/map", "/image/test/0", "/nothing"]
HOSTILE = [
    *(
        "<b>eel</b>",
        '"><script>document.title = 7</script>',
        "שלום, עולם",
        "x" * 200,
        "'\"&amp; <img src=y onerror=z>",
    ),
    *("{{ 7 * 7 }}", "%s%d", "</select></main>", "a name of many words " * 8, "dog"),
]


@contextmanager
def opened(
    browser: Any, address: str, path: str = "/", width: int = 1440, theme: str = "light", **options: Any
) -> Iterator[Any]:
    """A page of the explorer, after the address that the command prints."""
    base = address.partition("/?")[0]
    with browsing.shown(browser, address, width, theme, **options) as page:
        page.wait_for_url(f"{base}/")
        page.base = base
        if path != "/":
            page.goto(base + path)
        yield page


def type_prompt(page: Any, line: str, *, on: str = "train") -> None:
    """Type it, press Enter, and wait for the answer."""
    page.locator("[name=on]").select_option(on)
    page.locator("[name=line]").fill(line)
    page.keyboard.press("Enter")
    page.locator("#answer", has_text=line).wait_for()


def listed(page: Any) -> list[str]:
    """The addresses that the images of a gallery open, in order."""
    links: list[str] = page.locator(".sheet a").evaluate_all(
        "links => links.map(link => link.getAttribute('href'))"
    )
    return links


@pytest.fixture(scope="module", autouse=True)
def known_sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return explored.shared(tmp_path_factory) / explored.CACHE


@pytest.fixture(autouse=True)
def cache(own_cache: Path, known_sentences: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPCIFAR_CACHE", str(known_sentences))


@pytest.fixture(scope="module")
def made_session(tmp_path_factory: pytest.TempPathFactory, known_sentences: Path) -> Callable[..., Session]:
    def make(class_names: list[str] | None = None) -> Session:
        project = explored.copied(tmp_path_factory, tmp_path_factory.mktemp("explored") / "w")
        if class_names:
            explored.rename(project, class_names)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CLIPCIFAR_CACHE", str(known_sentences))
            session = Session(project)
            session.prepare().join()
        return session

    return make


@pytest.fixture(scope="module")
def session(made_session: Callable[..., Session]) -> Session:
    """Of the digits, with a prompt tried; tests only look."""
    session = made_session()
    session.try_line(RAIN, "test")
    return session


@pytest.fixture(scope="module")
def address(session: Session) -> Iterator[str]:
    with serving(session) as served:
        yield served


@pytest.fixture(scope="module")
def hostile(made_session: Callable[..., Session]) -> Iterator[str]:
    with serving(made_session(HOSTILE)) as served:
        yield served


@pytest.fixture(scope="module")
def many(made_session: Callable[..., Session]) -> Iterator[str]:
    with serving(made_session([f"class {number}" for number in range(300)])) as served:
        yield served


@pytest.fixture
def own(made_session: Callable[..., Session]) -> Iterator[tuple[Session, str]]:
    """A session in which nothing was tried, and its address: tests do with it what they like."""
    session = made_session()
    with serving(session) as served:
        yield session, served


def test_a_prompt_that_is_typed_gets_the_verdict_of_try(
    browser: Any,
    own: tuple[Session, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    session, address = own
    other = Path(shutil.copytree(session.opened.root, tmp_path / "other"))
    with opened(browser, address) as page:
        for line, on in ((SCAN, "train"), (RAIN, "train"), (SCAN, "test")):
            type_prompt(page, line, on=on)
            expected = explored.tried(monkeypatch, capsys, other, line, "--on", on)
            assert page.locator("#verdict li").all_text_contents() == expected
            assert page.evaluate("document.activeElement.name") == "line"  # the next one can be typed at once
        rows = page.locator("#history ~ .scroll tbody th").all_text_contents()
        assert rows == [SCAN, RAIN, SCAN]
        page.locator("[name=line]").fill("no class at all")
        page.keyboard.press("Enter")
        assert "{classname}" in page.locator(".refused").text_content()
        assert page.locator("[name=line]").input_value() == "no class at all"
        assert [line for line in page.said if "400" not in line] == []


def test_what_a_prompt_wins_and_loses_is_shown_and_all_of_it_a_click_away(
    browser: Any, address: str, session: Session
) -> None:
    state = session.state()
    answers, labels = state.answers("test"), state.results.split("test").labels
    own, active = (answers[name].predicted == labels for name in ("tried", "zero_shot"))
    with opened(browser, address) as page:
        page.get_by_role("link", name="all of them").last.click()
        lost = {f"/image/test/{row}" for row in np.flatnonzero(active & ~own)}
        assert page.locator("#number").text_content().startswith(f"{len(lost)} images")
        seen = set(listed(page))
        while (after := page.get_by_role("link", name="next")).count():
            page.goto(f"{page.base}{after.get_attribute('href')}")  # a click would not wait for the page
            seen |= set(listed(page))
        assert seen == lost
        assert len(lost) > 60  # more than a page


def test_a_cell_opens_exactly_its_images(browser: Any, address: str, session: Session) -> None:
    state = session.state()
    labels, called = state.results.split("test").labels, state.answers("test")["gda"].predicted
    with opened(browser, address, "/confusion?by=gda") as page:
        cells = page.locator(".confusion td a")
        assert sum(int(text) for text in cells.all_text_contents()) == len(labels)
        for number in range(0, cells.count(), 9):
            page.goto(f"{page.base}/confusion?by=gda")
            said = cells.nth(number).get_attribute("aria-label")
            cells.nth(number).click()
            page.wait_for_url("**/images?**")
            page.locator("#number").wait_for()
            query = dict(part.split("=") for part in urlsplit(page.url).query.split("&"))
            rows = np.flatnonzero((labels == int(query["label"])) & (called == int(query["called"])))
            assert set(listed(page)) == {f"/image/test/{row}" for row in rows[:60]}
            assert said.startswith(f"{len(rows)} of {state.results.class_names[int(query['label'])]} called ")


def test_filters_are_set_by_keyboard_alone(browser: Any, address: str, session: Session) -> None:
    labels = session.state().results.split("train").labels
    with opened(browser, address, "/images") as page:

        def tab_to(name: str) -> None:
            for _ in range(100):
                page.keyboard.press("Tab")
                if page.evaluate("document.activeElement.name || document.activeElement.textContent") == name:
                    return
            raise AssertionError(f"Tab does not reach {name}")

        tab_to("split")
        page.keyboard.type("train")
        tab_to("label")
        page.keyboard.type("three")
        tab_to("Show")
        page.keyboard.press("Enter")
        expected = int((labels == 3).sum())
        page.locator("#number", has_text=f"{expected} images").wait_for()
        assert "split=train" in page.url
        assert page.evaluate("document.activeElement.textContent") == "Show"  # and not back at the top
        assert page.locator("[name=split]").input_value() == "train"
        tab_to("next")
        page.keyboard.press("Enter")
        page.locator("#number", has_text="page 2 of").wait_for()
        page.go_back()
        page.go_back()
        page.locator("#number", has_text="397 images").wait_for()


PICTURE = "document.getElementById('map').toDataURL()"
INKS = """points => {
    const context = document.getElementById('map').getContext('2d');
    return points.map(([x, y]) => [...context.getImageData(x, y, 1, 1).data]);
}"""
INK_OF = """name => {
    const context = document.createElement('canvas').getContext('2d');
    context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
}"""


class Plane:
    """Where the points of the map are on the screen, from the server's points and the size of the canvas."""

    def __init__(self, page: Any, session: Session) -> None:
        browsing.wait_until(page, "Number(document.getElementById('map').dataset.drawn) > 0")
        self.box = page.locator("#map").bounding_box()
        width, height = page.evaluate(
            "[document.getElementById('map').width, document.getElementById('map').height]"
        )
        points = session.state().results.points.astype(np.float64)
        low, high = points.min(axis=0), points.max(axis=0)
        self.scale = 0.95 * min(width / (high - low)[0], height / (high - low)[1])
        self.middle, self.canvas = (low + high) / 2, np.array([width, height])
        self.ratio = width / self.box["width"]
        self.points = points

    def on_screen(self, points: np.ndarray) -> np.ndarray:
        pixels = (points - self.middle) * self.scale * [1, -1] + self.canvas / 2
        return np.asarray(pixels / self.ratio + [self.box["x"], self.box["y"]])

    def on_map(self, pixels: np.ndarray) -> np.ndarray:
        inner = (pixels - [self.box["x"], self.box["y"]]) * self.ratio
        return np.asarray(self.middle + (inner - self.canvas / 2) / self.scale * [1, -1])

    def address(self, row: int) -> str:
        return f"/image/train/{row}" if row < 700 else f"/image/test/{row - 700}"


def test_the_lasso_gathers_exactly_the_points_inside(browser: Any, address: str, session: Session) -> None:
    with opened(browser, address, "/map") as page:
        plane = Plane(page, session)
        middle = plane.on_screen(np.median(plane.points, axis=0))
        # a star, so that what is near its middle is not all that is inside
        turns, radii = np.linspace(0, 2 * np.pi, 11)[:-1], np.tile([90, 30], 5)
        corners = (middle + np.stack([radii * np.cos(turns), radii * np.sin(turns)], axis=1)).round()
        page.get_by_role("button", name="Lasso").click()
        page.mouse.click(*plane.on_screen(plane.points[:1])[0])  # no outline, and no image
        page.mouse.move(*corners[0])
        page.mouse.down()
        for corner in corners[1:]:
            page.mouse.move(*corner)
        page.mouse.up()
        page.locator("#gathered h2").wait_for()
        rows = inside(session.state().results.points, plane.on_map(corners).tolist())
        assert 10 < len(rows) <= 120
        assert page.locator("#gathered h2").text_content() == f"{len(rows)} images inside"
        assert listed(page) == [plane.address(row) for row in rows]
        assert page.get_by_role("button", name="Lasso").get_attribute("aria-pressed") == "false"
        page.locator("[name=only]").select_option("test")
        of_test = [row for row in rows if row >= 700]
        assert 0 < len(of_test) < len(rows)
        page.locator("#gathered h2", has_text=re.compile(f"^{len(of_test)} image")).wait_for()
        assert listed(page) == [plane.address(row) for row in of_test]
        page.get_by_role("button", name="Whole map").click()
        assert page.locator("#gathered").inner_text() == ""
        assert page.said == []


def test_a_map_that_is_shown_whole_stays_whole_at_another_width(browser: Any, address: str) -> None:
    drawn = "document.getElementById('map').dataset.drawn"
    with (
        opened(browser, address, "/map") as page,
        opened(browser, address, "/map", width=390) as narrow,
    ):
        for each in (page, narrow):
            browsing.wait_until(each, f"Number({drawn}) > 0")
        wide = page.evaluate(PICTURE)
        page.set_viewport_size(narrow.viewport_size)
        wait_for(lambda: page.evaluate(PICTURE) == narrow.evaluate(PICTURE), what="the map at 390 pixels")
        assert page.evaluate(PICTURE) != wide


def test_no_point_of_the_map_hides_an_image_that_the_prompt_wins_or_loses(
    browser: Any, own: tuple[Session, str]
) -> None:
    session, address = own
    session.try_line(RAIN, "test")
    answers, labels = session.state().answers("test"), session.state().results.split("test").labels
    right, tried = (answers[name].predicted == labels for name in ("zero_shot", "tried"))
    flipped = 700 + np.flatnonzero(right != tried)
    assert len(flipped) > 20
    with opened(browser, address, "/map") as page:
        plane = Plane(page, session)
        page.locator("[name=colour]").select_option("sets")
        at = (plane.on_screen(plane.points[flipped]) - [plane.box["x"], plane.box["y"]]) * plane.ratio
        pixels = [[round(x), round(y)] for x, y in at.tolist()]
        won_and_lost = {tuple(page.evaluate(INK_OF, f"--series-{number}")) for number in (1, 2)}
        wait_for(
            lambda: {*map(tuple, page.evaluate(INKS, pixels))} == won_and_lost, what="won and lost images"
        )


def test_a_click_on_a_point_opens_its_image_and_on_nothing_nothing(
    browser: Any, address: str, session: Session
) -> None:
    with opened(browser, address, "/map") as page:
        plane = Plane(page, session)
        pixels = plane.on_screen(plane.points)
        apart = np.linalg.norm(pixels[:, None] - pixels[None], axis=2) + 1e9 * np.eye(len(pixels))
        page.mouse.click(plane.box["x"] + 3, plane.box["y"] + 3)
        assert page.url == f"{page.base}/map"
        alone = int(apart.min(axis=1).argmax())
        page.mouse.click(*pixels[alone])
        page.wait_for_url(page.base + plane.address(alone))
        row = alone if alone < 700 else alone - 700
        ids = session.state().results.split("train" if alone < 700 else "test").ids
        assert ids[row] in page.locator("h1").text_content()


def test_the_map_is_moved_and_zoomed_by_pointer_wheel_and_keys_and_comes_back(
    browser: Any, address: str
) -> None:
    with opened(browser, address, "/map") as page:
        browsing.wait_until(page, "Number(document.getElementById('map').dataset.drawn) > 0")
        canvas = page.locator("#map")
        box = canvas.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

        def drag() -> None:
            page.mouse.move(x, y)
            page.mouse.down()
            page.mouse.move(x + 60, y + 25)
            page.mouse.up()

        def wheel() -> None:
            page.mouse.move(x, y)
            page.mouse.wheel(0, -200)

        def key(name: str) -> Callable[[], None]:
            return lambda: canvas.press(name)

        def picture() -> str:
            return str(page.evaluate("document.getElementById('map').toDataURL()"))

        def drawn() -> int:
            return int(canvas.get_attribute("data-drawn"))

        def after(act: Callable[[], None]) -> str:
            before = drawn()
            act()
            wait_for(lambda: drawn() > before, what="a frame")
            return picture()

        start = picture()
        acts = [drag, wheel, *map(key, ["ArrowLeft", "ArrowUp", "+", "-", "ArrowRight", "ArrowDown"])]
        pictures = [start]
        for act in acts:
            pictures.append(after(act))
            assert pictures[-1] != pictures[-2]
        assert after(page.get_by_role("button", name="Whole map").click) == start
        there = after(key("ArrowLeft"))
        assert after(key("ArrowRight")) == start != there
        page.locator("[name=only]").select_option("test")
        wait_for(lambda: picture() != start, what="test images alone")
        few = page.evaluate("document.querySelectorAll('#legend li').length")
        page.locator("[name=colour]").select_option("sets")
        wait_for(lambda: page.locator("#legend li").count() != few, what="another legend")
        assert page.said == []


@pytest.mark.parametrize(("width", "theme"), browsing.VIEWS)
def test_every_page_fits_the_window_wears_the_readers_theme_and_is_quiet(
    browser: Any, address: str, width: int, theme: str
) -> None:
    with opened(browser, address, width=width, theme=theme) as page:
        for path in PAGES:
            page.goto(page.base + path)
            browsing.fits(page)
            browsing.pictures(page)
            browsing.wears_the_readers_theme(page)
            assert [line for line in page.said if "404" not in line or path != "/nothing"] == [], path
        assert {urlsplit(url).netloc for url in page.asked} == {urlsplit(address).netloc}


@pytest.mark.parametrize(("width", "theme"), zip(browsing.WIDTHS, browsing.THEMES, strict=True))
def test_axe_finds_nothing_to_mend(browser: Any, address: str, width: int, theme: str) -> None:
    with opened(browser, address, width=width, theme=theme, bypass_csp=True) as page:
        for path in PAGES:
            page.goto(page.base + path)
            assert browsing.violations(page) == [], path


def test_hostile_class_names_are_text_everywhere(browser: Any, hostile: str) -> None:
    with opened(browser, hostile, width=390) as page:
        type_prompt(page, "dog: <i>a dog</i>", on="test")
        for path in [
            "/",
            "/images",
            "/images?by=tried",
            "/confusion",
            "/map",
            "/image/test/0",
            "/image/train/1",
        ]:
            page.goto(page.base + path)
            if path == "/map":
                page.locator("#legend li").last.wait_for()
            text = page.locator("body").text_content()
            assert "<b>eel</b>" in text, path
            assert page.locator("main b, main i, main script, img[src=y], iframe").count() == 0
            assert page.title().startswith("clipcifar explore: ")
            browsing.fits(page)
        assert page.said == []
        assert {urlsplit(url).netloc for url in page.asked} == {urlsplit(hostile).netloc}
        page.goto(f"{page.base}/images")
        names = page.locator("[name=label] option").all_text_contents()[1:]
        assert [name.strip("\u2068\u2069") for name in names] == [
            name.replace("שלום, עולם", "שלום\u2069, \u2068עולם") for name in HOSTILE
        ]


def test_three_hundred_classes_are_shown_by_their_largest_confusions(browser: Any, many: str) -> None:
    with opened(browser, many, "/confusion", width=390) as page:
        assert page.locator(".confusion").count() == 0
        pairs = page.locator("#pairs tbody tr")
        assert pairs.count() == ALONE
        numbers = [int(text) for text in page.locator("#pairs td a").all_text_contents()]
        assert numbers == sorted(numbers, reverse=True)
        actual, called = (pairs.first.locator("th, td").nth(column).text_content() for column in (0, 1))
        pairs.first.locator("a").click()
        page.locator("#number", has_text=f"{numbers[0]} image").wait_for()
        assert set(page.locator(".sheet strong").all_text_contents()) == {actual}
        assert page.locator(".sheet figcaption", has_text=f"called {called} ").count() == numbers[0]
        page.goto(f"{page.base}/map")
        page.locator("#legend li").last.wait_for()
        assert page.locator("#legend li").count() == 20
        for path in PAGES[:2]:
            page.goto(page.base + path)
            browsing.fits(page)
        assert page.said == []


def test_of_two_pages_each_has_the_history_of_both(browser: Any, own: tuple[Session, str]) -> None:
    _, address = own
    with opened(browser, address) as first, opened(browser, address) as second:
        type_prompt(first, SCAN)
        second.reload()
        second.locator("#answer", has_text=SCAN).wait_for()
        type_prompt(second, RAIN)
        type_prompt(first, "the {classname}")
        rows = first.locator("#history ~ .scroll tbody tr").all_text_contents()
        assert [row.split(".")[0].strip()[:9] for row in rows] == ["the {clas", "{classnam", "a scan of"]
        first.get_by_role("button", name="Undo").click()
        first.locator("#answer", has_text=RAIN).wait_for()
        step = first.locator("main").get_attribute("data-step")
        second.locator(f"main[data-step='{step}']").wait_for()  # it looks for itself
        second.get_by_role("button", name="Undo").click()
        second.locator("#answer", has_text=SCAN).wait_for()
        assert first.said == second.said == []


def test_without_a_script_all_but_the_map_works(browser: Any, own: tuple[Session, str]) -> None:
    session, address = own
    with opened(browser, address, java_script_enabled=False) as page:
        type_prompt(page, SCAN, on="test")
        type_prompt(page, RAIN, on="test")
        assert page.locator("#verdict li").count() >= 3
        page.get_by_role("button", name="Undo").click()
        page.locator("#answer", has_text=SCAN).wait_for()
        page.locator("[name=name]").fill("scans")
        page.get_by_role("button", name="Save as set").click()
        page.locator(".said", has_text="prompts.active: scans").wait_for()
        saved = params.load(session.opened.root / "params.yaml")["prompts"]["sets"]["scans"]
        assert saved["templates"] == [SCAN]
        page.get_by_role("link", name="Images", exact=True).first.click()
        page.locator("[name=by]").select_option("tried")
        page.locator("[name=result]").select_option("wrong")
        page.get_by_role("button", name="Show").click()
        page.wait_for_url("**result=wrong**")
        answers, labels = session.state().answers("test"), session.state().results.split("test").labels
        wrong = np.flatnonzero(answers["tried"].predicted != labels)
        assert listed(page) == [f"/image/test/{row}" for row in wrong[:60]]
        page.locator(".sheet a").first.click()
        page.locator("#said tbody tr").nth(2).wait_for()
        assert page.locator("#said tbody tr").count() == 3
        page.get_by_role("link", name="Map").click()
        assert page.locator("noscript").inner_text().startswith("The map needs")
        assert not page.locator("#map-form").is_visible()


def replace_results(project: Path) -> None:
    """Let a run have brought other labels and answers of those."""
    rolled = np.arange(397) % 10
    made.edit_images(project / "data/embeddings/images", {"test/labels": rolled})
    record(project, *explored.RECORDED)


def test_results_that_change_are_shown_in_every_open_page(browser: Any, own: tuple[Session, str]) -> None:
    session, address = own
    session.try_line(SCAN, "test")
    with (
        opened(browser, address) as prompts,
        opened(browser, address, "/images?label=3") as images,
        opened(browser, address, "/map") as mapped,
    ):
        pages = (prompts, images, mapped)
        before = [page.locator("main").inner_text() for page in pages]
        replace_results(session.opened.root)
        for page in pages:
            page.locator(".said", has_text="Results changed and were read again").wait_for()
            assert page.locator("main").inner_text() not in before
            assert SCAN not in page.locator("main").inner_text()
            assert [line for line in page.said if "409" not in line] == []  # amid the change
        mapped.locator("#map[data-drawn]").wait_for()


def test_results_that_go_and_come_back_are_told_in_the_open_page(
    browser: Any, own: tuple[Session, str]
) -> None:
    session, address = own
    with opened(browser, address, "/map") as page:
        browsing.wait_until(page, "Number(document.getElementById('map').dataset.drawn) > 0")
        path = session.opened.root / "data/dataset.h5"
        kept = path.rename(path.with_name("kept"))
        page.locator(".refused", has_text="dvc repro").wait_for()
        kept.rename(path)
        page.locator("#map[data-drawn]").wait_for()
        assert [line for line in page.said if "409" not in line] == []


def test_what_was_typed_stays_when_results_change(browser: Any, own: tuple[Session, str]) -> None:
    session, address = own
    with opened(browser, address) as page:
        page.locator("[name=line]").fill("half a {class")
        replace_results(session.opened.root)
        page.locator("#status", has_text="read again with your next step").wait_for()
        assert page.locator("[name=line]").input_value() == "half a {class"
        type_prompt(page, SCAN)
        page.locator("#status:empty").wait_for(state="attached")


def test_however_often_a_form_is_sent_news_are_asked_for_once_at_a_time(browser: Any, address: str) -> None:
    with browsing.shown(browser, "about:blank", 1440, "light") as page:
        page.clock.install()
        page.goto(address)
        page.wait_for_url(f"{address.partition('/?')[0]}/")
        page.goto(page.url + "images")
        for _ in range(5):
            with page.expect_response(lambda response: "/images?" in response.url):
                page.evaluate("document.querySelector('form').requestSubmit()")
        with page.expect_response("**/state"):
            page.clock.run_for(400)
        asked = len([url for url in page.asked if url.endswith("/state")])
        for _ in range(3):
            with page.expect_response("**/state"):
                page.clock.run_for(3100)
        assert len([url for url in page.asked if url.endswith("/state")]) == asked + 3


def test_a_page_whose_explorer_has_ended_or_forgotten_it_says_so_and_stays(
    browser: Any, made_session: Callable[..., Session]
) -> None:
    with serving(made_session()) as address, opened(browser, address) as page:
        page.context.clear_cookies()
        page.locator("[name=line]").fill(SCAN)
        page.keyboard.press("Enter")
        page.locator("#status", has_text="does not answer").wait_for()
        assert page.locator("[name=line]").input_value() == SCAN


EVIL = """<!doctype html><title>evil</title>
<form method="post" action="BASE/undo"><button>press</button></form>
<a href="BASE/images">go</a>
<iframe src="BASE/"></iframe>
<script>
  const load = (tag, path) => new Promise((done) => {
    const item = document.createElement(tag);
    item.onload = () => done(`${path} loaded`);
    item.onerror = () => done("refused");
    item.src = "BASE" + path;
    document.body.append(item);
  });
  const send = (path, options) =>
    fetch("BASE" + path, options).then((answer) => `${path} ${answer.type}`, () => "refused");
  window.tried = Promise.all([
    load("img", "/picture/test/0"), load("script", "/explorer.js"), send("/state", {credentials: "include"}),
    send("/undo", {method: "POST", credentials: "include"}),
    send("/try", {method: "POST", credentials: "include", headers: {"x-own": "1"}, body: "line=a"}),
  ]);
</script>"""


def test_a_page_of_another_origin_neither_reads_nor_posts(browser: Any, own: tuple[Session, str]) -> None:
    """On another port of this machine, to which a browser sends even the strictest cookie."""
    session, address = own
    session.try_line(SCAN, "train")
    before = session.state()
    with local_server.serving() as evil, opened(browser, address) as page:
        evil.files["/"] = EVIL.replace("BASE", page.base).encode()
        evil.headers["Content-Type"] = "text/html"
        page.goto(f"{evil.url}/")
        assert page.evaluate("window.tried") == ["refused"] * 5
        assert page.frame_locator("iframe").locator("main").count() == 0
        page.get_by_role("link", name="go").click()
        page.get_by_text("another page asks").wait_for()
        page.goto(f"{evil.url}/")
        page.get_by_role("button", name="press").click()
        page.get_by_text("another page asks").wait_for()
        assert session.state() is before
        page.goto(f"{page.base}/")  # typed, as a bookmark is
        page.locator("#answer", has_text=SCAN).wait_for()


@pytest.mark.parametrize("is_asked", [True, False])
def test_the_command_prints_the_address_and_control_c_ends_it(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, is_asked: bool
) -> None:
    project = explored.copied(tmp_path_factory, tmp_path / "w")
    command = [sys.executable, "-m", "clipcifar", "explore"]
    with subprocess.Popen(
        command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address, said = process.stdout.readline().strip(), process.stdout.readline()
        assert said == "for this machine and this address alone; Ctrl-C ends it\n"
        if is_asked:  # else while the text tower is still loaded
            assert Asking(address).page("/images")
            assert json.loads(Asking(address).page("/state"))["changed"] is False
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, output, error) == (130, "", "")


@pytest.mark.parametrize("port", ["x", "-1", "65536", "1.5", "\u0661", "9" * 5000])
def test_a_port_that_is_none_is_refused(port: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "clipcifar", "explore", "--port", port],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
