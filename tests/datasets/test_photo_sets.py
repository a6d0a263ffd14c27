"""Public sets of photographs: small archives in each set's own format, and archives that mean harm."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torchvision
from PIL import Image

from clipcifar.core import first_use, params
from clipcifar.core.errors import ConfigError, DataError
from clipcifar.core.params import NO_PATH
from clipcifar.datasets import archives, photo_sets, registry
from clipcifar.datasets.archives import Archive, unpack
from clipcifar.datasets.params import DatasetParams, photograph_folder
from clipcifar.datasets.registry import REGISTRY
from clipcifar.store.dataset import Prepared, read_dataset
from stages import download as download_stage, prepare as prepare_stage
from tests.support.local_server import Server, serving

PHOTO_SETS = [name for name, row in REGISTRY.items() if row.photographs is not None]
every_set = pytest.mark.parametrize("name", PHOTO_SETS)


def jpeg(number: int) -> bytes:
    """A photograph of its own size and colour."""
    stream = io.BytesIO()
    Image.new("RGB", (20 + number % 7, 16 + number % 5), (number * 37 % 256, number % 256, 90)).save(
        stream, "JPEG"
    )
    return stream.getvalue()


def tar_gz(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, body in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return stream.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for name, body in members.items():
            packed.writestr(name, body)
    return stream.getvalue()


def mat(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    scipy.io.savemat(stream, arrays)
    return stream.getvalue()


class Small:
    """A small set: its archives by file name, and by split and class the photographs that it should give."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.expected: dict[str, dict[str, set[bytes]]] = {}

    def expect(self, split: str, class_name: str, content: bytes) -> bytes:
        self.expected.setdefault(split, {}).setdefault(class_name, set()).add(content)
        return content


def small_pets() -> Small:
    small, images, lists = Small(), {}, {"trainval": "", "test": ""}
    names = {"american_bulldog": "American Bulldog", "Bombay": "Bombay"}
    for label, (code, name) in enumerate(names.items()):
        for i in range(6):
            official = "trainval" if i < 4 else "test"
            content = small.expect("train" if i < 4 else "test", name, jpeg(10 * label + i))
            images[f"images/{code}_{i}.jpg"] = content
            lists[official] += f"{code}_{i} {label + 1} {label + 1} 1\n"
    images["images/._Bombay_1.jpg"] = b"of another system"
    images["images/Bombay_9.jpg"] = jpeg(99)  # the real set, too, has some that no list names
    notes = {f"annotations/{name}.txt": text.encode() for name, text in lists.items()}
    notes["annotations/trimaps/Bombay_1.png"] = b"not needed"
    small.files = {"images.tar.gz": tar_gz(images), "annotations.tar.gz": tar_gz(notes)}
    return small


def small_flowers() -> Small:
    small, images, labels = Small(), {}, []
    ids: dict[str, list[int]] = {"trnid": [], "valid": [], "tstid": []}
    names = {
        1: "pink primrose",
        16: "globe flower",
        60: "pink and yellow dahlia",
        93: "air plant",
        102: "blackberry lily",
    }
    for i in range(1, 16):
        label = list(names)[i % 5]
        key, split = [("trnid", "train"), ("valid", "val"), ("tstid", "test")][(i - 1) // 5]
        images[f"jpg/image_{i:05d}.jpg"] = small.expect(split, names[label], jpeg(i))
        labels.append(label)
        ids[key].append(i)
    small.files = {
        "102flowers.tgz": tar_gz(images),
        "imagelabels.mat": mat(labels=np.array(labels, dtype=np.uint8)),
        "setid.mat": mat(**{key: np.array(rows, dtype=np.uint16) for key, rows in ids.items()}),
    }
    return small


def small_food() -> Small:
    small, members = Small(), {}
    listed: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for c, code in enumerate(("apple_pie", "pho")):
        for i in range(5):
            split = "train" if i < 3 else "test"
            content = small.expect(split, code.replace("_", " "), jpeg(20 * c + i))
            members[f"food-101/images/{code}/{1000 + i}.jpg"] = content
            listed[split].setdefault(code, []).append(f"{code}/{1000 + i}")
    for split, content_of in listed.items():
        members[f"food-101/meta/{split}.json"] = json.dumps(content_of).encode()
    small.files = {"food-101.tar.gz": tar_gz(members)}
    return small


def small_eurosat() -> Small:
    small, members = Small(), {}
    for c, (code, name) in enumerate((("AnnualCrop", "annual crop land"), ("SeaLake", "lake or sea"))):
        for i in range(10):
            members[f"2750/{code}/{code}_{i + 1}.jpg"] = small.expect("any", name, jpeg(30 * c + i))
    small.files = {"EuroSAT.zip": zipped({"2750/": b"", **members})}
    return small


def small_dtd() -> Small:
    small, members = Small(), {"dtd/imdb/imdb.mat": b"", "dtd/images/banded/.directory": b""}
    lists = {"train1": "", "val1": "", "test1": "", "train2": "banded/banded_0.jpg\n"}
    for c, name in enumerate(("banded", "polka-dotted")):
        for i in range(6):
            split = ("train", "val", "test")[i // 2]
            members[f"dtd/images/{name}/{name}_{i}.jpg"] = small.expect(split, name, jpeg(40 * c + i))
            lists[f"{split}1"] += f"{name}/{name}_{i}.jpg\n"
    members |= {f"dtd/labels/{name}.txt": text.encode() for name, text in lists.items()}
    small.files = {"dtd-r1.0.1.tar.gz": tar_gz(members)}
    return small


MAKERS = {
    "pets": small_pets,
    "flowers102": small_flowers,
    "food101": small_food,
    "eurosat": small_eurosat,
    "dtd": small_dtd,
}


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as running:
        yield running


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, server: Server) -> Any:
    """Put the small archives behind the registry's row; the listing stays the real one."""

    def install(name: str) -> Small:
        small = MAKERS[name]()
        assert [archive.filename for archive in REGISTRY[name].archives] == list(small.files)
        found = []
        for archive in REGISTRY[name].archives:
            content = small.files[archive.filename]
            server.files[f"/{archive.filename}"] = content
            found.append(replace(archive, url=f"{server.url}/{archive.filename}", digest=md5(content)))
        monkeypatch.setitem(REGISTRY, name, replace(REGISTRY[name], archives=tuple(found)))
        known = {
            key: (file, md5(small.files[file]) if file in small.files else digest)
            for key, (file, digest) in torchvision.datasets.Flowers102._file_dict.items()
        }
        monkeypatch.setattr(torchvision.datasets.Flowers102, "_file_dict", known)
        return small

    return install


def settings(name: str, path: str = NO_PATH) -> dict[str, Any]:
    dataset = {"name": name, "path": path, "max_per_class": None, "seed": 0, "on_bad_image": "error"}
    return {"dataset": dataset, "split": {"val_fraction": 0.25, "seed": 0}}


def prepared(given: dict[str, Any], folder: Path) -> Prepared:
    Path(NO_PATH).parent.mkdir(exist_ok=True)
    Path(NO_PATH).write_text("")
    folder.mkdir(exist_ok=True)
    download_stage.main(given, folder / "raw")
    prepare_stage.main(given, folder / "raw", folder / "d.h5", folder / "s.h5", folder / "c.json")
    return read_dataset(folder / "d.h5")


def contents(found: Prepared, raw: Path) -> dict[str, dict[str, set[bytes]]]:
    """By split and class the bytes of the listed files."""
    by_split: dict[str, dict[str, set[bytes]]] = {}
    for part in (found.train, found.test):
        for label, sample_id in zip(part.labels, part.ids, strict=True):
            split, folder, _ = sample_id.split("/")
            assert found.class_names[label] == folder
            by_split.setdefault(split, {}).setdefault(folder, set()).add((raw / sample_id).read_bytes())
    return by_split


@every_set
def test_an_archive_in_the_sets_own_format_comes_out_as_its_photographs(
    name: str, installed: Any, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = installed(name)
    found = prepared(settings(name), tmp_path)
    by_split = contents(found, tmp_path / "raw")
    if name == "eurosat":
        merged = {c: by_split["train"][c] | by_split["test"][c] for c in by_split["train"]}
        assert {"any": merged} == small.expected
    else:
        assert by_split == small.expected
    assert not found.train.in_memory
    assert found.left_out == ({"not named in the lists of the set": 1} if name == "pets" else {})
    digests = [digest.decode() for digest in found.test.content.tolist()]
    paths = [tmp_path / "raw" / sample_id for sample_id in found.test.ids]
    assert digests == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    assert len(server.requests) == len(small.files)
    left = {path.relative_to(tmp_path / "raw").parts[0] for path in (tmp_path / "raw").iterdir()}
    assert left <= {"train", "val", "test", "source.json"}


@every_set
def test_archives_placed_by_hand_need_no_network(
    name: str, installed: Any, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = installed(name)
    by_hand = tmp_path / "by hand"
    by_hand.mkdir()
    for file, content in small.files.items():
        (by_hand / file).write_bytes(content)
    fetched = prepared(settings(name), tmp_path / "a")
    asked = len(server.requests)
    path = by_hand if len(small.files) > 1 else by_hand / next(iter(small.files))
    placed = prepared(settings(name, str(path)), tmp_path / "b")
    assert placed.digest == fetched.digest
    assert len(server.requests) == asked
    if len(small.files) > 1:
        (by_hand / list(small.files)[-1]).unlink()
        with pytest.raises(ConfigError, match=f"{list(small.files)[-1]} is not a file"):
            prepared(settings(name, str(by_hand)), tmp_path / "c")


def into_dvcs_cache(folder: Path, cache: Path, link: Callable[[Path, Path], None]) -> dict[Path, bytes]:
    """Put the files of a folder into a cache as DVC does, and links in their places; what it then holds."""
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        digest = md5(path.read_bytes())
        kept = cache / digest[:2] / digest[2:]
        kept.parent.mkdir(parents=True, exist_ok=True)
        link(path, path.replace(kept))
    return {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()}


@every_set
@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_what_dvc_has_linked_is_read_and_never_written_through(
    link: Callable[[Path, Path], None],
    name: str,
    installed: Any,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The archives placed by hand, in a folder that is a link itself, and what was unpacked of them."""
    monkeypatch.chdir(tmp_path)
    small = installed(name)
    by_hand = tmp_path / "by hand"
    by_hand.mkdir()
    for file, content in small.files.items():
        (by_hand / file).write_bytes(content)
    plain = prepared(settings(name, str(by_hand)), tmp_path / "a")
    kept = into_dvcs_cache(by_hand, tmp_path / "cache", link)
    (tmp_path / "linked").symlink_to(by_hand, target_is_directory=True)
    given = settings(name, str(tmp_path / "linked"))
    assert prepared(given, tmp_path / "b").digest == plain.digest
    kept |= into_dvcs_cache(tmp_path / "b/raw", tmp_path / "cache", link)
    photographs = [path for path in (tmp_path / "b/raw").rglob("*.jpg") if path.is_file()]
    assert len(photographs) == len(plain.train.ids) + len(plain.test.ids)
    assert all(path.is_symlink() or path.stat().st_nlink > 1 for path in photographs)
    paths = ("d.h5", "s.h5", "c.json")
    prepare_stage.main(given, tmp_path / "b/raw", *(tmp_path / "b" / path for path in paths))
    assert read_dataset(tmp_path / "b/d.h5").digest == plain.digest
    assert prepared(given, tmp_path / "b").digest == plain.digest  # the stages by hand, over links
    assert not [path for path in (tmp_path / "b/raw").rglob("*") if path.is_symlink()]
    assert {path: path.read_bytes() for path in kept} == kept
    assert server.requests == []


def test_a_set_laid_out_by_hand_over_another_leaves_nothing_of_that_one(
    installed: Any, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    installed("pets")
    installed("dtd")
    alone = prepared(settings("dtd"), tmp_path / "alone")
    prepared(settings("pets"), tmp_path / "both")
    (tmp_path / "both/raw/.unpacking/dtd").mkdir(parents=True)
    (tmp_path / "both/raw/.unpacking/dtd/of a killed run").write_text("")
    assert prepared(settings("dtd"), tmp_path / "both").digest == alone.digest
    assert not (tmp_path / "both/raw/.unpacking").exists()


@every_set
def test_every_archive_is_torchvisions_and_says_where_its_digest_is_from(name: str) -> None:
    sets = torchvision.datasets
    flowers = sets.Flowers102
    official = {
        "pets": sets.OxfordIIITPet._RESOURCES,
        "flowers102": [
            (flowers._download_url_prefix + file, md5) for file, md5 in flowers._file_dict.values()
        ],
        "food101": [(sets.Food101._URL, sets.Food101._MD5)],
        "dtd": [(sets.DTD._URL, sets.DTD._MD5)],
    }
    found = REGISTRY[name].archives
    if name in official:
        assert [(archive.url, archive.digest) for archive in found] == list(official[name])
    else:  # written into a method there
        source = Path(sets.eurosat.__file__).read_text()
        assert all(f'"{archive.url}"' in source and f'"{archive.digest}"' in source for archive in found)
    assert all(archive.algorithm == "md5" and "torchvision" in archive.digest_source for archive in found)


def test_the_renamed_classes_are_those_that_torchvision_has() -> None:
    assert set(photo_sets._FLOWER_NAMES) < set(torchvision.datasets.Flowers102.classes)
    names = [photo_sets._FLOWER_NAMES.get(name, name) for name in torchvision.datasets.Flowers102.classes]
    assert len(set(names)) == 102
    assert {names[label - 1] for label in (16, 60, 93)} == set(photo_sets._FLOWER_NAMES.values())
    assert (names[91], names[92], names[93]) == ("bee balm", "air plant", "foxglove")  # as CLIP lists them
    assert not any(set("?/_") & set(name) for name in names)


def test_eurosats_split_depends_on_nothing_but_file_names(
    installed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = installed("eurosat")
    found = prepared(settings("eurosat"), tmp_path / "a")
    assert np.bincount(found.test.labels).tolist() == [2, 2]
    for c in ("AnnualCrop", "SeaLake"):
        names = [f"{c}_{i + 1}.jpg" for i in range(10)]
        ranked = sorted(names, key=lambda name: hashlib.sha256(f"test\0{0}\0{c}/{name}".encode()).digest())
        assert {Path(i).name for i in found.test.ids if Path(i).name.startswith(c)} == set(ranked[:2])
    with zipfile.ZipFile(io.BytesIO(small.files["EuroSAT.zip"])) as packed:
        other = zipped({name: packed.read(name) for name in reversed(packed.namelist())})
    (archive,) = REGISTRY["eurosat"].archives
    row = replace(REGISTRY["eurosat"], archives=(replace(archive, digest=md5(other)),))
    monkeypatch.setitem(REGISTRY, "eurosat", row)
    (tmp_path / "other.zip").write_bytes(other)
    assert prepared(settings("eurosat", str(tmp_path / "other.zip")), tmp_path / "b").digest == found.digest


def test_a_changed_archive_is_refused_though_its_md5_were_right(
    installed: Any, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MD5 can be forged: the first file under an address is remembered by its sha256."""
    monkeypatch.chdir(tmp_path)
    installed("dtd")
    prepared(settings("dtd"), tmp_path / "a")
    monkeypatch.setattr(first_use, "file_sha256", lambda path: "0" * 64)
    with pytest.raises(DataError, match="first used"):
        prepared(settings("dtd"), tmp_path / "b")


def test_a_wrong_archive_is_refused_before_it_is_unpacked(
    installed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    installed("dtd")
    (tmp_path / "x.tar.gz").write_bytes(tar_gz({"dtd/labels/train1.txt": b"x"}))
    with pytest.raises(DataError, match="has md5") as caught:
        prepared(settings("dtd", str(tmp_path / "x.tar.gz")), tmp_path)
    assert caught.value.exit_code == 3
    assert not (tmp_path / "raw" / "train").exists()


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train1": "a/b.jpg\n"}, "it lacks b.jpg"),
        ({"train1": "../b.jpg\n"}, "no plain names"),
        ({"train1": "a/1.jpg\na/1.jpg\n"}, "twice|lacks"),
        ({"train1": "a/b/c.jpg\n"}, "annotations cannot be read"),
        ({"train1": "nonsense\n"}, "annotations cannot be read"),
        ({}, "it lacks train1.txt"),
    ],
)
def test_annotations_that_lie_are_bad_data(lists: dict[str, str], message: str, tmp_path: Path) -> None:
    full = {**dict.fromkeys(("val1", "test1"), "a/1.jpg\n"), **lists}
    members = {f"dtd/labels/{name}.txt": text.encode() for name, text in full.items()}
    archive = Archive("d.tar.gz", "", "", "", "md5", "dtd")
    (tmp_path / "d.tar.gz").write_bytes(tar_gz({**members, "dtd/images/a/1.jpg": jpeg(1)}))
    (tmp_path / "raw").mkdir()
    with pytest.raises(DataError, match=message) as caught:
        photo_sets.lay_out([(archive, tmp_path / "d.tar.gz")], photo_sets.dtd, tmp_path / "raw")
    assert str(tmp_path / "d.tar.gz") in caught.value.where


def hostile(kind: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        entry = tarfile.TarInfo("a/link.jpg")
        entry.type, entry.linkname = {"sym": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}[kind], "../../secret"
        tar.addfile(entry)
        good = tarfile.TarInfo("a/good.jpg")
        good.size = 1
        tar.addfile(good, io.BytesIO(b"x"))
    return stream.getvalue()


def hostile_zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        link = zipfile.ZipInfo("a/link.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(link, "../../secret")
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["sym", "hard", "zip"])
def test_a_link_in_an_archive_is_neither_made_nor_left_out_unsaid(kind: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "x").write_bytes(hostile_zip() if kind == "zip" else hostile(kind))
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match=r"'a/link\.jpg' in it is a link or a device"):
        unpack(tmp_path / "x", tmp_path / "in", keep=lambda name: True)
    assert not (tmp_path / "in" / "a" / "link.jpg").exists()


@pytest.mark.parametrize("kind", ["sym", "hard"])
def test_a_link_that_is_not_wanted_does_no_harm(kind: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(hostile(kind))
    unpack(tmp_path / "x", tmp_path / "in", keep=lambda name: name.name == "good.jpg")
    assert [path.name for path in (tmp_path / "in" / "a").iterdir()] == ["good.jpg"]


GOOD = tar_gz({f"a/{i}.jpg": jpeg(i) for i in range(9)})
BAD = {
    "upwards": tar_gz({"../x.jpg": b"x"}),
    "deep upwards": tar_gz({"a/b/../../../x.jpg": b"x"}),
    "absolute": tar_gz({"/tmp/clipcifar-escaped.jpg": b"x"}),
    "of Windows": tar_gz({"..\\x.jpg": b"x"}),
    "zip upwards": zipped({"../x.jpg": b"x"}),
    "a bomb": tar_gz({"a.jpg": bytes(10_000_000)}),
    "a zipped bomb": b"",
    "twice": None,
    "file as folder": tar_gz({"a": b"x", "a/b.jpg": b"x"}),
    "cut": GOOD[: len(GOOD) // 2],
    "damaged": GOOD[:400] + b"\0" * 50 + GOOD[450:],
    "text": b"<html>not found</html>",
    "empty": b"",
    "half a zip": zipped({"a.jpg": jpeg(1)})[:-30],
}


@pytest.mark.parametrize("kind", BAD)
def test_a_hostile_or_damaged_archive_is_bad_data_and_writes_nowhere_else(kind: str, tmp_path: Path) -> None:
    content = BAD[kind]
    if kind == "a zipped bomb":
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("a.jpg", bytes(10_000_000))
        content = stream.getvalue()
    if content is None:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz") as tar:
            for _ in range(2):
                entry = tarfile.TarInfo("a.jpg")
                entry.size = 1
                tar.addfile(entry, io.BytesIO(b"x"))
        content = stream.getvalue()
    (tmp_path / "x.tgz").write_bytes(content)
    folder = tmp_path / "deep" / "in"
    folder.mkdir(parents=True)
    with pytest.raises(DataError) as caught:
        unpack(tmp_path / "x.tgz", folder, keep=lambda name: True)
    assert caught.value.where == str(tmp_path / "x.tgz")
    outside = {path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(folder)}
    assert outside == {tmp_path / "x.tgz"}
    assert not Path("/tmp/clipcifar-escaped.jpg").exists()
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 8_000_000


def test_a_good_archive_of_either_kind_is_unpacked_whole(tmp_path: Path) -> None:
    """Negative control of the test above."""
    members = {f"a/{i}.jpg": jpeg(i) for i in range(3)}
    for kind, content in (("tar", tar_gz(members)), ("zip", zipped(members))):
        (tmp_path / kind).mkdir()
        (tmp_path / f"{kind}.x").write_bytes(content)
        unpack(tmp_path / f"{kind}.x", tmp_path / kind, keep=lambda name: name.name != "1.jpg")
        found = {
            path.relative_to(tmp_path / kind).as_posix(): path.read_bytes()
            for path in (tmp_path / kind).rglob("*.jpg")
        }
        assert found == {name: body for name, body in members.items() if name != "a/1.jpg"}
    assert archives.MAX_EXPANSION > 1


def test_ids_are_relative_to_a_persons_folder_or_to_what_was_unpacked(tmp_path: Path) -> None:
    own = DatasetParams("imagefolder", "/mine", None, 0, "error")
    assert photograph_folder(own, tmp_path) == Path("/mine")
    assert photograph_folder(replace(own, name="pets"), tmp_path) == tmp_path
    assert registry.located(REGISTRY["cifar10"].archives[0], replace(own, name="cifar10"), tmp_path) == Path(
        "/mine"
    )
    assert tuple(REGISTRY) == params.DATASETS
