"""Text as a terminal shows it: how many columns it takes, and nothing in it that steers the terminal.

Names of classes and files are untrusted. In an escape sequence they could clear the screen, rename the
window or overwrite what was printed before; characters that override the direction of writing could show
a sentence in another order than it has.
"""

from __future__ import annotations

import re
import sys
from typing import TextIO

# C0 and C1 control characters, separators of lines and paragraphs, and what embeds, overrides or isolates a
# direction of writing (https://www.unicode.org/reports/tr9/). Of the first, a stream lets these pass:
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_LAYOUT = re.compile("[\t\n\ud800-\udfff]")  # the last are bytes of a name that is not UTF-8
_NARROW = re.compile("[ -~\xa0-\u02ff\u2010-\u2027]*")  # one column each: Latin, dashes, quotes, the ellipsis


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"  # which JSON reads back


def harmless(text: str) -> str:
    """Text of several lines with an escape for each character that steers a terminal."""
    return _STEERING.sub(_escape, text)


def one_line(text: str) -> str:
    """A name as it is shown within a line: line breaks and tabs, too, are escapes."""
    return _LAYOUT.sub(_escape, harmless(text))


def width(text: str) -> int:
    """Columns that a terminal needs for the text, which holds nothing that steers it.

    Wide characters take two, combining and other zero-width ones none, and an emoji put together from
    several takes those of the whole.
    """
    if _NARROW.fullmatch(text):
        return len(text)
    from wcwidth import wcswidth  # 20 ms, for tables that need it

    return int(wcswidth(text))


def left(text: str, columns: int) -> str:
    """Text filled up with spaces behind it to a number of columns, as `ljust` does to one of characters."""
    return text + " " * (columns - width(text))


def right(text: str, columns: int) -> str:
    """Text filled up with spaces before it."""
    return " " * (columns - width(text)) + text


def cut(text: str, columns: int) -> str:
    """Text of at most so many columns, an ellipsis for what was cut; no letter loses its accent.

    Args:
        text: holds nothing that steers a terminal.
        columns: at least 1.
    """
    if width(text) <= columns:
        return text
    if _NARROW.fullmatch(text):
        return text[: columns - 1] + "…"
    from wcwidth import iter_graphemes

    kept = ""
    for grapheme in iter_graphemes(text):
        if width(kept + grapheme) >= columns:
            break
        kept += grapheme
    return kept + "…"


def note(text: str) -> None:
    """Say on standard error what is to be known, but is neither a result nor an error."""
    print(f"note: {harmless(text)}", file=sys.stderr)


class HarmlessStream:
    """A stream of text in which no name steers the terminal.

    It is for standard output alone: on standard error libraries draw their progress, with control characters.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write text with what steers a terminal as escapes."""
        self.stream.write(harmless(text))
        return len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)
