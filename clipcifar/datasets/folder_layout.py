"""What lies where in a folder of photographs: which file is an image of which split and class.

Two layouts: `<split>/<class>/…` with train, val and test in any of their usual names, and the flat
`<class>/…`, which is divided later. Whatever is neither is given back too, with its kind.
"""

from __future__ import annotations

import os
import unicodedata
from array import array
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.counts import count_of
from clipcifar.core.errors import DataError
from clipcifar.core.terminal import one_line
from clipcifar.datasets.folder_entries import Candidates, entries_of, is_image, kind_of
from clipcifar.datasets.plain_files import shortened
from clipcifar.datasets.source import SPLITS, LeftOut, LeftOuts, Split
from clipcifar.store.names import blocks_of

_LOOSE = "outside of a class folder"
SPLIT_OF: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass
class Layout:
    """A listed folder.

    Attributes:
        candidates: sorted, split by split.
        left_out: everything else.
        classes: the (split, class name) pairs that have a folder.
        splits: those that have a folder; none where the layout is flat.
    """

    candidates: Candidates
    left_out: LeftOuts
    classes: set[tuple[Split, str]]
    splits: set[Split]

    @property
    def flat(self) -> bool:
        """Whether no split is given, and one is to be drawn."""
        return not self.splits


def list_layout(root: Path, *, ours: Collection[str] = ()) -> Layout:
    """List a folder of photographs; no file is opened.

    Args:
        ours: names at the top that are no part of the data.

    Raises:
        DataError: links or special files lie there that are not read, or splits cannot be told apart.
        OSError: a folder cannot be listed.
    """
    entries = entries_of(root, ours=ours)
    if odd := entries.odd:
        raise DataError(
            count_of(len(odd), "link or special file lies", "links or special files lie")
            + " there unread:\n    "
            + "\n    ".join(shortened(sorted(odd))),
            where=str(root),
            fix="put the files themselves there, or links to files of this folder or of DVC's cache",
        )
    folders, files = entries.folders, entries.files.array()
    splits = _splits(root, {parts[0] for parts in folders}, folders)
    classes: set[tuple[Split, str]] = set()
    for parts in folders:
        if not splits and len(parts) == 1:
            classes.add(("undivided", _class_name(parts[0])))
        elif len(parts) == 2 and parts[0] in splits:
            classes.add((splits[parts[0]], _class_name(parts[1])))
    if splits:
        _refuse_unknown_splits(root, folders, splits, {name for _, name in classes})
    else:
        _refuse_splits_inside(root, files)
    candidates = _placed(files, splits, entries.left_out)
    return Layout(candidates, entries.left_out, classes, set(splits.values()))


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


def _refuse_splits_inside(root: Path, files: NDArray[np.bytes_]) -> None:
    """Raise DataError where splits, or all classes, lie below a folder at the top, which would mix them."""
    below: dict[str, set[str]] = {}
    for parts in _in_parts(files):
        if len(parts) > 1 and is_image(parts[-1]):
            below.setdefault(parts[0], set()).add(parts[1] if len(parts) > 2 else "")
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


def _placed(files: NDArray[np.bytes_], splits: dict[str, Split], left_out: LeftOuts) -> Candidates:
    """The files that should be images of a class; all others are added to what is left out."""
    depth = 2 if splits else 1
    rows, of_split, of_class = array("q"), array("b"), array("i")
    names: dict[str, int] = {}
    for row, parts in enumerate(_in_parts(files)):
        split = splits.get(parts[0]) if splits else "undivided"
        in_class = len(parts) > depth and split is not None
        class_name = _class_name(parts[depth - 1]) if in_class else ""
        if not is_image(parts[-1]):
            left_out.add(LeftOut(kind_of(parts[-1]), "/".join(parts), split, class_name))
        elif split is not None and in_class:
            rows.append(row)
            of_split.append(SPLITS.index(split))
            of_class.append(names.setdefault(class_name, len(names)))
        elif len(parts) > 1 and split is None:
            left_out.add(LeftOut(f"in no split ({one_line(parts[0])})", "/".join(parts)))
        else:
            left_out.add(LeftOut(_LOOSE, "/".join(parts)))
    return Candidates(files, rows, of_split, of_class, list(names))


def _in_parts(files: NDArray[np.bytes_]) -> Iterator[list[str]]:
    """The paths, each in its parts."""
    for block in blocks_of(files):
        yield from (os.fsdecode(path).split("/") for path in block.tolist())


def _class_name(folder: str) -> str:
    """Composed (NFC): macOS decomposes what others write in one piece."""
    return unicodedata.normalize("NFC", folder)
