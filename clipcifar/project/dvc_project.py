"""What DVC knows of the project, without a change to anything: outputs, sources, where its cache is."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from clipcifar.core.errors import ClipcifarError, DataError
from clipcifar.core.files import explained, fault_behind
from clipcifar.project import dvc_faults
from clipcifar.project.counted import files_in

FOLDER = ".dir"  # how the digest of a folder ends: that of a listing of its files
_DIGEST = re.compile(r"[0-9a-f]{32}(\.dir)?")


@dataclass(frozen=True)
class Output:
    """A file or folder that a stage made.

    Attributes:
        path: relative to the repository.
        stage: what made it, as a target of `dvc repro`.
        digest: its md5 as recorded in dvc.lock, that of a folder with `FOLDER` behind it.
        cached: whether DVC keeps a copy; git keeps the others.
    """

    path: Path
    stage: str
    digest: str
    cached: bool

    @property
    def lock(self) -> Path:
        """The file that records its stage's runs, relative to the repository."""
        return (
            Path(self.stage.rpartition(":")[0]).with_name("dvc.lock")
            if ":" in self.stage
            else Path("dvc.lock")
        )


@dataclass(frozen=True)
class Project:
    """Everything of the project that DVC knows of. DVC's own root, and git's, may be folders above it.

    Attributes:
        outputs: those that dvc.lock records.
        unrecorded: the others, if they are there all the same; their digest is empty.
        stale: the stages of which something that they depend on has changed since they ran.
        sources: the files and folders that stages need and none makes.
        added: what `dvc add` has put into DVC's care, by the .dvc file's path from the project.
        others: the digests of that, and of what other projects of the same DVC repository made.
        cache: the folder of objects.
    """

    outputs: list[Output]
    unrecorded: list[Output]
    stale: set[str]
    sources: list[Path]
    added: dict[str, Path]
    others: list[str]
    cache: Path

    def object(self, digest: str) -> Path:
        """Where the cache keeps the content of that digest."""
        return object_path(self.cache, digest)


def object_path(cache: Path, digest: str) -> Path:
    """Where a cache keeps the content of a digest.

    Raises:
        DataError: it is none. dvc.lock and listings may be anybody's, and a path could begin anew in them.
    """
    if not _DIGEST.fullmatch(digest):
        raise DataError(
            f"not a digest of DVC's: {digest!r}",
            where="dvc.lock, or a listing in DVC's cache",
            fix="git checkout HEAD -- dvc.lock, or remove it and run `dvc repro`",
        )
    return cache / digest[:2] / digest[2:]


def cache_of(repository: Path) -> Path:
    """The folder of DVC's objects.

    Raises:
        ConfigError: DVC cannot read its settings, or this is no repository of its.
    """
    from dvc.repo import Repo

    try:
        with Repo(str(repository)) as repo:
            return Path(repo.cache.local.path)
    except Exception as error:  # as in `read`
        raise dvc_faults.explained(error, repository) from error


def read(repository: Path) -> Project:
    """Ask DVC.

    Args:
        repository: the root of the project.

    Raises:
        ClipcifarError: DVC cannot read its files, with the command that mends it.
    """
    from dvc.repo import Repo

    try:
        with Repo(str(repository)) as repo:
            dvc_faults.check_notes(repository, Path(repo.tmp_dir), Path(repo.site_cache_dir))
            stages = [stage for stage in repo.index.stages if _is_ours(stage, repository)]
            outputs = [_output(out, repository) for stage in stages for out in stage.outs]
            made = {repository / output.path for output in outputs}
            needed = [Path(dep.fs_path) for stage in stages for dep in stage.deps if dep.fs_path]
            added = [stage for stage in repo.index.stages if stage.is_data_source]
            others = [out for stage in repo.index.stages if stage not in stages for out in stage.outs]
            return Project(
                [output for output in outputs if output.digest],
                [o for o in outputs if not o.digest and (repository / o.path).exists()],
                {
                    _target(stage, repository)
                    for stage in stages
                    if any(_has_changed(dep) for dep in stage.deps)
                },
                [path for path in dict.fromkeys(needed) if not made & {path, *path.parents}],
                {
                    os.path.relpath(stage.path, repository): Path(out.fs_path)
                    for stage in added
                    for out in stage.outs
                },
                [str(out.hash_info.value) for out in others if out.hash_info],
                Path(repo.cache.local.path),
            )
    except ClipcifarError:
        raise
    except Exception as error:  # on some values in params.yaml DVC fails with an AssertionError
        raise dvc_faults.explained(error, repository) from error


def _has_changed(dep: Any) -> bool:
    """Whether a dependency is not what was recorded; a link into a cache that is gone DVC cannot read."""
    try:
        return bool(dep.workspace_status())
    except FileNotFoundError as error:
        if error.filename and os.path.islink(error.filename):
            return True
        raise


def inside(repo: Any, repository: Path) -> Path:
    """Where in a DVC repository the project is."""
    return Path(os.path.relpath(repository, repo.root_dir))


def _is_ours(stage: Any, repository: Path) -> bool:
    """Whether it is a stage of a dvc.yaml of this project."""
    return Path(stage.path).is_relative_to(repository) and not stage.is_data_source


def _output(out: Any, repository: Path) -> Output:
    digest = str(out.hash_info.value) if out.hash_info else ""
    path = Path(out.fs_path).relative_to(repository)
    return Output(path, _target(out.stage, repository), digest, out.use_cache)


def _target(stage: Any, repository: Path) -> str:
    """What `dvc repro` calls a stage: its name, with the file before it where that is a study's."""
    described = Path(stage.path).relative_to(repository).as_posix()
    return str(stage.name) if described == "dvc.yaml" else f"{described}:{stage.name}"


def md5(path: Path) -> str:
    """Hex md5 of a file, as DVC names it; EnvironmentFault where it cannot be read."""
    with explained(path), open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def digest_of(path: Path, repository: Path) -> str:
    """The digest that DVC would record for a file or a folder now; the empty text where there is neither."""
    if path.is_file():
        return md5(path)
    return digest_of_members(members_of(path, repository)) if path.is_dir() else ""


def members_of(folder: Path, repository: Path) -> dict[str, str]:
    """The digests of the files in a folder that DVC counts, by path in it."""
    files = map(Path, files_in(folder, repository))
    return {file.relative_to(folder).as_posix(): md5(file) for file in files}


def digest_of_members(digests: Mapping[str, str]) -> str:
    """The digest of a folder, from those of its files by path in it."""
    listing = [{"md5": digests[name], "relpath": name} for name in sorted(digests)]
    text = json.dumps(listing, sort_keys=True).encode()
    return hashlib.md5(text, usedforsecurity=False).hexdigest() + FOLDER


def differs_from(repository: Path, path: str, digest: str) -> bool:
    """Whether DVC finds another digest than that of what a stage needs; it remembers what it hashed."""
    from dvc.repo import Repo

    try:
        with Repo(str(repository)) as repo:
            source = os.path.normpath(repository / path)
            deps = [dep for dep in repo.index.deps if dep.fs_path and os.path.normpath(dep.fs_path) == source]
            return str(deps[0].get_hash().value) != digest if deps else True
    except Exception as error:  # as in `read`
        raise dvc_faults.explained(error, repository) from error


def listing(path: Path) -> dict[str, str]:
    """The names of a folder's files with their digests, as its object in the cache has them.

    Raises:
        DataError: it is no such listing, or not there.
        EnvironmentFault: it is there and cannot be read.
    """
    try:
        members = json.loads(path.read_text(encoding="utf-8"))
        digests = {str(member["relpath"]): str(member["md5"]) for member in members}
        if not all(_DIGEST.fullmatch(digest) for digest in digests.values()):
            raise ValueError("a digest is none")
        if any(PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts for name in digests):
            raise ValueError("a file lies outside the folder")
        return digests
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise fault_behind(error, path) or DataError(
            f"not the listing of a folder: {error}", where=str(path)
        ) from error
