"""A finished page into its file, marked where what it was made from is stale."""

from __future__ import annotations

from pathlib import Path

from markupsafe import escape

from clipcifar.core.files import write_atomically
from clipcifar.project.freshness import stale_inputs
from clipcifar.project.state import Stale

_MAIN = "<main>\n"


def write_page(path: Path, html: str, *, project: Path = Path()) -> None:
    """Write the page of the stage that is running.

    Args:
        path: of the page, an output of that stage, relative to the project.
        html: the page.
        project: the folder of params.yaml, dvc.yaml and dvc.lock.
    """
    write_atomically(project / path, marked(html, stale_inputs(project, path)).encode())


def marked(html: str, stale: list[Stale]) -> str:
    """The page with a line for each result in it that is not of what lies here."""
    if not stale:
        return html
    lines = "".join(f"<li>{escape(str(reason))}</li>\n" for reason in stale)
    notice = f'<section class="stale" aria-label="Stale results">\n<ul>\n{lines}</ul>\n</section>\n'
    before, main, after = html.partition(_MAIN)
    return f"{before}{main}{notice}{after}"
