"""Which shards a folder holds or lists, of which split, and what the classes are called."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from clipcifar.core.counts import count_of
from clipcifar.core.errors import DataError
from clipcifar.core.files import explained
from clipcifar.core.terminal import cut, one_line
from clipcifar.datasets.folder_entries import HIDDEN, is_hidden, kind_of, leading_out
from clipcifar.datasets.folder_layout import SPLIT_OF
from clipcifar.datasets.plain_files import is_utf8, shortened, unreadable
from clipcifar.datasets.source import SPLITS, LeftOut, Split
from clipcifar.datasets.tar_index import is_class_name
from clipcifar.datasets.tar_shards import PROTOCOLS, is_url

CLASSES = ("classes.txt", "classes.json")
_LAYOUTS = (
    "dataset.path must hold train/*.tar and test/*.tar, or lists of them, train.txt and test.txt, "
    "or only *.tar, of which a share is drawn for test; test alone is enough for zero-shot"
)
_LINE = re.compile(r"(?:([0-9a-fA-F]{64})[ \t]+\*?)?(\S.*)")
_NO_DIGEST = re.compile(r"[^\s/]{64}[ \t]+\S.*")
_WORD = re.compile("[a-z]+")
_COMPRESSED = re.compile(r".*\.(tar\.\w+|tgz|tbz2?|txz)", re.IGNORECASE)


class Listed(NamedTuple):
    """A shard: what the ids of its images begin with, where it is, and the sha256 that a list gives."""

    split: Split
    name: str
    place: str
    digest: str = ""


def listed(root: Path) -> tuple[list[Listed], list[LeftOut]]:
    """The shards of a folder in the order of splits, and what else lies there.

    Raises:
        DataError: a split is missing, or something cannot be a shard or cannot be told apart.
        EnvironmentFault: the folder is there and cannot be read.
    """
    shards, left_out, odd, splits = list[Listed](), list[LeftOut](), list[str](), dict[str, Split]()
    inside = os.path.realpath(root)

    def add(folder: Path) -> None:
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            path = Path(entry.path).relative_to(root).as_posix()
            is_top, top = "/" not in path, path.split("/")[0]
            split = SPLIT_OF.get((top.removesuffix(".txt") if is_top else top).lower(), "undivided")
            if is_hidden(entry.name):
                left_out.append(LeftOut(HIDDEN, path))
            elif entry.is_dir(follow_symlinks=False):
                add(Path(entry.path))
            elif problem := _unread(entry, inside):
                odd.append(f"{one_line(path)}: {problem}")
            elif is_top and path.endswith(".txt") and split != "undivided":
                splits[path] = split
                shards.extend(_of_list(Path(entry.path), split))
            elif is_top and _is_tar(entry.name) and SPLIT_OF.keys() & _WORD.findall(path.lower()):
                odd.append(f"{one_line(path)}: named after a split: put it into a folder of that name")
            elif _is_tar(entry.name) and (is_top or split != "undivided"):
                splits["*.tar" if is_top else top] = split
                shards.append(Listed(split, path, path))
            elif path not in CLASSES:
                left_out.append(LeftOut(kind_of(entry.name), path))

    with explained(root):
        add(root)
    if odd:
        raise DataError(
            f"{count_of(len(odd), 'file')} cannot be read as shards:\n    " + "\n    ".join(shortened(odd)),
            where=str(root),
            fix="put plain tar files there, or name them in a list, train.txt",
        )
    there, missing = {*splits.values()}, "test" if "test" not in splits.values() else "train"
    if len(splits) > len(there) or ("undivided" in there and len(there) > 1):
        what = f"{one_line(', '.join(splits))}: one split has two places, or shards lie beside the splits"
        raise DataError(what, where=str(root), fix=_LAYOUTS)
    if there not in ({"undivided"}, {"test"}) and missing not in there:
        what = f"there is only {' and '.join(sorted(there))}" if there else "no tar file lies there"
        raise DataError(f"no {missing} shards: {what}", where=str(root), fix=_LAYOUTS)
    read = {os.path.normpath(root / shard.place.removeprefix("file://")) for shard in shards}  # by a list
    left_out = [item for item in left_out if os.path.normpath(root / item.name) not in read]
    return sorted(shards, key=lambda shard: SPLITS.index(shard.split)), left_out


def _is_tar(name: str) -> bool:
    return name.lower().endswith(".tar")


def _unread(entry: os.DirEntry[str], inside: str) -> str:
    """Why a file is not read; nothing where it is."""
    if problem := unreadable(entry):
        return problem
    if not is_utf8(entry.name):
        return "its name is not UTF-8"
    if _COMPRESSED.fullmatch(entry.name):
        return "compressed, so that no image can be read by itself: unpack the compression"
    target = leading_out(entry.path, inside) if entry.is_symlink() else None
    return f"a symbolic link that leads out, to {one_line(str(target))}" if target else ""


def _of_list(path: Path, split: Split) -> list[Listed]:
    """The shards that a list names: a path or a URL a line, if need be behind its sha256."""
    shards: list[Listed] = []
    for number, line in enumerate(
        path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1
    ):
        if line.lstrip().startswith("#") or not (parts := _LINE.fullmatch(line.strip())):
            continue
        digest, place = (parts[1] or "").lower(), parts[2]
        what = "the 64 characters before its path are no sha256" if _NO_DIGEST.fullmatch(place) else ""
        what = what or (_refused_url(place) if is_url(place) else "")
        if not what and not _is_tar(place):
            what = f"{cut(one_line(place), 80)} is no .tar"
        if what:
            fix = "a line is a path or a URL of a plain tar file, if need be behind its sha256"
            raise DataError(f"line {number}: {what}", where=str(path), fix=fix)
        shards.append(Listed(split, f"{path.stem}/{PurePosixPath(place).name}", place, digest))
    if not shards:
        fix = "a line is a path or a URL of a plain tar file; or remove the list"
        raise DataError(f"no image of {split}: the list names no shard", where=str(path), fix=fix)
    doubled = [name for name, n in Counter(shard.name for shard in shards).items() if n > 1]
    if doubled:
        raise DataError(
            f"two shards of this list are called {one_line(PurePosixPath(doubled[0]).name)}, and an image's "
            "id begins with its shard's name",
            where=str(path),
            fix="list each shard once, and give each a name of its own",
        )
    return shards


def _refused_url(place: str) -> str:
    """Why a URL is not asked for; nothing where it is. What may be a key in it is not repeated."""
    scheme, _, rest = place.partition("://")
    if scheme not in PROTOCOLS:
        return f"{cut(one_line(scheme), 20)}:// is not read, but {', '.join(PROTOCOLS)}"
    if scheme != "file" and not rest.partition("/")[0]:
        return f"this {scheme}:// names no server or bucket"
    if "@" in rest.partition("/")[0] or "?" in rest or "#" in rest:
        return (
            f"this {scheme}:// holds a user, a password or a query; keys come from the environment alone: "
            "AWS_ACCESS_KEY_ID and the like, or ~/.netrc"
        )
    return ""


def classes_of(root: Path) -> list[str] | None:
    """The names in `classes.txt` or `classes.json`, in label order; None where neither is there.

    Raises:
        DataError: both are there, or a file holds no list of different names.
        EnvironmentFault: it cannot be read.
    """
    there = [root / name for name in CLASSES if (root / name).is_file()]
    if not there:
        return None
    path, names = there[0], list[str]()
    with explained(path):
        content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
        given = json.loads(text) if path.suffix == ".json" else list(filter(str.strip, text.split("\n")))
        if isinstance(given, dict):  # name: number, as torchvision has it
            number_of, given = given, sorted(given, key=given.__getitem__)
            given = given if [number_of[name] for name in given] == [*range(len(given))] else []
        names = [unicodedata.normalize("NFC", name.strip()) for name in given]
        good = all(map(is_class_name, names)) and 0 < len(names) == len(set(names))
    except (ValueError, RecursionError, TypeError, AttributeError):
        good = False
    if not good or len(there) > 1:
        raise DataError(
            f"{' and '.join(CLASSES)} are both there"
            if good
            else f"{path.name} holds no list of different names, short and without control characters",
            where=str(path),
            fix="classes.txt: a name a line, that of label 0 first; or classes.json: the same as a list, or "
            "each with its number from 0",
        )
    return names
