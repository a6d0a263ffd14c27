"""A folder of photographs as a source of images: `train/<class>/…`, `test/<class>/…`, or only `<class>/…`.

The folder is listed, every file is decoded once to be sure that it can be, and what is handed on is
ids, classes and digests. No pixel is held.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path

from clipcifar.core.errors import DataError
from clipcifar.core.files import explained
from clipcifar.datasets.checking import check_files
from clipcifar.datasets.folder_layout import Layout, list_layout
from clipcifar.datasets.plain_files import is_utf8, shortened
from clipcifar.datasets.source import Sample, Source, Split, Unusable
from clipcifar.store.dataset import counted

_LAYOUTS = "dataset.path must hold train/<class>/… and test/<class>/… with image files, or only <class>/…"


def image_folder(root: Path, *, max_megapixels: int, ours: Collection[str] = ()) -> Source:
    """List a folder of photographs.

    Args:
        root: the folder, in one of the layouts of `folder_layout`.
        max_megapixels: a larger image cannot be used.
        ours: names at the top that are no part of the data.

    Returns:
        A source that reads the files when it is iterated.

    Raises:
        DataError: a split is missing or empty, the splits have other classes, or something lies there
            that is not read.
        EnvironmentFault: folders are there and cannot be read.
    """
    if not root.is_dir():
        raise DataError(f"no images in {root}", where=str(root), fix=_LAYOUTS)
    with explained(root):
        layout = list_layout(root, ours=ours)
    _check_splits(root, layout)

    def items() -> Iterator[Sample | Unusable]:
        listed = layout.candidates
        checked = check_files(root, listed.paths, total=len(listed), max_megapixels=max_megapixels)
        with closing(checked):
            for (split, class_name, path), result in zip(listed, checked, strict=True):
                if isinstance(result, str):
                    yield Sample(split, class_name, path, result)
                else:
                    yield Unusable(split, class_name, path, result)

    # A class whose name is not UTF-8 is told of by its files, which cannot be used.
    classes = frozenset(place for place in layout.classes if is_utf8(place[1]))
    return Source(str(root), _class_names(root, classes), items(), classes, layout.left_out)


def _check_splits(root: Path, layout: Layout) -> None:
    """Raise DataError unless the splits that there are can be worked with, and hold images."""
    full = layout.candidates.splits
    if layout.flat and not full:
        raise _no_images(root, layout, layout.classes)
    if layout.flat:
        return  # of classes without an image each is told, when all is counted
    there = " and ".join(sorted(layout.splits))
    missing = "test" if "test" not in layout.splits else "train" if layout.splits == {"val", "test"} else None
    if missing:
        raise DataError(
            f"no images in {root / missing}: there is only {there}",
            where=str(root / missing),
            fix="give every class a folder there; test alone is enough for zero-shot, and of a bare "
            "<class>/… a share is drawn for each",
        )
    for split in sorted(layout.splits - full):
        raise _no_images(root / split, layout, {place for place in layout.classes if place[0] == split})


def _no_images(folder: Path, layout: Layout, places: Collection[tuple[Split, str]]) -> DataError:
    """What to say of a folder, and of the classes in it, without a single image in a class."""
    kinds = layout.left_out.kinds
    lines = layout.left_out.held(places) or ([f"it holds {counted(kinds)}"] if kinds else [])
    fix = "put images there, or remove it: val is then drawn from train" if folder.name == "val" else _LAYOUTS
    return DataError("\n    ".join([f"no images in {folder}", *shortened(lines)]), where=str(folder), fix=fix)


def _class_names(root: Path, classes: Collection[tuple[Split, str]]) -> list[str]:
    """The class names, in label order; DataError unless every split has a folder for every class."""
    of_split: dict[Split, set[str]] = {}
    for split, name in classes:
        of_split.setdefault(split, set()).add(name)
    first = next(split for split in ("undivided", "train", "test") if split in of_split)
    names = of_split.pop(first)
    odd = sorted(name for name in names if any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in name))
    if odd:
        raise DataError(
            f"the class name {odd[0]!r} holds a control character", where=str(root), fix="rename the folder"
        )
    for split, others in sorted(of_split.items()):
        if names != others:
            raise DataError(
                f"{first} and {split} have different classes: {_surplus(names, others, first, split)}",
                where=str(root),
                fix="give every split a folder with images for every class",
            )
    return sorted(names)


def _surplus(names: set[str], others: set[str], first: str, second: str) -> str:
    """The classes that only one of two splits has; by number too where two may look alike."""
    sides = [(first, sorted(names - others)), (second, sorted(others - names))]
    both = all(surplus for _, surplus in sides)

    def shown(name: str) -> str:
        return f"{name!r}" if not both or ascii(name) == repr(name) else f"{name!r} ({name!a})"

    return "; ".join(
        f"only in {split}: {', '.join(map(shown, surplus))}" for split, surplus in sides if surplus
    )
