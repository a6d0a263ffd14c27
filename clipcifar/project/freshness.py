"""Are results of the workspace of what lies there, and of params.yaml as it is? `state` says what decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from clipcifar.core import params
from clipcifar.core.errors import ConfigError, DataError
from clipcifar.project import dvc_cache, dvc_faults, dvc_project, lockfile, missing, sources
from clipcifar.project.state import Stale, State, mending
from clipcifar.store.places import SPLITS

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
    return list({reason.target: reason for reason in _stale(repository, state, results)}.values())


def stale_results(repository: Path, results: Mapping[str, str]) -> list[Stale]:
    """Those results of the workspace that are not of what lies here; their files are read.

    Args:
        repository: the folder of params.yaml, dvc.yaml and dvc.lock.
        results: by path, relative to it, what a person calls them; files that are missing are left out.

    Raises:
        ConfigError: params.yaml is not valid.
    """
    return _stale(repository, here(repository), results)


def _stale(repository: Path, state: State, results: Mapping[str, str]) -> list[Stale]:
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


def refuse_stale(repository: Path, results: Mapping[str, str]) -> list[str]:
    """Refuse what a verdict would rest on and is stale, naming what to run.

    Args:
        repository, results: as `stale_results` has them.

    Returns:
        Notes of results that nothing but code has changed since: their numbers are likely the same.

    Raises:
        ConfigError: something has changed since they were made.
        DataError: nothing has, and yet they are not the files that were made.
    """
    stale = stale_results(repository, results)
    wrong = [reason for reason in stale if not reason.is_of_other_code]
    if wrong:
        refusal = DataError if all(reason.is_other_file for reason in wrong) else ConfigError
        raise refusal("; ".join(reason.what for reason in wrong), fix=f"run `{mending(wrong)}`")
    return [str(reason) for reason in stale]


def refuse_without_train(repository: Path, asks: str) -> None:
    """Refuse what no run can bring on a dataset of test images alone, instead of naming a stage that fails.

    Args:
        asks: as in "linear_probe needs".

    Raises:
        DataError: the dataset that params.yaml asks for was prepared, and has no train or no val image.
    """
    from clipcifar.store.inputs import check_split  # h5py, which `show` does not wait for

    try:
        stale = stale_results(repository, {SPLITS: SPLITS})
    except ConfigError:  # what is wrong with params.yaml says whoever reads more of it
        return
    if not stale:
        check_split(repository / SPLITS, asks)


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
