"""Where images come from, one after another, and the one place where they are counted.

What goes into a dataset is used, or left out and counted by kind, or an error: nothing that a person put
there vanishes without a word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.counts import count_of
from clipcifar.core.errors import ClipcifarError, DataError, EnvironmentFault
from clipcifar.core.terminal import one_line
from clipcifar.datasets.plain_files import shortened
from clipcifar.store.dataset import PreparedSplit, counted
from clipcifar.store.members import Members, Shard

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


@dataclass(frozen=True)
class Source:
    """A dataset as a stream.

    Attributes:
        where: for messages.
        class_names: in label order; of shards they may be known only when all items were read.
        items: every image, and everything else that lies there; read once, in any order of splits.
        classes: the (split, class name) pairs that must have images, since somebody put a place there.
        shards: the tar files that images are members of; whole when all items were read.
    """

    where: str
    class_names: list[str]
    items: Iterable[Sample | LeftOut | Unusable]
    classes: frozenset[tuple[Split, str]] = frozenset()
    shards: Sequence[Shard] = ()


@dataclass(frozen=True)
class Collected:
    """What a source held.

    Attributes:
        splits: its images; "undivided" are those that no split is given for.
        left_out: how many of what kind were not used.
        named: the same by name, a line for each kind.
        unreadable: the images that cannot be used, a line each.
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
        DataError: images cannot be used, all in one report, or a class has a place and no image.
        EnvironmentFault: images are there and cannot be read.
    """
    samples: dict[Split, list[Sample]] = {split: [] for split in SPLITS}
    left_out: list[LeftOut] = []
    unusable: list[Unusable] = []
    for item in source.items:
        if isinstance(item, Sample):
            samples[item.split].append(item)
        elif isinstance(item, LeftOut):
            left_out.append(item)
        else:
            unusable.append(item)
    total = sum(map(len, samples.values())) + len(unusable)
    _refuse_unread(unusable, total, source.where)
    unreadable = [f"{one_line(item.sample_id)}: {item.error.what}" for item in unusable]
    if unreadable and on_bad_image == "error":
        raise DataError(
            f"{len(unreadable):,} of {count_of(total, 'image')} cannot be used:\n    "
            + "\n    ".join(shortened(unreadable)),
            where=source.where,
            fix=_common_fix(unusable) + "mend or remove them, or set dataset.on_bad_image: skip",
        )
    named = _named(left_out)  # a line of its own has each unreadable image
    left_out += [LeftOut(UNREADABLE, item.sample_id, item.split, item.class_name) for item in unusable]
    _refuse_empty_classes(source, samples, left_out)
    return Collected(
        {split: _prepared(part, source) for split, part in samples.items() if part},
        source.class_names,
        Counter(item.kind for item in left_out),
        named,
        unreadable,
    )


def _named(left_out: list[LeftOut]) -> list[str]:
    names: dict[str, list[str]] = {}
    for item in left_out:
        if item.name:
            names.setdefault(item.kind, []).append(item.name)
    return [
        f"left out, {kind}: {one_line(', '.join(of_kind[:NAMED]))}"
        + (f" and {len(of_kind) - NAMED:,} more" if len(of_kind) > NAMED else "")
        for kind, of_kind in sorted(names.items())
    ]


def _refuse_unread(unusable: list[Unusable], total: int, where: str) -> None:
    """They may be whole: `skip` must not make the set smaller for a moment's trouble."""
    unread = [item.error for item in unusable if isinstance(item.error, EnvironmentFault)]
    if unread:
        raise EnvironmentFault(
            f"{len(unread):,} of {count_of(total, 'image')} cannot be read:\n    "
            + "\n    ".join(shortened([error.what for error in unread])),
            where=where,
            fix=unread[0].fix,
        )


def _common_fix(unusable: list[Unusable]) -> str:
    """What lifts the limits that some of them are beyond."""
    return "".join(f"{fix}, or " for fix in dict.fromkeys(item.error.fix for item in unusable) if fix)


def _refuse_empty_classes(
    source: Source, samples: Mapping[Split, list[Sample]], left_out: list[LeftOut]
) -> None:
    full = {(split, sample.class_name) for split, part in samples.items() for sample in part}
    if not (empty := source.classes - full):
        return
    raise DataError(
        f"{count_of(len(empty), 'class folder holds', 'class folders hold')} no image that can be read:\n    "
        + "\n    ".join(shortened(held(empty, left_out))),
        where=source.where,
        fix="put images there (JPEG, PNG, WEBP, BMP, GIF, TIFF or PPM), or remove the folder",
    )


def held(places: Iterable[tuple[Split, str]], left_out: Iterable[LeftOut]) -> list[str]:
    """A line for each class folder without an image: what lies in it instead, by kind."""
    kinds = {place: Counter[str]() for place in sorted(places)}
    for item in left_out:
        if item.split is not None and (place := (item.split, item.class_name)) in kinds:
            kinds[place][item.kind] += 1
    return [f"{_place(*place)}: {counted(of_place) or 'empty'}" for place, of_place in kinds.items()]


def _place(split: Split, class_name: str) -> str:
    return one_line(class_name if split == "undivided" else f"{split}/{class_name}")


def _prepared(samples: list[Sample], source: Source) -> PreparedSplit:
    label_of = {name: label for label, name in enumerate(source.class_names)}
    contents: list[Any] = [sample.content for sample in samples]
    return PreparedSplit(
        np.array(contents, dtype="S64") if isinstance(contents[0], str) else np.stack(contents),
        np.array([label_of[sample.class_name] for sample in samples], dtype=np.int64),
        [sample.sample_id for sample in samples],
        Members.of(source.shards, [sample.place for sample in samples if sample.place is not None])
        if source.shards
        else None,
    )
