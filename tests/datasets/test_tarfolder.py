from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from clipcifar.core.errors import DataError, EnvironmentFault
from clipcifar.datasets import checking, tar_stream, tarfolder
from clipcifar.datasets.checking import MAX_BYTES
from clipcifar.datasets.imagefolder import image_folder
from clipcifar.datasets.shard_lists import listed
from clipcifar.datasets.source import Collected, collect
from clipcifar.datasets.tar_index import index_shard
from clipcifar.datasets.tarfolder import tar_folder
from clipcifar.store.dataset import PreparedSplit, read_dataset, write_dataset
from tests.support.shards import labelled, png, tar_of, write

CLASSES = b"cat\ndog\n"
FOLDERS = {f"{label}/{i}.png": png(f"{label}{i}") for label in ("cat", "dog") for i in range(3)}
TEST = tar_of({"cat/9.png": png("c9"), "dog/9.png": png("d9")})


def collected(root: Path, *, bad: Literal["error", "skip"] = "error") -> Collected:
    return collect(tar_folder(root, max_megapixels=250), on_bad_image=bad)


def of(split: PreparedSplit, class_names: list[str]) -> dict[str, str]:
    return {name: class_names[label] for name, label in zip(split.ids, split.labels.tolist(), strict=True)}


def refused(root: Path, match: str) -> DataError:
    with pytest.raises(DataError, match=match) as caught:
        collected(root)
    assert caught.value.where.startswith(str(root))
    return caught.value


def faults(root: Path, *expected: str) -> None:
    """The report of a folder's shards has these lines and no other."""
    error = refused(root, "in the shards:")
    assert error.what.splitlines()[1:] == [f"    {line}" for line in expected]


def test_class_folders_name_the_classes_and_ids_name_shard_and_member(tmp_path: Path) -> None:
    write(tmp_path, {"train/0.tar": tar_of(FOLDERS), "test/0.tar": TEST})
    made = collected(tmp_path)
    assert made.class_names == ["cat", "dog"]
    assert of(made.splits["train"], made.class_names) == {
        f"train/0.tar/{name}": name.split("/")[0] for name in FOLDERS
    }
    assert made.splits["train"].digests == [hashlib.sha256(body).hexdigest() for body in FOLDERS.values()]
    assert dict(made.left_out) == {}


def test_every_image_lies_where_it_is_said_to_lie(tmp_path: Path) -> None:
    write(tmp_path, {"train/0.tar": tar_of(FOLDERS), "train/1.tar": tar_of(FOLDERS), "test/0.tar": TEST})
    train = collected(tmp_path).splits["train"]
    assert train.members is not None
    assert len(train.ids) == 2 * len(FOLDERS)
    for row, sample_id in enumerate(train.ids):
        shard = train.members.shards[train.members.shard[row]]
        content = (tmp_path / shard.place).read_bytes()
        start = int(train.members.offset[row])
        body = content[start : start + int(train.members.size[row])]
        assert body == FOLDERS[sample_id.split(".tar/")[1]]
        assert sample_id.startswith(f"{shard.place}/")
        assert (shard.num_bytes, shard.digest) == (len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("file", ["classes.txt", "classes.json", "by number"])
def test_numbers_stand_for_the_classes_of_the_list(file: str, tmp_path: Path) -> None:
    names = {"classes.txt": b"tabby\n\ncollie\n", "classes.json": b'["tabby", "collie"]'}
    content = names.get(file, b'{"collie": 1, "tabby": 0}')
    name = file if file in names else "classes.json"
    shards = {"train/0.tar": tar_of(labelled([1, 0, 1])), "test/0.tar": tar_of(labelled([0, 1]))}
    made = collected(write(tmp_path, {**shards, name: content}))
    assert made.class_names == ["tabby", "collie"]
    assert made.splits["train"].labels.tolist() == [1, 0, 1]
    assert made.splits["test"].labels.tolist() == [0, 1]


def test_names_in_cls_need_no_list_and_may_be_in_one(tmp_path: Path) -> None:
    shard = tar_of(labelled(["dog\n", " cat", "dog"]))
    write(tmp_path, {"train/0.tar": shard, "test/0.tar": shard})
    assert collected(tmp_path).class_names == ["cat", "dog"]
    write(tmp_path, {"classes.txt": b"dog\ncat\n"})
    made = collected(tmp_path)
    assert (made.class_names, made.splits["train"].labels.tolist()) == (["dog", "cat"], [0, 1, 0])


@pytest.mark.parametrize("key", ["label", "cls", "class"])
def test_a_field_of_the_json_is_the_label(key: str, tmp_path: Path) -> None:
    members = {"a.jpg": png("a"), "a.json": json.dumps({key: 1, "url": "x"}).encode(), "b.jpg": png("b")}
    members |= {"b.json": json.dumps({"note": [], key: "cat"}).encode(), "about.json": b"[1]"}
    root = write(
        tmp_path, {"train/0.tar": tar_of(members), "test/0.tar": tar_of(members), "classes.txt": CLASSES}
    )
    made = collected(root)
    assert of(made.splits["train"], made.class_names) == {
        "train/0.tar/a.jpg": "dog",
        "train/0.tar/b.jpg": "cat",
    }
    assert made.left_out == {".json": 2}


def test_a_cls_counts_before_a_json_and_a_folder_that_only_holds_keys(tmp_path: Path) -> None:
    members = {"x/a.png": png("a"), "x/a.json": b'{"label": 0}', "x/a.cls": b"1", "x/a.seg.png": png("mask")}
    members |= {"x/b.cls": b"0", "x/b.png": png("b"), "x/b.txt": b"a caption"}
    shard = tar_of(members)
    made = collected(write(tmp_path, {"train/0.tar": shard, "test/0.tar": shard, "classes.txt": CLASSES}))
    assert of(made.splits["train"], made.class_names) == {
        "train/0.tar/x/a.png": "dog",
        "train/0.tar/x/b.png": "cat",
    }
    assert made.left_out == {".seg.png": 2, ".txt": 2, ".json": 2}


def test_dots_in_a_name_do_not_matter_in_class_folders(tmp_path: Path) -> None:
    members = {"./cat/IMG.1.JPG": png("a"), "./cat/IMG.2.JPG": png("b"), "dog/x/1.png": png("c")}
    made = collected(write(tmp_path, {"train/0.tar": tar_of(members), "test/0.tar": TEST}))
    assert [*of(made.splits["train"], made.class_names).items()] == [
        ("train/0.tar/cat/IMG.1.JPG", "cat"),
        ("train/0.tar/cat/IMG.2.JPG", "cat"),
        ("train/0.tar/dog/x/1.png", "dog"),
    ]


def test_splits_have_their_usual_names_and_shards_alone_are_divided_later(tmp_path: Path) -> None:
    whole = write(tmp_path / "a", {f"{name}/0.tar": TEST for name in ("training", "Valid", "test")})
    assert set(collected(whole).splits) == {"train", "val", "test"}
    assert set(collected(write(tmp_path / "b", {"0.tar": TEST, "1.tar": TEST})).splits) == {"undivided"}
    assert set(collected(write(tmp_path / "c", {"test/deep/0.tar": TEST})).splits) == {"test"}


@pytest.mark.parametrize("name", ["train-00000.tar", "imagenet_VAL_3.tar", "test.tar"])
def test_shards_beside_each_other_that_are_named_after_splits_are_not_mixed(
    name: str, tmp_path: Path
) -> None:
    error = refused(write(tmp_path, {name: TEST, "contest-0.tar": TEST}), "1 file cannot be read as shards")
    assert f"{name}: named after a split" in error.what
    assert "train.txt" in error.fix


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_of_tar_is_read_with_its_long_names(format: int, tmp_path: Path) -> None:
    long = "cat/" + "x" * (90 if format == tarfile.USTAR_FORMAT else 200) + ".png"
    with tarfile.open(tmp_path / "0.tar", "w", format=format) as tar:
        for name in (long, "dog/ä.png" if format != tarfile.USTAR_FORMAT else "dog/a.png", "dog/b.png"):
            entry = tarfile.TarInfo(name)
            entry.size = len(png(name))
            tar.addfile(entry, io.BytesIO(png(name)))
    indexed = index_shard("0.tar", tmp_path, max_megapixels=1)
    assert (indexed.faults, len(indexed.images)) == ([], 3)
    content = (tmp_path / "0.tar").read_bytes()
    for image in indexed.images:
        assert content[image.offset : image.offset + image.size] == png(image.name)
    assert indexed.images[0].name == long


def test_the_same_images_as_a_folder_have_the_same_digests_labels_and_order(tmp_path: Path) -> None:
    shards = write(tmp_path / "tar", {"train/0.tar": tar_of(FOLDERS), "test/0.tar": TEST})
    files = {f"train/{name}": body for name, body in FOLDERS.items()}
    files |= {"test/cat/9.png": png("c9"), "test/dog/9.png": png("d9")}
    folder = collect(image_folder(write(tmp_path / "f", files), max_megapixels=250), on_bad_image="error")
    made = collected(shards)
    assert made.class_names == folder.class_names
    for split in ("train", "test"):
        assert made.splits[split].digests == folder.splits[split].digests
        assert made.splits[split].labels.tolist() == folder.splits[split].labels.tolist()


def test_the_dataset_file_keeps_where_images_lie_and_refuses_places_outside_of_shards(tmp_path: Path) -> None:
    made = collected(write(tmp_path / "s", {"train/0.tar": tar_of(FOLDERS), "test/0.tar": TEST}))
    train, test = made.splits["train"], made.splits["test"]
    written: dict[str, Any] = {"class_names": made.class_names, "name": "tarfolder", "max_per_class": 0}
    write_dataset(tmp_path / "d.h5", train, test, **written)
    again = read_dataset(tmp_path / "d.h5")
    assert train.members is not None
    assert again.train.members is not None
    assert again.train.members.shards == [*train.members.shards]
    assert again.test.members is not None
    assert again.test.members.shards is again.train.members.shards  # held once
    both = (again.train + again.test).members
    assert both is not None
    assert both.offset.tolist() == [*train.members.offset, *test.members.offset]  # type: ignore[union-attr]
    for name, value in (("offset", 10**9), ("offset", -1), ("shard", 2), ("size", -1)):
        column = getattr(train.members, name)
        kept, column[1] = column[1], value
        write_dataset(tmp_path / "bad.h5", train, test, **written)
        with pytest.raises(DataError, match="an image lies"):
            read_dataset(tmp_path / "bad.h5")
        column[1] = kept


def odd(name: str, **fields: Any) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(entry, key, value)
    return entry


def test_every_odd_member_of_every_shard_is_named_in_one_report(tmp_path: Path) -> None:
    bad = [
        (odd("../up.png"), png("a")),
        (odd("/etc/x.png"), png("a")),
        (odd("cat/../../x.png"), png("a")),
        (odd("cat\\x.png"), png("a")),
        (odd("cat/\x1b[2Jx.png"), png("a")),
        (odd("cat/\udcff.png"), png("a")),
        (odd("cat/link.png", type=tarfile.SYMTYPE, linkname="/etc/passwd"), b""),
        (odd("cat/hard.png", type=tarfile.LNKTYPE, linkname="cat/1.png"), b""),
        (odd("cat/tty.png", type=tarfile.CHRTYPE), b""),
        (odd("cat/pipe.png", type=tarfile.FIFOTYPE), b""),
        (odd("cat/" + "x" * 1_500 + ".png"), png("a")),
        (odd("cat/1.png"), png("a")),
        (odd("./cat/1.png"), png("b")),
        (odd("loose.png"), png("c")),
        (odd("cat", type=tarfile.DIRTYPE), b""),
    ]
    write(tmp_path, {"train/0.tar": tar_of(bad), "train/1.tar": tar_of(FOLDERS), "test/0.tar": TEST})
    outside, no_file = "its name leads out of the shard", "a link, a device or a sparse file"
    unclean = "its name holds a control character, or is not UTF-8"
    faults(
        tmp_path,
        f"train/0.tar: ../up.png: {outside}",
        f"train/0.tar: /etc/x.png: {outside}",
        f"train/0.tar: cat/../../x.png: {outside}",
        f"train/0.tar: cat\\x.png: {outside}",
        f"train/0.tar: cat/\\u001b[2Jx.png: {unclean}",
        f"train/0.tar: cat/\\udcff.png: {unclean}",
        *(f"train/0.tar: cat/{name}.png: {no_file}" for name in ("link", "hard", "tty", "pipe")),
        f"train/0.tar: cat/{'x' * 195}…: a name of 1,508 characters",
        "train/0.tar: ./cat/1.png: there twice",
        "train/0.tar: loose.png: no label: neither .cls nor .json beside it, nor a class folder above it",
    )
    assert sorted(os.listdir(tmp_path)) == ["test", "train"]  # nothing was made anywhere


def test_labels_and_images_without_each_other_are_named(tmp_path: Path) -> None:
    members = labelled([0, 1]) | {"x/lost.png": png("l"), "alone.cls": b"1", "two.cls": b"1"}
    members |= {"two.png": png("2"), "two.jpg": png("2j")}
    members |= {"empty.png": png("e"), "empty.cls": b" \n", "raw.png": png("r"), "raw.cls": b"\xff\xfe"}
    members |= {"long.png": png("g"), "long.cls": b"x" * 5_000, "b.1.png": png("b"), "b.1.cls": b"1"}
    write(
        tmp_path,
        {"train/0.tar": tar_of(members), "test/0.tar": tar_of(labelled([0])), "classes.txt": CLASSES},
    )
    lost = "no label: its key has no .cls, as others here have"
    faults(
        tmp_path,
        "train/0.tar: empty.cls: no label: '' is no name of a class",
        "train/0.tar: raw.cls: no label: 'utf-8' codec can't decode byte 0xff in position 0: invalid start "
        "byte",
        "train/0.tar: long.cls: no label: more than 4,096 bytes",
        "train/0.tar: b.1.cls: no label: a key ends at the first dot of a name",
        "train/0.tar: two: several images of this key",
        "train/0.tar: alone: a label without an image (.cls)",
        *(f"train/0.tar: {name}: {lost}" for name in ("x/lost.png", "empty.png", "raw.png", "long.png")),
    )


@pytest.mark.parametrize(
    "members",
    [
        {"cat/a.v2.png": png("a"), "cat/a.v2.json": b'{"label": "dog"}'},
        {"cat/a.v2.json": b'{"class": 1}', "cat/A.png": png("A"), "cat/a.v2.PNG": png("a")},
        {"cat/a.v2.png": png("a"), "cat/a.v2.json": b'{"label": ["dog"]}', "cat/A.png": png("A")},
        {"A.png": png("A"), "A.json": b'{"label": "cat"}', "cat/a.v2.png": png("a")}
        | {"cat/a.v2.json": b'{"label": "dog"}'},
    ],
)
def test_a_json_label_of_a_key_with_a_dot_is_named_as_a_cls_is(
    members: dict[str, bytes], tmp_path: Path
) -> None:
    write(tmp_path, {"train/0.tar": tar_of(members), "test/0.tar": TEST})
    dotted = "no label: a key ends at the first dot of a name"
    assert (
        f"    train/0.tar: cat/a.v2.json: {dotted}" in refused(tmp_path, "in the shards:").what.splitlines()
    )


def test_a_json_of_a_key_with_a_dot_that_is_no_label_is_left_out(tmp_path: Path) -> None:
    meta = {"cat/0.meta.json": b'{"label": "dog"}', "cat/x.y.png": png("x"), "cat/x.y.json": b'{"by": 1}'}
    odd = {"dog/x.y.png": png("y"), "dog/x.y.json": b"{", "dog/z.y.png": png("z"), "dog/z.y.json": b"[1]"}
    none = {"dog/n.y.png": png("n"), "dog/n.y.json": b'{"label": null}'}
    write(tmp_path, {"train/0.tar": tar_of(FOLDERS | meta | odd | none), "test/0.tar": TEST})
    made = collected(tmp_path)
    assert (len(made.splits["train"].ids), dict(made.left_out)) == (10, {".json": 5})


@pytest.mark.parametrize(
    ("labels", "classes", "fault"),
    [
        ([0, 2], CLASSES, "the label '2' is that of no class in the list of 2"),
        ([0, -1], CLASSES, "the label '-1' is that of no class in the list of 2"),
        (["cat", "Dog"], CLASSES, "the label 'Dog' is that of no class in the list of 2"),
        (
            [0, 1],
            b"1\n0\n",
            "the label '0' is the name of one class and the number of another in the list of 2",
        ),
        ([7], None, "labelled by a number, and classes.txt or classes.json does not say of which class"),
    ],
)
def test_a_label_that_means_no_class_is_named(
    labels: list[str | int], classes: bytes | None, fault: str, tmp_path: Path
) -> None:
    files = {"train/0.tar": tar_of(labelled(labels)), "test/0.tar": tar_of(labelled(labels[:1]))}
    write(tmp_path, files | ({"classes.txt": classes} if classes else {}))
    assert f": {fault}" in refused(tmp_path, "in the shards").what


def test_shards_that_are_labelled_in_two_ways_are_refused(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"train/0.tar": tar_of(labelled(["cat", "dog"])), "train/1.tar": tar_of(FOLDERS), "test/0.tar": TEST},
    )
    faults(tmp_path, "images are labelled differently: train/0.tar by .cls, train/1.tar by class folders")


@pytest.mark.parametrize("bad", [0, 1])
@pytest.mark.parametrize("kind", ["cut", "missing"])
def test_a_shard_that_was_not_read_to_its_end_does_not_say_how_images_are_labelled(
    kind: str, bad: int, tmp_path: Path
) -> None:
    whole, places = tar_of(labelled(["cat", "dog"])), [tmp_path / f"far/{i}.tar" for i in range(3)]
    far = write(tmp_path / "far", {place.name: whole for place in places})
    lists = {"train.txt": f"{places[0]}\n{places[1]}\n".encode(), "test.txt": f"{far}/2.tar\n".encode()}
    root = write(tmp_path / "lists", lists)
    places[bad].write_bytes(whole[:1537])
    if kind == "missing":
        places[bad].unlink()
    what = {"cut": "cut off within 000000.cls", "missing": f"the shard is not there: {places[bad]}"}
    faults(root, f"train/{bad}.tar: {what[kind]}")


DAMAGED: Mapping[str, tuple[bytes, str]] = {
    "empty": (b"", "no tar file, or a damaged one, at byte 0: empty file"),
    "html": (b"<html>" * 200, "no tar file, or a damaged one, at byte 512: "),
    "cut within an image": (tar_of(FOLDERS)[:540], "cut off within cat/0.png"),
    "cut within a header": (tar_of(FOLDERS)[: 1024 + 100], "cut off: it lacks the empty blocks"),
    "cut between two members": (tar_of(FOLDERS)[:1024], "cut off: it lacks the empty blocks"),
    "a damaged header": (
        tar_of(FOLDERS)[:1024] + b"\xff" * 512 + tar_of(FOLDERS)[1536:],
        "a damaged header before byte 1,536",
    ),
    "two joined": (tar_of(FOLDERS) + TEST, "more lies behind its end"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_shard_is_named_and_never_a_smaller_one(kind: str, tmp_path: Path) -> None:
    content, fault = DAMAGED[kind]
    write(tmp_path, {"train/0.tar": tar_of(FOLDERS), "train/7.tar": content, "test/0.tar": TEST})
    assert f"1 fault in the shards:\n    train/7.tar: {fault}" in refused(tmp_path, "in the shards").what


def test_no_cut_before_the_empty_blocks_at_its_end_goes_unnoticed(tmp_path: Path) -> None:
    whole = tar_of({"cat/1.png": png("1"), "dog/2.png": png("2")})
    end = whole.rindex(png("2")) + 512  # behind it only those blocks
    for cut in (*range(0, end, 97), end - 1, end, end + 511):
        (tmp_path / "a.tar").write_bytes(whole[:cut])
        assert index_shard("a.tar", tmp_path, max_megapixels=1).faults, cut
    (tmp_path / "a.tar").write_bytes(whole)
    assert not index_shard("a.tar", tmp_path, max_megapixels=1).faults


def test_a_member_of_ten_gigabytes_is_refused_without_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = tarfile.TarInfo("cat/huge.png")
    entry.size = 10**10
    (tmp_path / "a.tar").write_bytes(entry.tobuf(tarfile.GNU_FORMAT))
    os.truncate(tmp_path / "a.tar", 10**10 + 4096)  # sparse: it takes no room
    largest: list[int] = []
    read = tar_stream.ShardFile.read

    def counted(self: tar_stream.ShardFile, start: int, length: int) -> bytes:
        largest.append(start + length)
        return read(self, start, length)

    monkeypatch.setattr(tar_stream.ShardFile, "read", counted)
    indexed = index_shard("a.tar", tmp_path, max_megapixels=1)
    assert indexed.faults == [f"cat/huge.png is to have {10**10:,} bytes, more than {MAX_BYTES:,}; not read"]
    assert max(largest) <= tar_stream.BLOCK


def test_a_header_that_claims_gigabytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 3 * 10**9
    (tmp_path / "a.tar").write_bytes(entry.tobuf(tarfile.GNU_FORMAT))
    os.truncate(tmp_path / "a.tar", 4 * 10**9)
    assert index_shard("a.tar", tmp_path, max_megapixels=1).faults == [
        "a header of 3,000,000,000 bytes at byte 512"
    ]


def test_a_member_of_less_than_no_bytes_is_refused(tmp_path: Path) -> None:
    entry = odd("cat/0.png", pax_headers={"size": "-5"})
    (tmp_path / "pax.tar").write_bytes(entry.tobuf(tarfile.PAX_FORMAT) + bytes(10_240))
    header = bytearray(odd("cat/0.png").tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = b"\xff" * 11 + b"\xfb"  # -5 in base 256
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "base256.tar").write_bytes(bytes(header) + bytes(10_240))
    for name in ("pax.tar", "base256.tar"):
        assert index_shard(name, tmp_path, max_megapixels=1).faults == [
            "cat/0.png is to have -5 bytes, less than none; not read"
        ]


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_very_many_headers_before_a_member_are_a_damaged_shard(kind: bytes, tmp_path: Path) -> None:
    content = {tarfile.GNUTYPE_LONGNAME: b"cat/0.png\0", tarfile.XHDTYPE: b"12 path=a/b\n"}[kind]
    header = odd("x", type=kind, size=len(content)).tobuf(tarfile.GNU_FORMAT) + content.ljust(512, b"\0")
    (tmp_path / "a.tar").write_bytes(header * 1_200 + tar_of(FOLDERS))
    (fault,) = index_shard("a.tar", tmp_path, max_megapixels=1).faults
    assert fault.startswith("no tar file, or a damaged one, at byte ")


@pytest.mark.parametrize("text", [b"", b"# none yet\n\n"])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_list_without_a_shard_names_its_split(split: str, text: bytes, tmp_path: Path) -> None:
    shards = {f"{name}/0.tar": TEST for name in ("train", "val", "test") if name != split}
    error = refused(write(tmp_path, {**shards, f"{split}.txt": text}), f"no image of {split}: the list names")
    assert error.where == str(tmp_path / f"{split}.txt")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_whose_shards_hold_no_image_is_named(split: str, tmp_path: Path) -> None:
    write(tmp_path, {f"{name}/0.tar": TEST for name in ("train", "val", "test")})
    for members in ({"cat/notes.txt": b"x"}, {"cat/1.png": b"<html>"}, dict[str, bytes]()):
        write(tmp_path, {f"{split}/0.tar": tar_of(members)})
        with pytest.raises(DataError, match=f"no image of {split} can be read; left out:") as caught:
            collected(tmp_path, bad="skip")
        assert "give every split shards" in caught.value.fix
    bare = write(tmp_path / "bare", {"0.tar": tar_of({"cat/1.png": b"<html>"})})
    with pytest.raises(DataError, match="no image of any kind can be read; left out: 1 not readable"):
        collected(bare, bad="skip")


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "val", "testing"), ("train",)])
def test_splits_inside_of_a_shard_are_not_taken_for_classes(names: tuple[str, ...], tmp_path: Path) -> None:
    members = {f"{split}/{label}/{i}.png": png(split) for split in names for label in "ab" for i in "12"}
    root = write(tmp_path, {"all.tar": tar_of(members)})
    error = refused(root, f"the shards hold {' and '.join(sorted(names))} at their top: splits")
    assert "train/*.tar" in error.fix
    write(root, {"classes.txt": "\n".join(names).encode()})  # whoever names them so means it
    assert collected(root).class_names == [*names]


def test_a_class_beside_others_may_be_called_as_a_split_is(tmp_path: Path) -> None:
    shard = tar_of({f"{name}/1.png": png(name) for name in ("bus", "train")})
    assert collected(write(tmp_path, {"test/0.tar": shard})).class_names == ["bus", "train"]


def test_class_folders_that_are_called_by_numbers_are_names_as_in_a_folder(tmp_path: Path) -> None:
    digits = {f"{digit}/a.png": png(str(digit)) for digit in range(10)}
    root = write(tmp_path / "tar", {"test/0.tar": tar_of(digits)})
    files = write(tmp_path / "f", {f"test/{name}": body for name, body in digits.items()})
    folder = collect(image_folder(files, max_megapixels=250), on_bad_image="error")
    assert collected(root).class_names == folder.class_names == [*"0123456789"]
    write(root, {"classes.txt": "\n".join("9876543210").encode()})
    made = collected(root)
    assert of(made.splits["test"], made.class_names) == {f"test/0.tar/{name}": name[0] for name in digits}


def test_a_byte_order_mark_is_no_letter_of_a_class(tmp_path: Path) -> None:
    members = labelled(["\ufeffcat", "cat", "dog\r\n"])
    members |= {"x.png": png("x"), "x.cls": "\ufeff".encode() + b"dog"}
    write(tmp_path, {"test/0.tar": tar_of(members)})
    assert collected(tmp_path).class_names == ["cat", "dog"]


def test_two_labels_of_a_key_are_named(tmp_path: Path) -> None:
    members = {"1.png": png("1"), "1.cls": b"cat", "1.CLS": b"dog"}
    fields = {"1.png": png("1"), "1.json": b'{"label": "cat"}', "./1.JSON": b'{"cls": "cat"}'}
    again = [*map(odd, ("1.png", "1.json", "./1.json"))]
    twice = [(entry, fields[entry.name.removeprefix("./")]) for entry in again]
    write(
        tmp_path, {"test/0.tar": tar_of(members), "test/1.tar": tar_of(fields), "test/2.tar": tar_of(twice)}
    )
    error = refused(tmp_path, "4 faults in the shards")
    for line in (
        "test/0.tar: 1.CLS: no label: another .cls of this key lies there too",
        "test/1.tar: 1.JSON: no label: another .json of this key lies there too",
        "test/2.tar: ./1.json: there twice",
        "images are labelled differently",
    ):
        assert line in error.what


def test_bad_images_are_told_as_those_of_a_folder_are_and_may_be_left_out(tmp_path: Path) -> None:
    members = labelled([0, 0, 1, 1])
    members["000001.png"] = members["000001.png"][:40]
    members["000002.png"] = b"<html>"
    write(
        tmp_path,
        {"train/0.tar": tar_of(members), "test/0.tar": tar_of(labelled([0, 1])), "classes.txt": CLASSES},
    )
    error = refused(tmp_path, "2 of 6 images cannot be used")
    assert "train/0.tar/000002.png: empty, or not an image of a known format" in error.what
    made = collected(tmp_path, bad="skip")
    assert made.splits["train"].ids == ["train/0.tar/000000.png", "train/0.tar/000003.png"]
    assert made.left_out == {"not readable as an image": 2}


def test_other_things_in_the_folder_and_in_shards_are_counted(tmp_path: Path) -> None:
    members = {**FOLDERS, "cat/notes.md": b"x", "cat/._0.png": b"litter", "cat/a.heic": b"x"}
    write(tmp_path, {"train/0.tar": tar_of(members), "test/0.tar": TEST, "README.md": b"x", "test/.a": b""})
    assert collected(tmp_path).left_out == {".md": 2, "hidden": 2, ".heic": 1}


def test_what_a_list_names_in_the_folder_itself_is_not_left_out(tmp_path: Path) -> None:
    lists = {"train.txt": b"./shards/0.tar\n", "test.txt": f"file://{tmp_path}/shards/1.tar\n".encode()}
    shards = {"shards/0.tar": tar_of(FOLDERS), "shards/1.tar": TEST, "shards/2.tar": TEST}
    assert collected(write(tmp_path, {**lists, **shards})).left_out == {".tar": 1}


def test_large_letters_make_no_other_file(tmp_path: Path) -> None:
    write(tmp_path, {"Train/0.TAR": tar_of(FOLDERS), "Train/1.tar": tar_of(FOLDERS), "TEST/0.Tar": TEST})
    made = collected(tmp_path)
    assert {split: len(part.ids) for split, part in made.splits.items()} == {"train": 12, "test": 2}
    assert not made.left_out


def test_what_cannot_be_a_shard_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"train/0.tar.gz": b"", "train/1.tgz": b"", "test/0.tar": TEST, "outside/x": b""})
    os.symlink("/etc/hostname", tmp_path / "test" / "1.tar")
    os.symlink("nowhere", tmp_path / "test" / "2.tar")
    error = refused(tmp_path, "4 files cannot be read as shards")
    for part in (
        "train/0.tar.gz: compressed",
        "train/1.tgz",
        "test/1.tar: a symbolic link that leads out",
        "2.tar",
    ):
        assert part in error.what


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({}, "no test shards: no tar file lies there"),
        ({"train/0.tar": TEST}, "no test shards: there is only train"),
        ({"val/0.tar": TEST, "test/0.tar": TEST}, "no train shards: there is only test and val"),
        ({"val/0.tar": TEST, "valid/0.tar": TEST, "test/0.tar": TEST}, "one split has two places"),
        ({"test/0.tar": TEST, "test.txt": b"test/0.tar"}, "one split has two places"),
        ({"test/0.tar": TEST, "train/0.tar": TEST, "0.tar": TEST}, "lie beside the splits"),
        ({"test/0.tar": TEST, "classes.txt": b"a\na\n"}, "classes.txt holds no list of different names"),
        ({"test/0.tar": TEST, "classes.txt": b"\xff"}, "classes.txt holds no list of different names"),
        ({"test/0.tar": TEST, "classes.json": b"{}"}, "classes.json holds no list of different names"),
        ({"test/0.tar": TEST, "classes.json": b'{"a": 1}'}, "classes.json holds no list of different names"),
        ({"test/0.tar": TEST, "classes.json": b"[1]"}, "classes.json holds no list of different names"),
        *(
            ({"test/0.tar": TEST, name: text}, f"{name} holds no list of different names, short and without")
            for name, text in (
                ("classes.txt", b"cat\ndo\x1b[2Jg\n"),
                ("classes.txt", "cat\ndo\u2028g\n".encode()),
                ("classes.txt", b"cat\ndo\0g\n"),
                ("classes.txt", b"cat\n" + b"x" * 1_001),
                ("classes.json", b'["cat", "do\\u0000g"]'),
                ("classes.json", b'["cat", "\\ud800"]'),
                ("classes.json", b'{"cat": 0, "do\\u2029g": 1}'),
            )
        ),
        ({"test/0.tar": TEST, "classes.json": b'["a"]', "classes.txt": b"a"}, "both there"),
    ],
)
def test_a_folder_that_cannot_be_understood_is_refused(
    files: dict[str, bytes], match: str, tmp_path: Path
) -> None:
    refused(write(tmp_path, files), match)


@pytest.mark.parametrize("files", [{}, {"train/0.tar": TEST}, {"0.tar": TEST, "test/0.tar": TEST}])
def test_what_a_folder_may_hold_is_said_with_all_its_ways(files: dict[str, bytes], tmp_path: Path) -> None:
    fix = refused(write(tmp_path, files), "no test shards|lie beside the splits").fix
    for way in (
        "train/*.tar and test/*.tar",
        "train.txt and test.txt",
        "or only *.tar",
        "test alone is enough",
    ):
        assert way in fix


def test_a_list_names_shards_with_or_without_their_sha256(tmp_path: Path) -> None:
    far = write(tmp_path / "far", {"00.tar": tar_of(FOLDERS), "01.tar": tar_of(FOLDERS), "t.tar": TEST})
    root = write(tmp_path / "lists", {"train.txt": f"# shards\n\n{far}/00.tar\n{far}/01.tar\n".encode()})
    write(root, {"test.txt": f"{hashlib.sha256(TEST).hexdigest()}  ../far/t.tar\n".encode()})
    made = collected(root)
    assert len(made.splits["train"].ids) == 2 * len(FOLDERS)
    assert made.splits["test"].ids == ["test/t.tar/cat/9.png", "test/t.tar/dog/9.png"]
    write(root, {"test.txt": f"{'0' * 64} *../far/t.tar\n".encode()})
    sha256 = hashlib.sha256(TEST).hexdigest()
    faults(root, f"test/t.tar: its sha256 is {sha256}, and its list says {'0' * 64}")


def test_a_brace_in_a_list_is_text(tmp_path: Path) -> None:
    place = "s3://b/{a}-{08..11}.tar"
    (shard,), _ = listed(write(tmp_path, {"test.txt": place.encode()}))
    assert (shard.place, shard.name) == (place, "test/{a}-{08..11}.tar")


@pytest.mark.parametrize("place", ["/" + "x" * 63 + " y/a.tar", "x" * 63 + " a.tar", "a" * 64 + ".tar"])
def test_a_long_path_is_no_digest_that_was_written_wrongly(place: str, tmp_path: Path) -> None:
    (shard,), _ = listed(write(tmp_path, {"test.txt": place.encode()}))
    assert (shard.place, shard.digest) == (place, "")


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("s3://key:secret@b/a.tar", "holds a user, a password or a query"),
        ("http://me@host/a.tar", "holds a user, a password or a query"),
        ("https://host/a.tar?X-Amz-Signature=secret", "holds a user, a password or a query"),
        ("https://host/a.tar#secret.tar", "holds a user, a password or a query"),
        ("http:///user:secretpw@host/a.tar", "line 2: this http:// names no server or bucket"),
        ("s3:///secret/a.tar", "line 2: this s3:// names no server or bucket"),
        ("ftp://host/a.tar", "ftp:// is not read, but file, http"),
        ("simplecache::s3://b/a.tar", "simplecache::s3:// is not read"),
        ("a.tar.gz", "a.tar.gz is no .tar"),
        ("g" * 64 + "  a.tar", "line 2: the 64 characters before its path are no sha256"),
        ("0" * 63 + "O *x/a.tar", "line 2: the 64 characters before its path are no sha256"),
        ("secret" + "-" * 58 + "\thttp://host/a.tar", "line 2: the 64 characters before its path are no"),
        ("x/a.tar\ny/a.tar", r"two shards of this list are called a\.tar, and an image's id begins with its"),
    ],
)
def test_a_line_that_names_no_shard_is_refused_and_no_password_repeated(
    line: str, match: str, tmp_path: Path
) -> None:
    error = refused(write(tmp_path, {"test.txt": f"ok.tar\n{line}\n".encode()}), match)
    assert "secret" not in str(error)
    assert "line 2" in error.what or "two shards of" in error.what


def test_a_shard_that_is_listed_and_is_gone_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"test.txt": b"gone.tar\n/dev/null\n"})
    refused(tmp_path, "/dev/null is no .tar")
    write(tmp_path, {"test.txt": b"gone.tar\n"})
    faults(tmp_path, f"test/gone.tar: the shard is not there: {tmp_path / 'gone.tar'}")
    assert "mend the lists" in refused(tmp_path, "in the shards:").fix
    os.mkfifo(tmp_path / "gone.tar")
    with pytest.raises(DataError):  # a pipe, which nobody waits at
        collected(tmp_path)


def test_a_shard_that_may_not_be_read_stops_all_as_it_may_be_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"test/0.tar": TEST})

    def refuse(*arguments: Any, **more: Any) -> io.FileIO:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(EnvironmentFault):
        index_shard("test/0.tar", tmp_path, max_megapixels=1)


class _Counting:
    """Of a pool: it counts what was given to it."""

    def __init__(self) -> None:
        self.given: list[str] = []

    def submit(self, work: Any, place: str) -> Future[Any]:
        self.given.append(place)
        future = Future[Any]()
        future.set_result(work(place))
        return future


@pytest.mark.parametrize("num_shards", [0, 1, 4, 100])
def test_few_shards_are_under_way_at_a_time_and_come_in_order(
    num_shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, places = _Counting(), [f"{i}.tar" for i in range(num_shards)]
    monkeypatch.setattr(checking, "_processes", lambda workers, stack: pool)
    with ExitStack() as stack:
        held = checking.in_order(
            str.upper,
            places,
            workers=2,
            ahead=4,
            names_of=lambda place: [place],
            unit="shard",
            where="",
            stack=stack,
        )
    assert pool.given == places[:4]  # before the first is asked for
    for i, content in enumerate(held):
        assert content == f"{i}.TAR"
        assert len(pool.given) == min(i + 4, num_shards)
    assert pool.given == places


def _dies(place: str, folder: Path, *, max_megapixels: int) -> None:
    os._exit(9)


def test_a_process_that_is_killed_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarfolder, "index_shard", _dies)
    write(tmp_path, {"test/0.tar": TEST})
    with pytest.raises(EnvironmentFault) as caught:
        collected(tmp_path)
    assert caught.value.what.endswith("ended before its time (exit code 9), at test/0.tar")
    assert caught.value.where == str(tmp_path)


def test_very_many_faults_are_counted_and_a_few_are_named(tmp_path: Path) -> None:
    members = labelled([0] * 300)
    write(tmp_path, {"test/0.tar": tar_of({k: v for k, v in members.items() if not k.endswith("7.cls")})})
    error = refused(write(tmp_path, {"classes.txt": CLASSES}), "30 faults in the shards")
    assert error.what.endswith("and 10 more")


def test_images_of_which_the_same_is_wrong_are_told_in_a_line_with_the_first_names(tmp_path: Path) -> None:
    shards = {"train/0.tar": tar_of(labelled([*range(200), "x"])), "test/0.tar": tar_of(labelled([7, 8, 9]))}
    write(tmp_path, shards)
    first = ", ".join(f"train/0.tar/{i:06d}.png" for i in range(3))
    number = "labelled by a number, and classes.txt or classes.json does not say of which class"
    faults(tmp_path, f"{first} and 200 more: {number}")
    assert refused(tmp_path, "in the shards").what.startswith("203 faults in the shards:")
    write(tmp_path, {"classes.txt": CLASSES})
    lines = refused(tmp_path, "202 faults in the shards").what.splitlines()[1:]
    assert lines[0] == ("    train/0.tar/000002.png: the label '2' is that of no class in the list of 2")
    assert lines[5].startswith("    train/0.tar/000007.png, test/0.tar/000000.png: the label '7' is that of")
    assert (len(lines), lines[-1]) == (21, "    and 179 more")  # 202 but 20 lines, 3 of which name two


def test_flipped_bits_are_a_fault_or_another_digest_and_never_a_crash(tmp_path: Path) -> None:
    whole = tar_of({**FOLDERS, "cat/long" + "g" * 120 + ".png": png("l")})
    rng = np.random.default_rng(0)
    (tmp_path / "a.tar").write_bytes(whole)
    before = index_shard("a.tar", tmp_path, max_megapixels=1)
    named = 0
    for _ in range(400):
        content = bytearray(whole)
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        (tmp_path / "a.tar").write_bytes(content)
        now = index_shard("a.tar", tmp_path, max_megapixels=1)
        assert now.faults or now.digest != before.digest
        assert all(image.offset + image.size <= len(whole) for image in now.images)
        named += bool(now.faults) or any(image.error for image in now.images)
    assert named > 40
