"""The links of all texts: their files are there, their headings too, and README leads to every page."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import PurePosixPath

import pytest

from tests.house.test_docs import FILES
from tests.support.import_closure import ROOT

PAGES = sorted(name for name in FILES if name.endswith(".md"))


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def slug(heading: str) -> str:
    """What GitHub calls a heading in an address: its text in small letters, blanks as hyphens."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(text: str) -> set[str]:
    """The anchors of a page; a heading that comes again gets a number."""
    known: Counter[str] = Counter()
    named = set()
    for heading in re.findall(r"^#{1,6} +(.+?)[ #]*$", without_code(text), flags=re.M):
        name = slug(heading)
        named.add(f"{name}-{known[name]}" if known[name] else name)
        known[name] += 1
    return named


def links(text: str) -> list[str]:
    """The targets of a page's links and pictures, but those of other sites."""
    targets = re.findall(r"\]\(\s*([^)\s]+)[^)]*\)", without_code(text))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def broken(text: str, page: str) -> list[str]:
    """The links of a page's text that lead to no file of this tree, or to no heading of its file."""
    lost = []
    for link in links(text):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text() if path else text)):
            lost.append(link)
    return lost


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_and_a_heading(page: str) -> None:
    assert broken((ROOT / page).read_text(), page) == []


def reachable(start: str) -> set[str]:
    """The pages that links lead to from one of them, however many there are between."""
    seen, waiting = {start}, [start]
    while waiting:
        page = PurePosixPath(waiting.pop())
        for link in links((ROOT / page).read_text()):
            if not link.startswith("#"):
                there = ROOT / page.parent / link.partition("#")[0]
                name = there.resolve().relative_to(ROOT.resolve()).as_posix()
                if name in PAGES and name not in seen:
                    seen.add(name)
                    waiting.append(name)
    return seen


def test_readme_leads_to_every_page() -> None:
    pages = {page for page in PAGES if page.startswith("docs/")}
    assert pages
    assert pages <= reachable("README.md")
    assert not pages <= reachable("data/sentences/README.md")  # negative control: it links to nothing


def test_the_check_sees_what_it_looks_for() -> None:
    text = (
        "# A `b`, c!\n\n## Twice\n## Twice\n[a](#a-b-c) [b](#twice-1) [c](docs/security.md#what-is-trusted)"
    )
    assert broken(text, "README.md") == []
    assert (
        broken("```\n# no heading\n[x](gone.md)\n```\n[a](https://nowhere.example/x.md#y)", "README.md") == []
    )
    wrong = ["#b", "gone.md#x", "docs/gone.md", "docs/security.md#gone", "security.md", "#no-heading"]
    assert broken("".join(f"# A\n[x]({link})\n" for link in wrong), "README.md") == wrong
    assert broken("[x](../README.md) [y](teams.md#day-by-day)", "docs/security.md") == []
    assert slug("What [DVC](https://dvc.org) says: “a_b” – 2 × 3") == "what-dvc-says-a_b--2--3"
