"""What lies where in a folder of photographs: which file is an image of which split and class.

Two layouts: `<split>/<class>/…` with train, val and test in any of their usual names, and the flat
`<class>/…`, which is divided later. Whatever is neither is given back too, with its kind.
"""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from clipcifar.core.counts import count_of
from clipcifar.core.errors import DataError
from clipcifar.core.links import is_filed
from clipcifar.core.terminal import one_line
from clipcifar.datasets.decode import SUFFIXES
from clipcifar.datasets.plain_files import shortened, unreadable
from clipcifar.datasets.source import SPLITS, LeftOut, Split

SPLIT_OF: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
# What systems leave behind, besides names that begin with a dot.
_LITTER = frozenset({"__macosx", "@eadir", "thumbs.db", "desktop.ini"})
HIDDEN, _LOOSE = "hidden", "outside of a class folder"


class Candidate(NamedTuple):
    """A file that should be an image; its path relative to the root is also its id."""

    split: Split
    class_name: str
    path: str


@dataclass
class Layout:
    """A listed folder.

    Attributes:
        candidates: sorted, split by split.
        left_out: everything else.
        classes: the (split, class name) pairs that have a folder.
        splits: those that have a folder; none where the layout is flat.
    """

    candidates: list[Candidate] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    classes: set[tuple[Split, str]] = field(default_factory=set)
    splits: set[Split] = field(default_factory=set)

    @property
    def flat(self) -> bool:
        """Whether no split is given, and one is to be drawn."""
        return not self.splits


class _File(NamedTuple):
    parts: tuple[str, ...]  # relative to the root
    path: str
    is_link: bool


@dataclass
class _Entries:
    """Everything below a folder: files and, by their parts, folders; a line for each that is neither."""

    files: list[_File] = field(default_factory=list)
    folders: list[tuple[str, ...]] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def add(self, folder: str, parents: tuple[str, ...] = ()) -> None:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        for entry in listed:
            parts = (*parents, entry.name)
            if is_hidden(entry.name):
                self.left_out.append(LeftOut(HIDDEN, "/".join(parts)))
            elif entry.is_dir(follow_symlinks=False):
                self.folders.append(parts)
                self.add(entry.path, parts)
            elif problem := unreadable(entry) or _to_a_folder(entry):
                self.odd.append(f"{one_line('/'.join(parts))}: {problem}")
            else:
                self.files.append(_File(parts, entry.path, entry.is_symlink()))


def is_hidden(name: str) -> bool:
    """Whether an entry of a folder is neither an image nor worth a word of its own."""
    return name.startswith(".") or name.lower() in _LITTER


def list_layout(root: Path) -> Layout:
    """List a folder of photographs; no file is opened.

    Raises:
        DataError: links or special files lie there that are not read, or splits cannot be told apart.
        OSError: a folder cannot be listed.
    """
    entries = _Entries()
    entries.add(os.fspath(root))
    files, folders, layout = entries.files, entries.folders, Layout(left_out=entries.left_out)
    odd = entries.odd + _leading_out(root, files)
    if odd:
        raise DataError(
            count_of(len(odd), "link or special file lies", "links or special files lie")
            + " there unread:\n    "
            + "\n    ".join(shortened(sorted(odd))),
            where=str(root),
            fix="put the files themselves there, or links to files of this folder or of DVC's cache",
        )
    splits = _splits(root, {parts[0] for parts in folders}, folders)
    layout.splits = set(splits.values())
    for parts in folders:
        if layout.flat and len(parts) == 1:
            layout.classes.add(("undivided", _class_name(parts[0])))
        elif len(parts) == 2 and parts[0] in splits:
            layout.classes.add((splits[parts[0]], _class_name(parts[1])))
    if layout.flat:
        _refuse_splits_inside(root, files)
    else:
        _refuse_unknown_splits(root, folders, splits, {name for _, name in layout.classes})
    for file in files:
        _place(file, splits, layout)
    layout.candidates.sort(key=lambda candidate: (SPLITS.index(candidate.split), candidate.path))
    return layout


def _to_a_folder(entry: os.DirEntry[str]) -> str:
    return "a symbolic link to a folder, which DVC does not follow either" if entry.is_dir() else ""


def _leading_out(root: Path, files: list[_File]) -> list[str]:
    """A line for every link to an image that is neither in the folder nor in a cache."""
    inside = os.path.realpath(root)
    outward = [
        (file, target)
        for file in files
        if file.is_link and is_image(file.parts[-1]) and (target := leading_out(file.path, inside))
    ]
    return [
        f"{one_line('/'.join(file.parts))}: a symbolic link that leads out, to {one_line(str(target))}"
        for file, target in outward
    ]


def leading_out(link: str, inside: str) -> Path | None:
    """Where a link leads that is not followed: neither into a folder, without links, nor into a cache."""
    target = Path(os.path.realpath(link))
    return None if target.is_relative_to(inside) or is_filed(target) else target


def _splits(root: Path, top: set[str], folders: list[tuple[str, ...]]) -> dict[str, Split]:
    """The split that each folder at the top stands for; none where the layout is flat.

    A class may be called train: where no folder of a split's name holds folders, and another lies
    beside it, all are classes.
    """
    named = {name: SPLIT_OF[name.lower()] for name in sorted(top) if name.lower() in SPLIT_OF}
    if not named or (top - set(named) and not any(len(parts) > 1 and parts[0] in named for parts in folders)):
        return {}
    for split in dict.fromkeys(named.values()):
        same = [name for name in named if named[name] == split]
        if len(same) > 1:
            raise DataError(
                f"{' and '.join(same)} would both be {split}",
                where=str(root),
                fix="move the images of both into one of them",
            )
    return named


def _refuse_splits_inside(root: Path, files: list[_File]) -> None:
    """Raise DataError where splits, or all classes, lie below a folder at the top, which would mix them."""
    below: dict[str, set[str]] = {}
    for file in files:
        if len(file.parts) > 1 and is_image(file.parts[-1]):
            below.setdefault(file.parts[0], set()).add(file.parts[1] if len(file.parts) > 2 else "")
    for name, subfolders in sorted(below.items()):
        holds_splits = any(subfolders) and all(sub.lower() in SPLIT_OF for sub in subfolders)
        holds_all = len(below) == 1 and len(subfolders) > 1 and "" not in subfolders
        if holds_splits or holds_all:
            only = f"set dataset.path to {one_line(str(root / name))}" if len(below) == 1 else ""
            raise DataError(
                f"{one_line(name)} holds {one_line(' and '.join(shortened(sorted(subfolders))))}",
                where=str(root),
                fix=only or "the splits go above the classes: train/<class>/… and test/<class>/…",
            )


def _refuse_unknown_splits(
    root: Path, folders: list[tuple[str, ...]], splits: dict[str, Split], classes: set[str]
) -> None:
    """Raise DataError where a folder beside the splits holds classes too: none is left out."""
    for parts in folders:
        if len(parts) == 2 and parts[0] not in splits and _class_name(parts[1]) in classes:
            name, class_name = map(one_line, parts)
            raise DataError(
                f"{name} holds the class {class_name}, and its name is that of no split",
                where=str(root / parts[0]),
                fix="call it train, val or test, or move it elsewhere",
            )


def _place(file: _File, splits: dict[str, Split], layout: Layout) -> None:
    name = "/".join(file.parts)
    depth = 1 if layout.flat else 2
    split = "undivided" if layout.flat else splits.get(file.parts[0])
    in_class = len(file.parts) > depth and split is not None
    class_name = _class_name(file.parts[depth - 1]) if in_class else ""
    if not is_image(file.parts[-1]):
        layout.left_out.append(LeftOut(kind_of(file.parts[-1]), name, split, class_name))
    elif split is not None and in_class:
        layout.candidates.append(Candidate(split, class_name, name))
    elif len(file.parts) > 1 and split is None:
        layout.left_out.append(LeftOut(f"in no split ({one_line(file.parts[0])})", name))
    else:
        layout.left_out.append(LeftOut(_LOOSE, name))


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


def _class_name(folder: str) -> str:
    """Composed (NFC): macOS decomposes what others write in one piece."""
    return unicodedata.normalize("NFC", folder)
