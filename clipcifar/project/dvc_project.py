"""What DVC knows of the project, without a change to anything: outputs, sources, where its cache is."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from clipcifar.core.errors import ClipcifarError, ConfigError, DataError, EnvironmentFault

FOLDER = ".dir"  # how the digest of a folder ends: that of a listing of its files
_DATABASE = b"SQLite format 3\0"
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
    """Everything of the project that DVC knows of.

    Attributes:
        outputs: those that dvc.lock records.
        unrecorded: the others, if they are there all the same; their digest is empty.
        stale: the stages of which something that they depend on has changed since they ran.
        sources: the files and folders that stages need and none makes.
        cache: the folder of objects.
    """

    outputs: list[Output]
    unrecorded: list[Output]
    stale: set[str]
    sources: list[Path]
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
        raise _explained(error, repository) from error


def read(repository: Path) -> Project:
    """Ask DVC.

    Args:
        repository: the root of the git and DVC repository.

    Raises:
        ClipcifarError: DVC cannot read its files, with the command that mends it.
    """
    from dvc.repo import Repo

    try:
        with Repo(str(repository)) as repo:
            check_notes(repository, Path(repo.tmp_dir), Path(repo.site_cache_dir))
            outputs = [_output(out, repository) for out in repo.index.outs]
            made = {repository / output.path for output in outputs}
            needed = [Path(dep.fs_path) for dep in repo.index.deps if dep.fs_path]
            return Project(
                [output for output in outputs if output.digest],
                [o for o in outputs if not o.digest and (repository / o.path).exists()],
                {
                    _target(stage, repository)
                    for stage in repo.index.stages
                    if any(dep.workspace_status() for dep in stage.deps)
                },
                [path for path in dict.fromkeys(needed) if not made & {path, *path.parents}],
                Path(repo.cache.local.path),
            )
    except ClipcifarError:
        raise
    except Exception as error:  # on some values in params.yaml DVC fails with an AssertionError
        raise _explained(error, repository) from error


def _output(out: Any, repository: Path) -> Output:
    digest = str(out.hash_info.value) if out.hash_info else ""
    path = Path(out.fs_path).relative_to(repository)
    return Output(path, _target(out.stage, repository), digest, out.use_cache)


def _target(stage: Any, repository: Path) -> str:
    """What `dvc repro` calls a stage: its name, with the file before it where that is a study's."""
    described = Path(stage.path).relative_to(repository).as_posix()
    return str(stage.name) if described == "dvc.yaml" else f"{described}:{stage.name}"


def _explained(error: Exception, repository: Path) -> ConfigError:
    from dvc.config import ConfigError as SettingsError
    from dvc.exceptions import NotDvcRepoError
    from dvc.scm import SCMError

    said = f"DVC says: {error}" if str(error) else f"DVC fails without a word ({type(error).__name__})"
    path = PurePosixPath(getattr(error, "path", None) or "")
    ends = [Path(*path.parts[i:]) for i in range(len(path.parts)) if path.parts[i] not in ("/", "..")]
    # DVC names it from where it was started, or in full.
    file = next((end for end in ends if (repository / end).is_file()), Path(path.name))
    quoted = shlex.quote(file.as_posix())
    if isinstance(error, SCMError):
        fix = "git init && git add --all && git commit --message start"
    elif isinstance(error, NotDvcRepoError | SettingsError):
        fix = "git checkout HEAD -- .dvc"
    elif file.name == "dvc.lock":
        again = "dvc repro" if file.parent == Path() else f"clipcifar study {shlex.quote(file.parent.name)}"
        fix = f"rm {quoted} && {again}"  # DVC remembers its runs elsewhere too
    elif file.name == "dvc.yaml":
        fix = f"git checkout HEAD -- {quoted}"
    else:
        fix = "mend params.yaml, whose values stand in dvc.yaml; else git checkout HEAD -- dvc.yaml"
    return ConfigError(said, where=str(repository / file), fix=fix)


def check_notes(repository: Path, temporary: Path, elsewhere: Path) -> None:
    """Raise EnvironmentFault where a killed run or a full disk has left DVC's own notes unreadable."""
    from dvc.rwlock import RWLOCK_FILE, SCHEMA
    from voluptuous import Invalid

    notes = temporary / RWLOCK_FILE
    try:
        if notes.is_file():
            SCHEMA(json.loads(notes.read_bytes()))
    except (ValueError, Invalid) as error:
        raise EnvironmentFault(
            "DVC's note of who reads and writes what is damaged",
            where=str(notes),
            fix=f"rm {shlex.quote(str(notes.relative_to(repository)))}",
        ) from error
    for path in elsewhere.rglob("*.db"):
        with open(path, "rb") as stream:
            if stream.read(len(_DATABASE)) not in (_DATABASE, b""):
                raise EnvironmentFault(
                    "DVC's note of which files it has hashed is damaged",
                    where=str(path),
                    fix=f"rm -rf {shlex.quote(str(elsewhere))}",
                )


def md5(path: Path) -> str:
    """Hex md5 of a file, as DVC names it."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def digest_of(path: Path) -> str:
    """The digest that DVC would record for a file or a folder now; the empty text where there is neither."""
    if path.is_file():
        return md5(path)
    return digest_of_members(members_of(path)) if path.is_dir() else ""


def members_of(folder: Path) -> dict[str, str]:
    """The digests of all files in a folder, by path in it."""
    return {
        member.relative_to(folder).as_posix(): md5(member) for member in folder.rglob("*") if member.is_file()
    }


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
            deps = [dep for dep in repo.index.deps if dep.fs_path and Path(dep.fs_path) == repository / path]
            return str(deps[0].get_hash().value) != digest if deps else True
    except Exception as error:  # as in `read`
        raise _explained(error, repository) from error


def listing(path: Path) -> dict[str, str]:
    """The names of a folder's files with their digests, as its object in the cache has them.

    Raises:
        DataError: it is no such listing.
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
        raise DataError(f"not the listing of a folder: {error}", where=str(path)) from error
