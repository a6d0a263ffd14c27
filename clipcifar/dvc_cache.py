"""DVC's cache against the names of its objects: DVC itself hands out what lies there unread."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipcifar.errors import ClipcifarError, ConfigError, DataError
from clipcifar.progress import progress

_FOLDER = ".dir"  # how the name of a folder's listing ends


@dataclass(frozen=True)
class _Use:
    """Where the current run has an object: the stage, its output, and the file in the workspace."""

    stage: str
    output: Path
    file: Path


def check(repository: Path) -> Iterator[str | ClipcifarError]:
    """Read every object of the cache and compare it with its name.

    Args:
        repository: the root of the git and DVC repository.

    Yields:
        A DataError with the mending command for each damaged object and for each output of the
        current run that has none, then what was read.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(repository)) as repo:
            cache = Path(repo.cache.local.path)
            outputs = [out for out in repo.index.outs if out.use_cache and out.hash_info]
            uses = dict(_uses(outputs, cache))
    except DvcException as error:
        raise ConfigError(f"DVC says: {error}", where=str(repository), fix="dvc init") from error
    objects = sorted(path for path in cache.glob("[0-9a-f][0-9a-f]/*") if path.is_file())
    total = sum(path.stat().st_size for path in objects)
    with progress(total=total, unit="B", what="reading DVC's cache") as bar:
        for path in objects:
            name = path.parent.name + path.name
            if _md5(path) != name.removesuffix(_FOLDER):
                yield _damaged(path, uses.get(name))
            bar.update(path.stat().st_size)
    held = {path.parent.name + path.name for path in objects}
    for name, use in uses.items():
        if name not in held:
            yield DataError(
                f"DVC's cache has lost {use.file}",
                where=str(cache),
                fix=_anew(use, name),
            )
    yield f"{len(objects):,} objects, {total / 1e6:,.0f} MB in {cache}"


def _uses(outputs: list[Any], cache: Path) -> Iterator[tuple[str, _Use]]:
    for out in outputs:
        name, path = str(out.hash_info.value), Path(out.fs_path)
        stage = getattr(out.stage, "name", None) or out.stage.addressing
        yield name, _Use(stage, path, path)
        for member in _listing(cache / name[:2] / name[2:]) if name.endswith(_FOLDER) else ():
            yield member["md5"], _Use(stage, path, path / member["relpath"])


def _listing(path: Path) -> list[dict[str, str]]:
    """The files of a folder; none where the listing itself is damaged, which is found anyway."""
    try:
        members = json.loads(path.read_text(encoding="utf-8"))
        return [{key: str(member[key]) for key in ("md5", "relpath")} for member in members]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _damaged(path: Path, use: _Use | None) -> DataError:
    name = path.parent.name + path.name
    remove = f"rm -f {shlex.quote(str(path))}"
    if use is None:
        return DataError(
            "an object of DVC's cache that only an earlier run used is damaged", where=str(path), fix=remove
        )
    return DataError(
        f"DVC's copy of {use.file} is damaged", where=str(path), fix=f"{remove} && {_anew(use, name)}"
    )


def _anew(use: _Use, name: str) -> str:
    """The command that fills the cache again: from the workspace if that is whole, else by the stage."""
    stage = shlex.quote(use.stage)
    if name.endswith(_FOLDER) or (use.file.is_file() and _md5(use.file) == name):
        return f"dvc commit --force {stage}"
    return f"rm -rf {shlex.quote(str(use.output))} && dvc repro {stage}"


def _md5(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
