"""Tar files of images as a source, by webdataset's conventions: `train/*.tar`, `test/*.tar`, or only `*.tar`.

In place of a split's folder its shards may be listed, in `train.txt`: such lists are then all that DVC looks
at. Each shard is read once, by a process of its own, and what is handed on is where in it each image lies.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from clipcifar.core.counts import count_of
from clipcifar.core.errors import DataError
from clipcifar.core.processes import cores
from clipcifar.core.progress import progress
from clipcifar.core.terminal import cut, one_line
from clipcifar.datasets.checking import in_order
from clipcifar.datasets.folder_layout import SPLIT_OF
from clipcifar.datasets.plain_files import MAX_REPORTED, shortened
from clipcifar.datasets.shard_lists import CLASSES, Listed, classes_of, listed
from clipcifar.datasets.source import LeftOut, Sample, Source, Unusable
from clipcifar.datasets.tar_index import Indexed, Label, index_shard
from clipcifar.store.members import Shard

_Items = Iterator[Sample | LeftOut | Unusable]
_NAMED = 3  # of the images of which the same is wrong


def tar_folder(root: Path, *, max_megapixels: int) -> Source:
    """List the shards of a folder.

    Args:
        root: the folder.
        max_megapixels: a larger image cannot be used.

    Returns:
        A source that reads the shards when it is iterated; without a list of classes it knows their names,
        sorted, when it has read all. What is wrong with shards is told then, in one report.

    Raises:
        DataError: a split is missing or lists no shard, or what lies there cannot be told apart.
        EnvironmentFault: the folder is there and cannot be read.
    """
    shards, left_out = listed(root)
    reading = _Reading(root, shards, classes_of(root))

    def items() -> _Items:
        yield from left_out
        yield from reading.items(max_megapixels)

    splits = frozenset(shard.split for shard in shards)
    return Source(str(root), reading.names, items(), shards=reading.read, splits=splits)


class _Line:
    """A line of the report: what is wrong, and with which images, the first of which it names."""

    def __init__(self, what: str) -> None:
        self._what, self._images, self._more = what, list[str](), 0

    def add(self, image: str) -> None:
        if len(self._images) < _NAMED:
            self._images.append(image)
        else:
            self._more += 1

    def __str__(self) -> str:
        more = f" and {self._more:,} more" if self._more else ""
        return ", ".join(self._images) + more + (": " if self._images else "") + self._what


class _Reading:
    """Shards on their way to images: labels become names of classes, faults one report."""

    def __init__(self, root: Path, shards: list[Listed], classes: list[str] | None) -> None:
        self.names, self.read = list(classes or ()), list[Shard]()
        self._root, self._shards, self._classes = root, shards, classes
        self._class_of: dict[Label, str] = {}
        self._faults, self._untold = 0, 0  # all, and those in no line
        self._told, self._alike = list[_Line](), dict[str, _Line]()

    def items(self, max_megapixels: int) -> _Items:
        labelled_by: dict[str, str] = {}
        index = partial(index_shard, folder=self._root, max_megapixels=max_megapixels)
        with ExitStack() as stack:
            workers = min(len(self._shards), cores())
            contents = in_order(
                index,
                [shard.place for shard in self._shards],
                workers=workers,
                ahead=workers + 2,
                names_of=lambda place: [place],
                unit="shard",
                where=str(self._root),
                stack=stack,
            )
            bar = stack.enter_context(
                progress(total=len(self._shards), unit="shards", what="checking shards")
            )
            for shard, indexed in zip(self._shards, contents, strict=True):
                if indexed.labelled_by:
                    labelled_by.setdefault(indexed.labelled_by, shard.name)
                yield from self._of_shard(shard, indexed)
                bar.update()
        if len(labelled_by) > 1:
            said = ", ".join(f"{name} by {kind}" for kind, name in labelled_by.items())
            self._fault(f"images are labelled differently: {one_line(said)}")
        if self._faults:
            raise DataError(
                count_of(self._faults, "fault")
                + " in the shards:\n    "
                + "\n    ".join(shortened([*map(str, self._told)], of=len(self._told) + self._untold)),
                where=str(self._root),
                fix="write these shards anew, or mend the lists and the classes.txt that they go by",
            )
        names = sorted(set(self._class_of.values()))
        if self._classes is None and "class folders" in labelled_by:
            self._refuse_splits_inside(names)
        self.names[:] = self._classes or names

    def _refuse_splits_inside(self, names: list[str]) -> None:
        """Raise DataError where what lies at the top of the shards is splits, which would be mixed."""
        if names and all(name.lower() in SPLIT_OF for name in names):
            raise DataError(
                f"the shards hold {' and '.join(names)} at their top: splits, and no classes",
                where=str(self._root),
                fix="give each split shards of its own, train/*.tar and test/*.tar, with <class>/… in them; "
                "if they are classes, name them in classes.txt",
            )

    def _of_shard(self, shard: Listed, indexed: Indexed) -> _Items:
        if shard.digest not in ("", indexed.digest) and not indexed.faults:
            indexed.faults.append(f"its sha256 is {indexed.digest}, and its list says {shard.digest}")
        for fault in indexed.faults:
            self._fault(f"{one_line(shard.name)}: {fault}")
        number = len(self.read)
        self.read.append(Shard(shard.place, indexed.num_bytes, indexed.digest))
        yield from (LeftOut(kind, f"{shard.name}/{name}", shard.split) for kind, name in indexed.left_out)
        for image in indexed.images:
            sample_id = f"{shard.name}/{image.name}"
            try:
                class_name = self._class_of.get(image.label) or self._class(
                    image.label, numbers=indexed.labelled_by != "class folders"
                )
            except DataError as error:
                self._fault(error.what, one_line(sample_id))
                continue
            if image.error is not None:
                yield Unusable(shard.split, class_name, sample_id, image.error)
            else:
                place = (number, image.offset, image.size)
                yield Sample(shard.split, class_name, sample_id, image.digest, place)

    def _fault(self, what: str, image: str = "") -> None:
        """Count a fault, and tell it while there is room: with other images of which the same is wrong."""
        self._faults += 1
        line = self._alike.get(what) if image else None
        if line is None and len(self._told) == MAX_REPORTED:
            self._untold += 1
            return
        if line is None:
            line = _Line(what)
            self._told.append(line)
        if image:
            self._alike[what] = line
            line.add(image)

    def _class(self, label: Label, *, numbers: bool) -> str:
        """The class of a label: a number is that of a class in the list, text its name, or such a number.

        Args:
            numbers: whether text may be a number; a folder is a class's name, whatever it looks like.
        """
        shown = f"the label {cut(one_line(str(label)), 60)!r}"
        is_number = isinstance(label, int) or (
            numbers and label.isascii() and label.isdecimal() and len(label) < 10
        )
        name = None if isinstance(label, int) else unicodedata.normalize("NFC", label)
        if self._classes is None:
            if name is None or is_number:
                raise DataError(
                    f"labelled by a number, and {' or '.join(CLASSES)} does not say of which class"
                )
            meant = {name}
        else:
            number = int(label) if is_number else -1
            meant = {known for known in self._classes if known == name}
            meant |= {self._classes[number]} if 0 <= number < len(self._classes) else set()
        if len(meant) != 1:
            why = "is the name of one class and the number of another" if meant else "is that of no class"
            raise DataError(f"{shown} {why} in the list of {len(self._classes or ()):,}")
        self._class_of[label] = class_name = str(meant.pop())
        return class_name
