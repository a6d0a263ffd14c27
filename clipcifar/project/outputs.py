"""Every output of the last run: is it what its stage made, in the workspace and in DVC's cache?

One command has to mend both. DVC would restore a damaged file from a damaged object without a
word, and would take a damaged file for the stage's own if it were told to commit it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipcifar.core.counts import count_of
from clipcifar.core.errors import ClipcifarError, DataError
from clipcifar.core.progress import progress
from clipcifar.project import dvc_project, missing
from clipcifar.project.dvc_project import FOLDER, Output, Project
from clipcifar.project.remote import Remote, holds, remote_of

NAMED = 5  # of many bad things, so many are named


@dataclass(frozen=True)
class _State:
    """One output: which of its files are not whole in the workspace, and which not in the cache.

    Attributes:
        harmed: paths that are missing or hold something else.
        unkept: paths whose object is missing or holds something else.
        wrong: the objects of those that hold something else.
        is_of_another_run: whether DVC's cache has what lies here, as after `git checkout` alone.
    """

    output: Output
    harmed: list[str]
    unkept: list[str]
    wrong: list[Path]
    is_of_another_run: bool = False


def check_outputs(repository: Path) -> Iterator[str | ClipcifarError]:
    """Compare every output with what dvc.lock recorded.

    Args:
        repository: the root of the project.

    Yields:
        A DataError for what is harmed in the workspace, one for what only the cache has lost, each
        with the command that mends it, then what was read.
    """
    project = dvc_project.read(repository)
    examined = []
    with progress(total=len(project.outputs), unit="outputs", what="reading outputs") as bar:
        for output in project.outputs:
            examined.append(_examined(output, repository, project))
            bar.update()
    remote = remote_of(repository)
    others = [state for state in examined if state.is_of_another_run]
    harmed = [state for state in examined if state.harmed and state not in others]
    unkept = [state for state in examined if state.unkept and not state.harmed]
    if harmed:
        names = _some([name for state in harmed for name in state.harmed])
        there = [path for state in harmed if os.path.lexists(repository / (path := state.output.path))]
        mend, made_again = _mending(harmed, repository, remote)
        yield DataError(
            f"{names} missing or not what the stage made{made_again}",
            where=str(repository),
            fix=f"{_without_wrong(harmed)}{_remove(there)}{mend}",
        )
    if others:
        names = _some([str(state.output.path) for state in others])
        mend, made_again = _mending(others, repository, remote)
        yield DataError(
            f"{names} of another run than dvc.lock records{made_again}",
            where=str(repository),
            fix=f"{_without_wrong(others)}{mend}",
        )
    # A stale stage must not be committed, which would record old results as those of the edit.
    for states, command in (
        ([state for state in unkept if state.output.stage not in project.stale], "dvc commit"),
        ([state for state in unkept if state.output.stage in project.stale], "dvc repro"),
    ):
        if states:
            names = _some([name for state in states for name in state.unkept])
            targets = _stages(states)
            if command == "dvc repro" and remote and all(remote.may_hold(s.output.digest) for s in states):
                command, targets = (
                    "dvc fetch" + remote.option,
                    _paths([state.output.path for state in states]),
                )
            yield DataError(
                f"{names} missing or damaged in DVC's cache, and whole here",
                where=str(project.cache),
                fix=f"{_without_wrong(states)}{command} {targets}",
            )
    for lock in dict.fromkeys(output.lock for output in project.unrecorded):
        lost = [output for output in project.unrecorded if output.lock == lock]
        stages = " ".join(dict.fromkeys(output.stage for output in lost))
        is_study = lock.parent != Path()
        yield DataError(
            f"{_some([str(output.path) for output in lost])} here, and no run is recorded that made them",
            where=str(repository / lock),
            fix=f"clipcifar study {shlex.quote(lock.parent.name)}" if is_study else f"dvc repro {stages}",
        )
    count = len({output.stage for output in project.outputs})
    made = count_of(len(examined), "file or folder", "files and folders")
    yield f"{made} of {count_of(count, 'stage')}" if count else "no run is recorded yet"


def _examined(output: Output, repository: Path, project: Project) -> _State:
    path = repository / output.path
    digest = dvc_project.digest_of(path, repository)
    is_whole = digest == output.digest
    if not output.cached:
        return _State(output, [] if is_whole else [str(output.path)], [], [])
    objects = {str(output.path): output.digest}
    harmed = [] if is_whole else [str(output.path)]
    if output.digest.endswith(FOLDER):
        try:
            members = dvc_project.listing(project.object(output.digest))
        except DataError:
            members = {}
        inside = {str(output.path / name): digest for name, digest in members.items()}
        differing = [name for name, digest in inside.items() if _differs(repository / name, digest)]
        harmed = (differing or harmed) if harmed else []
        objects.update(inside)
    kept = {name: project.object(digest) for name, digest in objects.items()}
    unkept = [name for name, file in kept.items() if _differs(file, objects[name].removesuffix(FOLDER))]
    wrong = [kept[name] for name in unkept if kept[name].exists()]
    is_known = bool(digest) and not is_whole and holds(project.cache, digest)
    return _State(output, harmed, unkept, wrong, is_known)


def _mending(harmed: Sequence[_State], repository: Path, remote: Remote | None) -> tuple[str, str]:
    """The command that has outputs as they were, and a word about what a remote may lack.

    DVC's cache comes first, then a remote; the stages run again for what neither has.
    """
    by_path = {state.output.path: state for state in harmed if state.output.cached}
    command, rest = missing.restoring(
        {path: state.output.digest for path, state in by_path.items()},
        kept=[path for path, state in by_path.items() if not state.unkept],
        repository=repository,
    )
    again = _stages([state for state in harmed if not state.output.cached or state.output.path in rest])
    commands = [command] if command else []
    if again:
        commands.append(f"dvc repro {again}")
    word, lost = "", [state for state in harmed if state.unkept]
    if remote is not None and lost and remote.folder is None:
        word = f"; what {remote.called} lacks, `dvc repro {_stages(lost)}` makes again"
    elif remote is not None and rest:
        word = (
            f"; {remote.called} {'may have them for `dvc pull`' if remote.is_gone else 'has not all of them'}"
        )
    return " && ".join(commands), word


def _differs(path: Path, digest: str) -> bool:
    return not path.is_file() or dvc_project.md5(path) != digest


def _some(names: Sequence[str]) -> str:
    named = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")
    return f"{named} {'is' if len(names) == 1 else 'are'}"


def _without_wrong(states: Sequence[_State]) -> str:
    return _remove([file for state in states for file in state.wrong])


def _remove(paths: Sequence[Path]) -> str:
    """The beginning of a command."""
    return f"rm -rf {_paths(paths)} && " if paths else ""


def _paths(paths: Sequence[Path]) -> str:
    return " ".join(shlex.quote(str(path)) for path in paths)


def _stages(states: Sequence[_State]) -> str:
    return " ".join(dict.fromkeys(state.output.stage for state in states))
