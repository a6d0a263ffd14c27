"""The registry: its rows, the digits, and archives that are not what they claim to be.

The official CIFAR formats are read in tests/datasets/test_download.py, from the server to the dataset file.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torchvision
from sklearn.datasets import load_digits

from clipcifar.core.errors import ConfigError, DataError
from clipcifar.datasets import array_sets, registry
from clipcifar.datasets.registry import REGISTRY
from tests.support.local_server import serving

LOADERS = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}
both = pytest.mark.parametrize("name", LOADERS)


def _tar_gz(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, body in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return stream.getvalue()


NOISE = np.random.default_rng(0).bytes(50_000)
GOOD_TAR = _tar_gz({"cifar-10-batches-py/data_batch_1": NOISE})


def _load(name: str, archive: Path) -> array_sets.ArrayDataset:
    loader = REGISTRY[name].load
    assert loader is not None
    return loader(archive)


def test_an_unknown_dataset_gets_a_suggestion() -> None:
    assert registry.registered("digits") is REGISTRY["digits"]
    with pytest.raises(ConfigError, match="unknown dataset 'cifar-100'") as caught:
        registry.registered("cifar-100")
    assert caught.value.fix == "did you mean cifar100?"
    with pytest.raises(ConfigError) as caught:
        registry.registered("zzz")
    assert caught.value.fix == "use one of: " + ", ".join(REGISTRY)


@both
def test_every_archive_is_torchvisions_and_says_where_its_digest_is_from(name: str) -> None:
    (archive,) = REGISTRY[name].archives
    assert (archive.filename, archive.url) == (LOADERS[name].filename, LOADERS[name].url)
    assert re.fullmatch("[0-9a-f]{64}", archive.digest)
    assert archive.digest_source


def test_two_archives_have_two_digests() -> None:
    archives = [archive for row in REGISTRY.values() for archive in row.archives]
    assert len({archive.digest for archive in archives}) == len(archives) == 10


@both
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>not found</html>",
        gzip.compress(b"no tar in here" * 100),
        GOOD_TAR[: len(GOOD_TAR) // 2],
        GOOD_TAR[:-6],
        GOOD_TAR[:1000] + b"\0" * 100 + GOOD_TAR[1100:],
        GOOD_TAR,
        _tar_gz({}),
    ],
    ids=[
        "empty",
        "html",
        "gzip of text",
        "cut at half",
        "cut at the end",
        "damaged",
        "other files",
        "no files",
    ],
)
def test_a_foreign_or_damaged_archive_is_bad_data_and_left_as_it_was(
    name: str, content: bytes, tmp_path: Path
) -> None:
    archive = tmp_path / "mine.tar.gz"
    archive.write_bytes(content)
    with pytest.raises(DataError, match="does not hold the official CIFAR") as caught:
        _load(name, archive)
    assert caught.value.where == str(archive)
    assert caught.value.exit_code == 3
    assert archive.read_bytes() == content


@both
def test_reading_an_archive_never_asks_the_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision's own download would overwrite the archive of a person who has another one."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    archive = tmp_path / "mine.tar.gz"
    archive.write_bytes(GOOD_TAR)
    with serving() as server:
        server.files["/x.tar.gz"] = b"from the network"
        monkeypatch.setattr(LOADERS[name], "url", f"{server.url}/x.tar.gz")
        monkeypatch.setattr(LOADERS[name], "tgz_md5", hashlib.md5(b"from the network").hexdigest())
        with pytest.raises(DataError):
            _load(name, archive)
        assert server.requests == []
    assert archive.read_bytes() == GOOD_TAR


@pytest.mark.parametrize("member", ["../escaped", "cifar-10-batches-py/../../../escaped"])
def test_an_archive_cannot_write_outside_its_folder(
    member: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    archive = tmp_path / "hostile.tar.gz"
    archive.write_bytes(_tar_gz({member: b"x"}))
    with pytest.raises(DataError):
        _load("cifar10", archive)
    assert not [path for path in tmp_path.rglob("*") if path.name == "escaped"]


@pytest.mark.parametrize("good", [True, False])
def test_nothing_stays_in_the_temporary_folder(
    good: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "a.tar.gz").write_bytes(GOOD_TAR if good else GOOD_TAR[:300])
    with pytest.raises(DataError):
        _load("cifar10", tmp_path / "a.tar.gz")
    assert list((tmp_path / "scratch").iterdir()) == []


def _scan(index: int) -> np.ndarray:
    """The naive reference: every pixel of an 8 x 8 scan, one by one, into a 32 x 32 RGB image."""
    scan = load_digits().images[index]
    image = np.zeros((32, 32, 3), np.uint8)
    for y in range(32):
        for x in range(32):
            image[y, x] = round(scan[y // 4, x // 4] * 255 / 16)
    return image


def test_each_digit_is_the_scan_that_its_id_names() -> None:
    target = load_digits().target
    found = array_sets.load_digits()
    for name, split in (("train", found.train), ("test", found.test)):
        numbers = [int(sample_id.removeprefix(f"{name}/")) for sample_id in split.ids]
        np.testing.assert_array_equal(split.labels, target[numbers])
        for row in (0, 17, len(numbers) - 1):
            np.testing.assert_array_equal(split.images[row], _scan(numbers[row]))


def test_the_three_parts_of_the_digits_share_no_scan_and_leave_none_out() -> None:
    parts = [set(part.tolist()) for part in array_sets._digits_division()]
    assert [len(part) for part in parts] == [700, 397, 700]
    assert set.union(*parts) == set(range(1797))
    found = array_sets.load_digits()
    numbers = {int(sample_id.split("/")[1]) for split in (found.test, found.train) for sample_id in split.ids}
    assert numbers == parts[1] | parts[2]
    images, labels = array_sets.reserved_digits()
    np.testing.assert_array_equal(labels, load_digits().target[sorted(parts[0])])
    np.testing.assert_array_equal(images[3], _scan(sorted(parts[0])[3]))


def test_the_digits_arrays_have_the_shapes_and_types_that_the_registry_promises() -> None:
    found = array_sets.load_digits()
    images, labels = array_sets.reserved_digits()
    for pixels, classes in (
        (found.train.images, found.train.labels),
        (found.test.images, found.test.labels),
        (images, labels),
    ):
        assert pixels.shape == (len(classes), 32, 32, 3)
        assert (pixels.dtype, classes.dtype) == (np.uint8, np.int64)
        assert (pixels.min(), pixels.max()) == (0, 255)
        assert set(classes) == set(range(10))
        assert np.array_equal(pixels[..., 0], pixels[..., 1])
        assert np.array_equal(pixels[..., 0], pixels[..., 2])
    assert found.class_names == [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
    ]
