"""What all pages share: one HTML file with everything in it, and a policy that lets it ask for nothing.

The policy names by their digests the one style and, where a table is long, the one script of a page.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from clipcifar.core.files import Attribute
from clipcifar.core.terminal import harmless

_HERE = "clipcifar.render"
_RIGHT = "\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff"
_FROM_THE_RIGHT = re.compile(f"[{_RIGHT}](?:[{_RIGHT}\\s\u200c-\u200f-]*[{_RIGHT}])?")


def versions(attributes: Mapping[str, Attribute]) -> str:
    """The libraries that a file of ours was made with, for a page's provenance."""
    libraries = {key.removeprefix("version_"): attributes[key] for key in attributes if "version_" in key}
    return ", ".join(f"{name} {version}" for name, version in sorted(libraries.items()))


def _finalize(value: Any) -> Any:
    """A field as it is shown: no name in it turns the sentence around. Markup of ours is left alone.

    Words written from the right are isolated, since a number that follows them would move before them.
    """
    return _FROM_THE_RIGHT.sub("\u2068\\g<0>\u2069", harmless(value)) if type(value) is str else value


class _Inline(NamedTuple):
    """A style or a script of ours within a page, and by what the page's policy knows it."""

    text: Markup
    digest: str


@cache
def _own(name: str) -> _Inline:
    text = resources.files(_HERE).joinpath(name).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return _Inline(Markup(text), f"sha256-{digest}")  # noqa: S704  a file of this package


def render(template: str, *, package: str = _HERE, **fields: Any) -> str:
    """Fill a template; text is escaped, a field that the template lacks is an error.

    Args:
        template: its file's name.
        package: whose folder it lies in; what it extends and imports lies here.
        fields: what it asks for.
    """
    filled = _environment(package).get_template(template)
    return filled.render(**fields, style=_own("page.css"), script=_own("page.js"))


@cache
def _environment(package: str) -> Environment:
    return Environment(
        loader=ChoiceLoader([PackageLoader(name, package_path="") for name in (package, _HERE)]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        keep_trailing_newline=True,
    )
