"""Where images come from, one after another, and the one place where they are counted.

What goes into a dataset is used, or left out and counted by kind, or an error: nothing that a person put
there vanishes without a word. Of an image its label, its id and its pixels or digest are kept, in arrays.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.counts import count_of
from clipcifar.core.errors import ClipcifarError, DataError, EnvironmentFault
from clipcifar.core.terminal import one_line
from clipcifar.datasets.gathering import Part
from clipcifar.datasets.plain_files import MAX_REPORTED, shortened
from clipcifar.store.dataset import PreparedSplit, counted
from clipcifar.store.members import Shard

Split = Literal["train", "val", "test", "undivided"]
SPLITS: tuple[Split, ...] = ("train", "val", "test", "undivided")
NAMED = 3  # of a kind that is left out
UNREADABLE = "not readable as an image"


class Sample(NamedTuple):
    """One image: (H, W, 3) uint8 pixels, or the hex sha256 of its file.

    `place` is for a member of a shard: the shard's position among those of its source, offset and size.
    """

    split: Split
    class_name: str
    sample_id: str
    content: NDArray[np.uint8] | str
    place: tuple[int, int, int] | None = None


class LeftOut(NamedTuple):
    """What is not used: of which kind, its name for a person, and the class that it lies with, if any."""

    kind: str
    name: str
    split: Split | None = None
    class_name: str = ""


class Unusable(NamedTuple):
    """An image that should be used and cannot be."""

    split: Split
    class_name: str
    sample_id: str
    error: ClipcifarError


@dataclass
class LeftOuts:
    """What is not used, counted, and a few of each kind by name: as large for many as for few.

    Attributes:
        kinds: how many there are of each kind.
        by_class: the same of what lies with a class.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    by_class: dict[tuple[Split, str], Counter[str]] = field(default_factory=dict)
    _first: dict[str, list[str]] = field(default_factory=dict)
    _named: Counter[str] = field(default_factory=Counter)

    def add(self, item: LeftOut) -> None:
        self.kinds[item.kind] += 1
        if item.split is not None:
            self.by_class.setdefault((item.split, item.class_name), Counter())[item.kind] += 1
        if item.name:
            self._named[item.kind] += 1
            insort(first := self._first.setdefault(item.kind, []), item.name)  # in whatever order they come
            del first[NAMED:]

    @property
    def lines(self) -> list[str]:
        """A line for each kind that has names."""
        return [
            f"left out, {kind}: {one_line(', '.join(first))}"
            + (f" and {more:,} more" if (more := self._named[kind] - len(first)) else "")
            for kind, first in sorted(self._first.items())
        ]

    def held(self, places: Iterable[tuple[Split, str]]) -> list[str]:
        """A line for each class folder without an image: what lies in it instead, by kind."""
        return [
            f"{_place(*place)}: {counted(self.by_class.get(place, {})) or 'empty'}"
            for place in sorted(places)
        ]


@dataclass(frozen=True)
class Source:
    """A dataset as a stream.

    Attributes:
        where: for messages.
        class_names: in label order; of shards they may be known only when all items were read.
        items: every image, and everything else that lies there; read once, in any order of splits, and
            closed where it is a generator that is not read to its end.
        classes: the (split, class name) pairs that must have images, since somebody put a place there.
        left_out: what lies there besides, where it is counted before the images are read.
        shards: the tar files that images are members of; known when all items were read.
        splits: those that must have images, whatever the class.
    """

    where: str
    class_names: list[str]
    items: Iterable[Sample | LeftOut | Unusable]
    classes: frozenset[tuple[Split, str]] = frozenset()
    left_out: LeftOuts = field(default_factory=LeftOuts)
    shards: Sequence[Shard] = ()
    splits: frozenset[Split] = frozenset()


@dataclass(frozen=True)
class Collected:
    """What a source held.

    Attributes:
        splits: its images; "undivided" are those that no split is given for.
        left_out: how many of what kind were not used.
        named: the same by name, a line for each kind.
        unreadable: the images that cannot be used, a line for each of the first ones; `left_out` has
            how many there are.
    """

    splits: Mapping[Split, PreparedSplit]
    class_names: list[str]
    left_out: Counter[str] = field(default_factory=Counter)
    named: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def collect(source: Source, *, on_bad_image: Literal["error", "skip"]) -> Collected:
    """Read a source to its end and count.

    Args:
        on_bad_image: "error" refuses the dataset when an image cannot be used, "skip" leaves it out.

    Raises:
        DataError: images cannot be used, all in one report, or a class or a split has a place and no image.
        EnvironmentFault: images are there and cannot be read.
    """
    parts: dict[Split, Part] = {}
    number_of: dict[str, int] = {}  # of a class, in the order in which they come
    left_out, unusable, full = source.left_out, _Unusables(), set()
    with ExitStack() as reading:
        if isinstance(source.items, Generator):
            reading.enter_context(closing(source.items))
        for item in source.items:
            if isinstance(item, Sample):
                full.add((item.split, item.class_name))
                number = number_of.setdefault(item.class_name, len(number_of))
                parts.setdefault(item.split, Part()).add(number, item.sample_id, item.content, item.place)
            elif isinstance(item, LeftOut):
                left_out.add(item)
            else:
                unusable.add(item)
    total = sum(len(part.numbers) for part in parts.values()) + len(unusable)
    unusable.refuse_unread(total, source.where)
    if unusable and on_bad_image == "error":
        raise unusable.refusal(total, source.where)
    named = left_out.lines  # a line of its own has each unreadable image
    for place, n in unusable.by_class.items():
        left_out.kinds[UNREADABLE] += n
        left_out.by_class.setdefault(place, Counter())[UNREADABLE] += n
    if empty := source.classes - full:
        raise DataError(
            count_of(len(empty), "class folder holds", "class folders hold")
            + " no image that can be read:\n    "
            + "\n    ".join(shortened(left_out.held(empty))),
            where=source.where,
            fix="put images there (JPEG, PNG, WEBP, BMP, GIF, TIFF or PPM), or remove the folder",
        )
    if bare := [split for split in SPLITS if split in source.splits - parts.keys()]:
        what = " nor of ".join(bare) if bare != ["undivided"] else "any kind"
        raise DataError(
            f"no image of {what} can be read; left out: {counted(left_out.kinds) or 'nothing'}",
            where=source.where,
            fix="give every split shards with images (JPEG, PNG, WEBP, BMP, GIF, TIFF or PPM); only val may "
            "be taken away, and is then drawn from train",
        )
    label_of = {name: label for label, name in enumerate(source.class_names)}
    labels = np.array([label_of[name] for name in number_of], dtype=np.int64)
    splits = {split: parts[split].prepared(labels, source.shards) for split in SPLITS if split in parts}
    return Collected(splits, source.class_names, left_out.kinds, named, unusable.lines)


class _Unusables:
    """The images that cannot be used: how many, and what a person is told of them."""

    def __init__(self) -> None:
        self.by_class = Counter[tuple[Split, str]]()
        self.lines: list[str] = []
        self._fixes: dict[str, None] = {}
        self._unread, self._unread_lines, self._unread_fix = 0, list[str](), ""

    def __len__(self) -> int:
        return self.by_class.total()

    def add(self, item: Unusable) -> None:
        self.by_class[item.split, item.class_name] += 1
        self._fixes.setdefault(item.error.fix)
        if len(self.lines) < MAX_REPORTED:
            self.lines.append(f"{one_line(item.sample_id)}: {item.error.what}")
        if isinstance(item.error, EnvironmentFault):
            self._unread += 1
            self._unread_fix = self._unread_fix or item.error.fix
            if len(self._unread_lines) < MAX_REPORTED:
                self._unread_lines.append(item.error.what)

    def refuse_unread(self, total: int, where: str) -> None:
        """They may be whole: `skip` must not make the set smaller for a moment's trouble."""
        if self._unread:
            raise EnvironmentFault(
                f"{self._unread:,} of {count_of(total, 'image')} cannot be read:\n    "
                + "\n    ".join(shortened(self._unread_lines, of=self._unread)),
                where=where,
                fix=self._unread_fix,
            )

    def refusal(self, total: int, where: str) -> DataError:
        lifts = "".join(f"{fix}, or " for fix in self._fixes if fix)  # the limits that some are beyond
        return DataError(
            f"{len(self):,} of {count_of(total, 'image')} cannot be used:\n    "
            + "\n    ".join(shortened(self.lines, of=len(self))),
            where=where,
            fix=lifts + "mend or remove them, or set dataset.on_bad_image: skip",
        )


def _place(split: Split, class_name: str) -> str:
    return one_line(class_name if split == "undivided" else f"{split}/{class_name}")
