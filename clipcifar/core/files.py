"""Bytes on disk: canonical JSON, digests, and writes that leave either the old file or the new one."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from math import ceil, floor
from pathlib import Path
from typing import Any, BinaryIO, Literal

import platformdirs

from clipcifar.core import accounts
from clipcifar.core.errors import DataError, EnvironmentFault
from clipcifar.core.processes import is_running

_COPY_BYTES = 1 << 20
# Of a reading these say that there is no such file, or come from what a damaged one asks for.
_OF_THE_FILE = (None, errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EINVAL)
_WRITING_FIX = "check that the folder exists, can be written and has space left"
_MADE_BY = "run `dvc repro`, which makes it"
_RIGHTS_FIX = "give your account the right to it, or ask its owner"
_FIXES: dict[int | None, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, *_OF_THE_FILE), _WRITING_FIX),
    errno.EACCES: _RIGHTS_FIX,
    errno.EPERM: _RIGHTS_FIX,
    errno.ENOLCK: "use a file system that gives locks; CLIPCIFAR_CACHE may name another cache folder",
}
Attribute = str | int | float | bool  # what a file of ours says about itself, one value a name
CachePart = Literal["downloads", "embeddings", "extraction", "finetune", "models", "speeds"]


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no white space: equal values give equal text. NaN is a ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_of(value: Any) -> str:
    """Hex sha256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file, read in blocks."""
    return file_digest(path, "sha256")


def file_digest(path: Path, algorithm: Literal["sha256", "md5"]) -> str:
    """Hex digest of a file, read in blocks; EnvironmentFault where it cannot be read."""
    with explained(path), open(path, "rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def source_sha256(root: Path, *places: str) -> str:
    """Hex sha256 of code by its relative paths, for fingerprints that must change with it.

    Args:
        root: what the places are relative to.
        places: files, and folders with every module below them.
    """
    modules: set[Path] = set()
    for place in (root / name for name in places):
        modules.update(place.rglob("*.py") if place.is_dir() else [place])
    texts = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in modules}
    return sha256_of(texts)


def fault(error: OSError, path: Path | str) -> EnvironmentFault:
    """An OSError in words: the system's own, and what helps. It says nothing about what a file holds."""
    if error.errno == errno.ENOENT and os.path.islink(path):
        return EnvironmentFault(
            f"{path} is a link that leads nowhere: {os.readlink(path)}",
            where=str(path),
            fix="where DVC made it, run `dvc checkout`; else put the file where it leads, or remove the link",
        )
    unanswered = "see that its disk or network mount answers, then run again; the file itself may be whole"
    is_refused = isinstance(error, PermissionError)
    whom = accounts.whom_to_ask(Path(path), cache=cache_folder()) if is_refused else ""
    return EnvironmentFault(
        f"cannot use {path}: {error.strerror or error}",
        where=str(path),
        fix=whom or _FIXES.get(error.errno, unanswered),
    )


def fault_behind(error: BaseException, path: Path | str) -> EnvironmentFault | None:
    """The fault of the surroundings that made a reading fail; None where the file is missing, or is to blame.

    Libraries raise OSErrors of their own on damaged input, without a number, and hide the system's behind
    others of theirs.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno not in _OF_THE_FILE:
            return fault(cause, path)
        cause = cause.__cause__ or cause.__context__
    return None


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError on `path` into an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise fault(error, path) from error


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a temporary file beside `path`, force it to disk, and give it its name.

    Raises:
        EnvironmentFault: the disk is full, read-only or broken; `path` is the whole old or whole new file.
    """
    with placing(path, len(content)) as stream:
        stream.write(content)


@contextmanager
def placing(path: Path, num_bytes: int) -> Iterator[BinaryIO]:
    """A stream whose bytes get the name `path` when all of them are on disk, and else leave nothing."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        require_space(path.parent, num_bytes)
        # Not by tempfile, whose files are private: umask and the folder's ACL say who may read and write it.
        temporary = path.with_name(f".{path.name}.{host()}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        try:
            with open(temporary, "x+b") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def _remove_leftovers(path: Path) -> None:
    """Delete temporary files that killed processes left beside `path`; those of living ones stay."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if is_abandoned(leftover):
            with suppress(PermissionError):  # another account's, in a folder where each deletes its own
                leftover.unlink(missing_ok=True)


def is_abandoned(temporary: Path) -> bool:
    """Whether a temporary file (.<name>.<host>.<process>.<random>.tmp) is of a process here that has died.

    Of a process on another machine, which writes into a folder that both share, nobody here can say.
    """
    where, writer = temporary.name.split(".")[-4:-2] if temporary.name.count(".") > 4 else ("", "")
    return where == host() and writer.isdecimal() and not is_running(int(writer))


def host() -> str:
    """The name of this machine, without what separates the parts of a temporary file's name."""
    return re.sub(r"[^\w-]", "-", platform.node()) or "here"


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; systems that cannot open a folder have nothing to sync."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def require_space(folder: Path, num_bytes: int) -> None:
    """Raise EnvironmentFault when `folder` has less than `num_bytes` free."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise EnvironmentFault(
            f"needs {ceil(num_bytes / 1e5) / 10:,.1f} MB, has {floor(free / 1e5) / 10:,.1f} MB at {folder}",
            where=str(folder),
            fix="free some space; if it is the cache folder, CLIPCIFAR_CACHE may name another",
        )


def require_writable(folder: Path) -> None:
    """Raise EnvironmentFault when no file can be made in `folder`, before any long work starts."""
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def copy_file(source: Path, target: Path) -> None:
    """Copy a file as `write_atomically` would write it, and with the same errors."""
    with (
        explained(source),
        open(source, "rb") as content,
        placing(target, os.fstat(content.fileno()).st_size) as stream,
    ):
        while block := _read(content, source):
            stream.write(block)


def _read(content: BinaryIO, source: Path) -> bytes:
    with explained(source):  # else it would be told of the file that is being written
        return content.read(_COPY_BYTES)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write readable JSON atomically, keys in the order given. NaN is a ValueError."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file of ours.

    Raises:
        DataError: it is missing or is not JSON.
        EnvironmentFault: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"there is no {path.name}", where=str(path), fix=_MADE_BY) from error
    except (OSError, ValueError, RecursionError) as error:
        raise fault_behind(error, path) or DataError(
            f"cannot read {path}: {error}", where=str(path), fix=_MADE_BY
        ) from error


def cache_folder(name: CachePart | None = None) -> Path:
    """Where work that may be deleted lives: `CLIPCIFAR_CACHE`, or the platform's user cache folder.

    Args:
        name: of a folder in it.
    """
    root = Path(os.environ.get("CLIPCIFAR_CACHE") or platformdirs.user_cache_dir("clipcifar"))
    return root / name if name else root
