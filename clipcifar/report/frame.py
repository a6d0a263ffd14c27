"""What all pages share: one HTML file with everything in it, no script, no network."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, **fields: Any) -> str:
    """Fill a template of this folder; text is escaped, a field that the template lacks is an error."""
    environment = Environment(
        loader=PackageLoader("clipcifar.report", package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**fields)
