"""Are results of the workspace of what lies there, and of params.yaml as it is? `state` says what decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from clipcifar.core import params
from clipcifar.project import dvc_cache, dvc_faults, dvc_project, lockfile, missing, sources
from clipcifar.project.state import Stale, State

HASHED = 256_000_000  # bytes, of an output that is read for its digest in less than half a second


def here(repository: Path) -> State:
    """The state of the workspace.

    Raises:
        ConfigError: params.yaml is not valid.
    """
    repository = repository.resolve()  # as DVC names sources
    settings = params.load(repository / "params.yaml")
    read, files_of = lockfile.reader(repository), lockfile.files_of

    def listing(path: str, digest: str) -> Mapping[str, str]:
        members = dvc_project.members_of(repository / path, repository)  # which DVC need not be asked for
        if dvc_project.digest_of_members(members) == digest:
            return members
        return dvc_cache.kept_listing(repository, digest)

    return State(
        settings,
        lockfile.asked_stages(read, files_of(repository, "dvc.yaml"), settings),
        lockfile.recorded_runs(read, files_of(repository, "dvc.lock")),
        source_changed=lambda path, recorded: sources.changed(repository, path, recorded),
        listing=listing,
    )


def stale_inputs(repository: Path, output: Path) -> list[Stale]:
    """What a stage that is running now was given, and is not of what lies here, by the stage that made it.

    DVC brings all of it up to date first, unless it is told to run a single stage.

    Args:
        repository: the folder of params.yaml, dvc.yaml and dvc.lock.
        output: that the running stage makes.
    """
    state = here(repository)
    running = [asked for asked in state.asked.values() if output.as_posix() in asked.outs]
    makers = {path: state.maker(path) for asked in running for path in asked.deps}
    results = {path: target.rpartition(":")[2] for path, target in makers.items() if target}
    return list({reason.target: reason for reason in stale_results(repository, results)}.values())


def stale_results(repository: Path, results: Mapping[str, str]) -> list[Stale]:
    """Those results of the workspace that are not of what lies here; their files are read.

    Args:
        repository: the folder of params.yaml, dvc.yaml and dvc.lock.
        results: by path, relative to it, what a person calls them; files that are missing are left out.

    Raises:
        ConfigError: params.yaml is not valid.
    """
    state = here(repository)
    stale = []
    for path, name in results.items():
        if not (repository / path).exists():
            continue
        reason = state.stale(path, name)
        if reason is None and _is_other_file(repository, state, path):
            target, made = state.maker(path), state.made(path) or path
            brought_by = (bring, made) if (bring := missing.bringing(repository, Path(made))) else None
            reason = Stale(name, target, [])
            reason = replace(reason, brought_by=brought_by or reason.command)
        if reason and not state.maker(path) and _is_damaged(repository / "dvc.lock"):
            mended = dvc_faults.without_lock(repository, Path("dvc.lock"))
            reason = replace(reason, target="", brought_by=(mended, ""))
        stale += [reason] if reason else []
    return list({str(reason): reason for reason in stale}.values())


def _is_damaged(lock: Path) -> bool:
    """Whether a merge's marks, or a kill, have left a dvc.lock that cannot be read."""
    return lock.exists() and not lockfile.stages_in(lock)


def _is_other_file(repository: Path, state: State, path: str) -> bool:
    made = state.made(path)
    if made is None:
        return False
    is_whole = path == made
    size = state.runs[state.maker(path)].outs[made].size if is_whole else (repository / path).stat().st_size
    if size > HASHED:
        return False  # of weights and archives their readers ask
    # Of a folder that is not the recorded one, and whose listing was not fetched, no file is known to be.
    return state.recorded(path) != dvc_project.digest_of(repository / path, repository)
