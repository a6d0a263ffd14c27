"""A page as it is written: with the commit in its provenance, as text."""

from __future__ import annotations

from clipcifar.render.page_file import located, marked

PAGE = "<main>\n<p>a</p>\n<dl>\n<dt>model</dt><dd>m</dd>\n</dl>\n</main>"


def test_the_commit_stands_before_all_else_of_the_provenance_as_text() -> None:
    page = located(PAGE, [("commit", "ab"), ("tracked files edited since", "<b>\u202e.py")])
    assert page == PAGE.replace(
        "<dl>\n",
        "<dl>\n<dt>commit</dt><dd>ab</dd>\n<dt>tracked files edited since</dt><dd>&lt;b&gt;\\u202e.py</dd>\n",
    )
    assert located("<main>\n</main>", [("commit", "ab")]) == "<main>\n</main>"


def test_what_is_stale_is_said_first() -> None:
    assert marked(PAGE, ["a < b"]).startswith('<main>\n<section class="stale"')
    assert "<li>a &lt; b</li>" in marked(PAGE, ["a < b"])
    assert marked(PAGE, []) == PAGE
