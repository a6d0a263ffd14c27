"""What DVC's cache holds of earlier runs, against the names of its objects: DVC hands them out unread."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from clipcifar.core import files
from clipcifar.core.counts import count_of
from clipcifar.core.errors import ClipcifarError, ConfigError, DataError
from clipcifar.core.progress import progress
from clipcifar.project import dvc_project, lockfile
from clipcifar.project.dvc_project import FOLDER, Project


def kept_objects(repository: Path, output: Path) -> dict[str, Path]:
    """The objects of DVC's cache that hold an output of the last run, by path in the repository; unread.

    They outlive the output itself, which DVC deletes before its stage runs, and are where DVC says: a
    workspace of `dvc exp run --temp` has no cache of its own, and a colleague's were fetched by `dvc pull`.

    Args:
        repository: the root of the project.
        output: a file or folder that a stage makes, or a file in such a folder; relative to the root.

    Returns:
        Of a file, itself; of a folder, its files. Nothing where no run is recorded, where DVC keeps
        nothing, or cannot be asked.

    Raises:
        EnvironmentFault: the cache is there and cannot be read.
    """
    recorded = lockfile.recorded_outputs(repository)
    made = next((path for path in (output, *output.parents) if path.as_posix() in recorded), None)
    if made is None:
        return {}
    digest = recorded[made.as_posix()]
    try:
        cache = dvc_project.cache_of(repository)
        digests = {made: digest}
        if digest.endswith(FOLDER):
            members = dvc_project.listing(dvc_project.object_path(cache, digest))
            digests = {made / name: md5 for name, md5 in members.items()}
        objects = {path: dvc_project.object_path(cache, md5) for path, md5 in digests.items()}
    except (ConfigError, DataError):  # of no DVC that can be asked; what is wrong with it, it says itself
        return {}
    return {
        path.as_posix(): kept
        for path, kept in objects.items()
        if output in (path, *path.parents) and kept.is_file()
    }


def kept_listing(repository: Path, digest: str) -> dict[str, str]:
    """The digests of a folder's files by path in it, as DVC's cache has them; empty where it has none."""
    try:
        return dvc_project.listing(dvc_project.object_path(dvc_project.cache_of(repository), digest))
    except ClipcifarError:
        return {}


def check(repository: Path) -> Iterator[str | ClipcifarError]:
    """Read every object that the current run does not use, and compare it with its name.

    Args:
        repository: the root of the project.

    Yields:
        A DataError with the mending command where some are damaged, then the size of the cache.

    Raises:
        EnvironmentFault: nothing can be written into the cache.
    """
    project = dvc_project.read(repository)
    if not project.cache.is_dir():
        yield f"{project.cache} is not made yet"
        return
    files.require_writable(project.cache)
    objects = sorted(path for path in project.cache.glob("[0-9a-f][0-9a-f]/*") if path.is_file())
    total = sum(path.stat().st_size for path in objects)
    used = set(_used(project))
    earlier = [path for path in objects if _digest(path) not in used]
    damaged = []
    with progress(total=len(earlier), unit="objects", what="reading earlier runs") as bar:
        for path in earlier:
            if dvc_project.md5(path) != _digest(path).removesuffix(FOLDER):
                damaged.append(path)
            bar.update()
    if damaged:
        yield DataError(
            f"{len(damaged):,} of {count_of(len(earlier), 'object')} of earlier runs damaged; what was there "
            "is made anew when it is needed",
            where=str(project.cache),
            fix="rm -f " + " ".join(shlex.quote(str(path)) for path in damaged),
        )
    yield f"{count_of(len(objects), 'object')}, {total / 1e6:,.0f} MB in {project.cache}"


def _digest(path: Path) -> str:
    return path.parent.name + path.name


def _used(project: Project) -> Iterator[str]:
    """The digests of all that DVC has in its care now and, of folders, of their files."""
    for digest in [*(output.digest for output in project.outputs), *project.others]:
        yield digest
        if digest.endswith(FOLDER):
            try:
                yield from dvc_project.listing(project.object(digest)).values()
            except DataError:
                continue  # `outputs` has told of it
