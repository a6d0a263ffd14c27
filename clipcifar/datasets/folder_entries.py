"""Everything below a folder, and those files of it that should be images, in arrays: none is an object."""

from __future__ import annotations

import os
from array import array
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.links import is_filed
from clipcifar.core.terminal import one_line
from clipcifar.datasets.decode import SUFFIXES
from clipcifar.datasets.plain_files import unreadable
from clipcifar.datasets.source import SPLITS, LeftOut, LeftOuts, Split
from clipcifar.store.names import Gathered, blocks_of

# What systems leave behind, besides names that begin with a dot.
_LITTER = frozenset({"__macosx", "@eadir", "thumbs.db", "desktop.ini"})
HIDDEN = "hidden"


class Candidate(NamedTuple):
    """A file that should be an image; its path relative to the root is also its id."""

    split: Split
    class_name: str
    path: str


class Candidates:
    """The files of a folder that should be images, sorted split by split.

    Args:
        paths: (N,) bytes of the file system, relative to the root.
        rows: of those that are candidates.
        splits: the index in `SPLITS` of each of these.
        classes: the index in `class_names` of each of these.
    """

    def __init__(
        self,
        paths: NDArray[np.bytes_],
        rows: array[int],
        splits: array[int],
        classes: array[int],
        class_names: list[str],
    ) -> None:
        chosen, split = np.array(rows, dtype=np.int64), np.array(splits, dtype=np.int8)
        order = np.lexsort((paths[chosen], split))
        self._paths, self._rows, self._splits = paths, chosen[order], split[order]
        self._classes, self._names = np.array(classes, dtype=np.int32)[order], class_names

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def splits(self) -> set[Split]:
        """Those that hold any."""
        return {SPLITS[split] for split in np.unique(self._splits).tolist()}

    @property
    def paths(self) -> Iterator[str]:
        """The paths alone."""
        for rows in blocks_of(self._rows):
            yield from map(os.fsdecode, self._paths[rows].tolist())

    def __iter__(self) -> Iterator[Candidate]:
        for path, split, of_class in zip(self.paths, self._splits, self._classes, strict=True):
            yield Candidate(SPLITS[split], self._names[of_class], path)


@dataclass
class Entries:
    """Everything below a folder.

    Attributes:
        files: their paths relative to it, as the file system has them.
        folders: their paths in parts, sorted.
        odd: a line for each entry that is neither, or that leads out.
        left_out: hidden files and folders.
    """

    files: Gathered = field(default_factory=Gathered)
    folders: list[tuple[str, ...]] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    left_out: LeftOuts = field(default_factory=LeftOuts)


def entries_of(root: Path, *, ours: Collection[str] = ()) -> Entries:
    """List what lies below a folder.

    Args:
        ours: names of files at the top that are passed over.

    Raises:
        OSError: a folder cannot be listed.
    """
    entries, inside = Entries(), os.path.realpath(root)
    to_list: list[tuple[str, ...]] = [()]
    while to_list:
        parents = to_list.pop()
        with os.scandir(os.path.join(root, *parents)) as scanned:
            for entry in scanned:
                parts = (*parents, entry.name)
                if is_hidden(entry.name):
                    entries.left_out.add(LeftOut(HIDDEN, "/".join(parts)))
                elif entry.is_dir(follow_symlinks=False):
                    to_list.append(parts)
                elif problem := unreadable(entry) or _leading(entry, inside):
                    entries.odd.append(f"{one_line('/'.join(parts))}: {problem}")
                elif parents or entry.name not in ours:
                    entries.files.append(os.fsencode("/".join(parts)))
        entries.folders += [parents] if parents else []
    entries.folders.sort()
    return entries


def _leading(entry: os.DirEntry[str], inside: str) -> str:
    """Where a link leads that is not followed; nothing of one that is, and of files."""
    if not entry.is_symlink():
        return ""
    if entry.is_dir():
        return "a symbolic link to a folder, which DVC does not follow either"
    target = leading_out(entry.path, inside) if is_image(entry.name) else None
    return f"a symbolic link that leads out, to {one_line(str(target))}" if target else ""


def leading_out(link: str, inside: str) -> Path | None:
    """Where a link leads that is not followed: neither into a folder, without links, nor into a cache."""
    target = Path(os.path.realpath(link))
    return None if target.is_relative_to(inside) or is_filed(target) else target


def is_hidden(name: str) -> bool:
    """Whether an entry of a folder is neither an image nor worth a word of its own."""
    return name.startswith(".") or name.lower() in _LITTER


def is_image(name: str) -> bool:
    """Whether a file should be an image, by its name."""
    return _suffix(name) in SUFFIXES


def kind_of(name: str) -> str:
    """What a file that is no image is counted as."""
    suffix = _suffix(name)
    kind = suffix if len(suffix) <= 10 and suffix.isprintable() else "of another kind"
    return kind or "without a suffix"


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
