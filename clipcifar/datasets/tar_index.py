"""One shard read from its first byte to its last: its images, their labels, and what is wrong with it.

The conventions are webdataset's: a member is called `<key>.<extension>`, the key reaching to the first dot of
its base name, and an image is labelled by `<key>.cls`, by a field of `<key>.json`, or where no key of the
shard has such a label by the folder that it lies in. Nothing is unpacked: an image is a range of bytes.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import unicodedata
import warnings
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from os.path import splitext
from pathlib import Path
from typing import Any, Literal, NamedTuple

from clipcifar.core.class_files import holds_control
from clipcifar.core.errors import ClipcifarError, DataError
from clipcifar.core.terminal import cut, one_line
from clipcifar.datasets.checking import stopped
from clipcifar.datasets.decode import check
from clipcifar.datasets.folder_entries import HIDDEN, is_hidden, is_image, kind_of
from clipcifar.datasets.tar_shards import ShardFile
from clipcifar.datasets.tar_stream import TarStream, members_of

_DOTTED = "no label: a key ends at the first dot of a name"
LABELS = ("label", "cls", "class")  # fields of a .json, of which the first that is there counts
MAX_LABEL_BYTES = {"cls": 4_096, "json": 1_000_000}
_JSON_BYTES = MAX_LABEL_BYTES["json"]
MAX_NAME = 1_000  # characters of a member's name

Label = str | int


class Member(NamedTuple):
    """An image of a shard; `error` where it cannot be used."""

    name: str
    offset: int
    size: int
    digest: str
    error: ClipcifarError | None
    label: Label = ""


@dataclass
class Indexed:
    """What a shard holds.

    Attributes:
        num_bytes, digest: of the whole file.
        labelled_by: what says the classes of all its images; nothing where it was not read to its end.
        images: in the order in which they lie.
        left_out: of which kind each other member is, and its name.
        faults: what is wrong with it, a line each; then the rest is not to be used.
    """

    num_bytes: int = 0
    digest: str = ""
    labelled_by: Literal["", ".cls", ".json", "class folders"] = ""
    images: list[Member] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def index_shard(place: str, folder: Path, *, max_megapixels: int) -> Indexed:
    """Read a shard once, in bounded memory.

    Args:
        place: its path relative to the folder, or an absolute one, or a URL.
        folder: of the dataset.
        max_megapixels: a larger image cannot be used.

    Raises:
        EnvironmentFault: it is there and cannot be read.
    """
    read = _Reading()
    try:
        with closing(ShardFile(place, folder, stopped=stopped)) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stream = TarStream(file)
            for member in members_of(stream):
                if stopped():
                    break
                read.take(member, stream, max_megapixels)
            stream.finish()
            read.indexed.num_bytes, read.indexed.digest = file.num_bytes, stream.digest.hexdigest()
    except DataError as error:
        read.indexed.faults.append(error.what + (f": {error.where}" if error.where else ""))
        return read.indexed
    return read.labelled()


class _Reading:
    """What was read of a shard so far: a label may come before its image or after it."""

    def __init__(self) -> None:
        self.indexed = Indexed()
        self._images: list[Member] = []
        self._labels: dict[str, dict[str, Label]] = {"cls": {}, "json": {}}
        self._names: set[str] = set()
        self._dotted: list[str] = []  # each a .json that would be a label, if its key might hold a dot

    def take(self, member: tarfile.TarInfo, stream: TarStream, max_megapixels: int) -> None:
        if member.isdir():
            return
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        name = "/".join(parts)
        if problem := _odd(member, parts) or ("there twice" if name in self._names else ""):
            self.indexed.faults.append(f"{cut(one_line(member.name), 200)}: {problem}")
            return
        self._names.add(name)
        key, extension = _key_of(name)
        if any(map(is_hidden, parts)):
            self.indexed.left_out.append((HIDDEN, name))
        elif is_image(name):
            content = stream.content(member.size)
            error = _undecodable(content, name, max_megapixels)
            digest = hashlib.sha256(content).hexdigest()
            self._images.append(Member(name, member.offset_data, member.size, digest, error))
        elif extension in self._labels:
            content = stream.content(min(member.size, MAX_LABEL_BYTES[extension] + 1))
            self._label(key, extension, name, content)
        elif extension.endswith(".cls"):
            self._faults(_DOTTED, [name])
        elif extension.endswith(".json") and _holds_label(stream.content(min(member.size, _JSON_BYTES))):
            self._dotted.append(name)
        else:
            self.indexed.left_out.append((kind_of(name), name))

    def _label(self, key: str, extension: str, name: str, content: bytes) -> None:
        try:
            if len(content) > MAX_LABEL_BYTES[extension]:
                raise DataError(f"more than {MAX_LABEL_BYTES[extension]:,} bytes")
            label = content.decode("utf-8-sig").strip() if extension == "cls" else _field(json.loads(content))
            if label is None:
                self.indexed.left_out.append((".json", name))
                return
            if isinstance(label, str) and not is_class_name(label):
                raise DataError(f"{cut(one_line(repr(label)), 60)} is no name of a class")
            if key in self._labels[extension]:
                raise DataError(f"another .{extension} of this key lies there too")
            self._labels[extension][key] = label
        except (ValueError, RecursionError, DataError) as error:
            self.indexed.faults.append(f"{one_line(name)}: no label: {one_line(str(error))}")

    def labelled(self) -> Indexed:
        """All of it, each image with its label."""
        given = next((kind for kind in ("cls", "json") if self._labels[kind]), "")
        labels, images = self._labels.get(given, {}), self._images
        if self._dotted:
            stems = {splitext(image.name)[0] for image in images}
            self._faults(_DOTTED, [name for name in self._dotted if splitext(name)[0] in stems])
            self.indexed.left_out += [(kind_of(name), name) for name in self._dotted]
        if given:
            self.indexed.labelled_by = ".cls" if given == "cls" else ".json"
            keyed = [(*_key_of(image.name), image) for image in images]
            # Besides the image of a key there may be others, as a mask: `<key>.seg.png`.
            self.indexed.left_out += [(f".{one_line(e)}", image.name) for _, e, image in keyed if "." in e]
            if given == "cls":
                self.indexed.left_out += [(".json", f"{key}.json") for key in self._labels["json"]]
            of_key = {image.name: key for key, extension, image in keyed if "." not in extension}
            keys = Counter(of_key.values())
            self._faults("several images of this key", [key for key, n in keys.items() if n > 1])
            self._faults(f"a label without an image (.{given})", [key for key in labels if key not in keys])
            without = [name for name, key in of_key.items() if key not in labels]
            self._faults(f"no label: its key has no .{given}, as others here have", without)
            images = [image._replace(label=labels.get(key, "")) for key, e, image in keyed if "." not in e]
        else:
            self.indexed.labelled_by = "class folders"
            loose = [image.name for image in images if "/" not in image.name]
            self._faults("no label: neither .cls nor .json beside it, nor a class folder above it", loose)
            images = [
                image._replace(label=unicodedata.normalize("NFC", image.name.split("/")[0]))
                for image in images
            ]
        self.indexed.images = images if not self.indexed.faults else []
        return self.indexed

    def _faults(self, problem: str, names: list[str]) -> None:
        self.indexed.faults += [f"{one_line(name)}: {problem}" for name in names]


def _key_of(name: str) -> tuple[str, str]:
    """The key of a member and its extension, in small letters."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


def _odd(member: tarfile.TarInfo, parts: list[str]) -> str:
    """Why a member is not read, whatever it is called; nothing where it is."""
    if not member.isreg() or member.issparse():
        return "a link, a device or a sparse file"
    if member.name.startswith("/") or ".." in parts or "\\" in member.name or not parts:
        return "its name leads out of the shard"
    if _unclean(member.name):
        return "its name holds a control character, or is not UTF-8"
    return f"a name of {len(member.name):,} characters" if len(member.name) > MAX_NAME else ""


def is_class_name(text: str) -> bool:
    """Whether a class may be called so: not empty nor very long, without control characters and line ends."""
    return 0 < len(text) <= MAX_NAME and not _unclean(text)


def _unclean(text: str) -> bool:
    return holds_control(text) or not {"\u2028", "\u2029"}.isdisjoint(text)


def _undecodable(content: bytes, name: str, max_megapixels: int) -> ClipcifarError | None:
    try:
        check(content, name, max_megapixels=max_megapixels)
    except ClipcifarError as error:
        return error
    return None


def _field(description: Any) -> Label | None:
    """The label in a .json; None where it has none, as one that describes something else."""
    if not isinstance(description, dict):
        return None
    label = next((description[name] for name in LABELS if name in description), None)
    if label is None or (isinstance(label, (str, int)) and not isinstance(label, bool)):
        return label.strip() if isinstance(label, str) else label
    raise DataError(f"a label is a name or a number, not {cut(one_line(repr(label)), 60)}")


def _holds_label(content: bytes) -> bool:
    """Whether a .json has a label, be it a good one; what cannot be read as a .json has none."""
    try:
        return _field(json.loads(content)) is not None
    except DataError:
        return True
    except (ValueError, RecursionError):
        return False
