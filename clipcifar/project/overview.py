"""Every study in a line: was it run, and is what it made of what lies here?"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from clipcifar.core import terminal
from clipcifar.core.errors import ClipcifarError
from clipcifar.project import freshness
from clipcifar.project.studies import some_studies


def overview_of_studies(repository: Path) -> list[str]:
    """A line for every study: its name, whether it was run and is of what lies here, and its question.

    What a killed run left visible without a whole run is hidden again, and that is said.

    Raises:
        ConfigError: there is no study.
    """
    notes, rows, studies = [], [], some_studies(repository)
    stale = _stale(repository)
    for study in studies:
        runner, is_recorded = study.runner, study.is_recorded
        state = ("stale" if study.name in stale else "run") if is_recorded else "not run"
        if runner is not None:
            state = f"running (process {runner})"
        elif study.is_hidden == is_recorded and study.settle_unless_running():
            article, now = ("a", "shown to") if is_recorded else ("no", "hidden from")
            notes.append(f"note: {article} whole run of {study.name} is recorded, so it is {now} DVC again")
        rows.append((study.name, state, study.question))
    shown = [[terminal.one_line(cell) for cell in row] for row in rows]
    wide = [max(terminal.width(row[column]) for row in shown) for column in (0, 1)]
    lines = [
        f"{terminal.left(name, wide[0])}  {terminal.left(state, wide[1])}  {question}"
        for name, state, question in shown
    ]
    return [*lines, "", *notes, "Run one, or bring it up to date: clipcifar study NAME"]


def _stale(repository: Path) -> set[str]:
    """The studies under which something has changed since they ran; none where params.yaml is not valid."""
    with suppress(ClipcifarError):  # what is wrong with it, running one says
        state = freshness.here(repository)
        return {Path(target).parent.name for target in state.runs if ":" in target and state.changed(target)}
    return set()
