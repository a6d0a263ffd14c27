"""A finished page into its file, with the commit that it was made at, and marked where results are stale."""

from __future__ import annotations

from pathlib import Path

from markupsafe import escape

from clipcifar.core.files import write_atomically
from clipcifar.core.terminal import harmless, note
from clipcifar.project.freshness import stale_inputs
from clipcifar.project.standing import standing

_MAIN, _PROVENANCE = "<main>\n", "<dl>\n"


def write_page(path: Path, html: str, *, project: Path = Path()) -> list[str]:
    """Write the page of the stage that is running.

    Args:
        path: of the page, an output of that stage, relative to the project.
        html: the page.
        project: the folder of params.yaml, dvc.yaml and dvc.lock.

    Returns:
        A line for each result in it that is not of what lies here, which is also said aloud.
    """
    stale = [str(reason) for reason in stale_inputs(project, path)]
    write_atomically(project / path, marked(located(html, standing(project)), stale).encode())
    for line in stale:
        note(line)
    return stale


def marked(html: str, stale: list[str]) -> str:
    """The page with these lines before all else."""
    if not stale:
        return html
    lines = "".join(f"<li>{escape(line)}</li>\n" for line in stale)
    notice = f'<section class="stale" aria-label="Stale results">\n<ul>\n{lines}</ul>\n</section>\n'
    before, main, after = html.partition(_MAIN)
    return f"{before}{main}{notice}{after}"


def located(html: str, pairs: list[tuple[str, str]]) -> str:
    """The page with these names and values before all else of its provenance, if it has one."""
    before, opening, after = html.partition(_PROVENANCE)
    lines = [f"<dt>{escape(name)}</dt><dd>{escape(harmless(value))}</dd>\n" for name, value in pairs]
    return f"{before}{opening}{''.join(lines) if opening else ''}{after}"
