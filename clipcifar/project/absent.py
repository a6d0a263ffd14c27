"""Why a file of another revision cannot be read, in words, and how to have it again."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from clipcifar.core.errors import ClipcifarError, ConfigError, DataError
from clipcifar.project import dvc_project, lockfile
from clipcifar.project.remote import Remote, remote_of

_COMMIT = "`git add --all && git commit -m baseline`"


def explained(
    error: Exception, repository: Path, revision: str, path: str, *, read: Callable[[str], bytes]
) -> ClipcifarError:
    """The error to raise instead of DVC's own, which names neither the cache nor the remote.

    A name that stands for no run is a ConfigError; a run whose file is lost, a DataError.

    Args:
        error: what reading the file came to.
        repository: the root of the project.
        revision: a commit, branch, tag or experiment name.
        path: of the file, relative to the root.
        read: reads another file of that revision.
    """
    from dvc.exceptions import DvcException
    from dvc.scm import SCMError
    from scmrepo.exceptions import SCMError as GitError

    where = f"{revision}:{path}"  # as git writes it
    if begin := _how_to_begin(repository):
        return ConfigError(
            f"there is no commit {revision!r} here, nor a branch, tag or experiment: git has no commit of "
            "this project",
            where=str(repository),
            fix=f"{begin} makes one, which later runs can be compared with",
        )
    if isinstance(error, SCMError | GitError):
        return ConfigError(
            f"there is no commit, branch, tag or experiment {revision!r} here: {error}",
            where=where,
            fix="name one that `git log` or `dvc exp list` knows; those of others come by `git fetch` and "
            "`dvc exp pull`; a queued run that waits or has failed is none yet (`dvc queue status`)",
        )
    try:
        runs = lockfile.recorded_runs(read, ["dvc.lock"]).values()
        digest = next(run.outs[path].digest for run in runs if path in run.outs)
        kept = dvc_project.object_path(dvc_project.cache_of(repository), digest)
    except ClipcifarError as unreadable:
        return ConfigError(
            f"cannot read {path} of {revision!r}: {unreadable.what}", where=where, fix=unreadable.fix
        )
    except DvcException as broken:  # there is no repository of DVC's, for one
        return ConfigError(
            f"cannot read {path} of {revision!r}: {broken}",
            where=where,
            fix="run `clipcifar doctor`, which says how to mend it",
        )
    except Exception:  # no dvc.lock, or none that names it
        return ConfigError(
            f"no run that made {path} is recorded in the dvc.lock of {revision!r}",
            where=where,
            fix="name a commit in which a run's dvc.lock was committed, or commit a finished run now: "
            f"{_COMMIT}",
        )
    if kept.is_file():
        return ConfigError(
            f"DVC cannot read {path} of {revision!r}, which its cache holds: {error}",
            where=where,
            fix="name another commit, one whose params.yaml and dvc.yaml DVC can read",
        )
    again, remote = _again(repository, revision, path), remote_of(repository)
    if remote is None:
        return DataError(
            f"{path} of {revision!r} is not in DVC's cache, and DVC has no remote to ask: it was made "
            "elsewhere, or `dvc gc` deleted it",
            where=str(kept),
            fix=f"name another commit, or have it pushed to a remote where it was made; {again}",
        )
    fetch = f"`dvc fetch --all-commits{remote.option}`"
    if _is_older(remote, read):
        default = " --default" if remote.is_default else ""
        place = f"{shlex.quote(remote.name)} {shlex.quote(remote.url)}"
        fetch += (
            f" (first `dvc remote add --local{default} {place}`, since that commit is older than the "
            "remote and DVC goes by the settings of each commit)"
        )
    if remote.folder is None:
        why, fix = f"was not to be had from {remote.called}: {error}", f"run {fetch}"
    elif remote.is_gone:
        why, fix = f"not in {remote.called}", f"mount it or tell DVC where it is now, and run {fetch}"
    else:
        why = f"not in {remote.called}: it was never pushed, or `dvc gc` deleted it"
        fix = f"run `dvc push --all-commits` where it was made and here {fetch}"
    return DataError(
        f"{path} of {revision!r} is not in DVC's cache and {why}",
        where=str(kept),
        fix=f"{fix}; {again}",
    )


def _how_to_begin(repository: Path) -> str:
    """The commands of a first commit; nothing where there is one, or DVC cannot say."""
    from dvc.repo import Repo

    begin = "" if shutil.which("git") else "install git: "
    if not any((at / ".git").exists() for at in (repository, *repository.parents)):
        return f"{begin}`git init`, then after a run {_COMMIT}"
    with suppress(Exception), Repo(str(repository)) as repo:  # as in `explained`, which tells it then
        return f"{begin}after a run {_COMMIT}" if getattr(repo.scm, "no_commits", False) else ""
    return ""


def _is_older(remote: Remote, read: Callable[[str], bytes]) -> bool:
    """Whether a revision knows no such remote: `dvc push` and `dvc fetch` leave all of it out then."""
    try:
        return remote.in_git and f'remote "{remote.name}"' not in read(".dvc/config").decode()
    except Exception:  # as in `explained`; then nothing is said of it
        return False


def _again(repository: Path, revision: str, path: str) -> str:
    """How to make a file of a revision in a folder of its own, into the cache of this one."""
    stage, commit = shlex.quote(Path(path).stem), _commit(repository, revision)
    try:
        cache = dvc_project.cache_of(repository).parents[1]
    except ClipcifarError:
        cache = repository / ".dvc" / "cache"
    place = f"`dvc cache dir --local {shlex.quote(str(cache))}`"
    root = next((at for at in (repository, *repository.parents) if (at / ".git").exists()), repository)
    tree = root.parent / "again"  # beside git's own root, which may lie above the project
    folder = shlex.quote(os.path.relpath(tree / repository.relative_to(root), repository))
    return (
        f"else make it again: `git worktree add {shlex.quote(os.path.relpath(tree, repository))} {commit}`, "
        f"in {folder} {place} and `dvc repro {stage}` "
        "(if that changes dvc.lock, commit it and name that commit)"
    )


def _commit(repository: Path, revision: str) -> str:
    """The digest of a commit: git knows no experiment by name, and gives no branch to two worktrees."""
    from dvc.repo import Repo
    from dvc.scm import resolve_rev

    with Repo(str(repository)) as repo:
        return str(resolve_rev(repo.scm, revision))[:12]
