"""Archives: the network and its faults, the official CIFAR formats, and archives placed by hand."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision

from clipcifar.core.errors import ConfigError, DataError, EnvironmentFault
from clipcifar.core.params import NO_PATH
from clipcifar.datasets import array_sets, download, registry
from clipcifar.datasets.archives import Archive
from clipcifar.store.dataset import Prepared, read_dataset
from stages import download as download_stage, prepare as prepare_stage
from tests.support.local_server import Server, serving
from tests.support.waiting import PATIENCE_S

# pooch leaves the socket of an answer that broke off to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
CONTENT = b"the archive " * 1000


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as running:
        running.files["/a.tar.gz"] = CONTENT
        yield running


def _archive(server: Server, content: bytes = CONTENT) -> Archive:
    digest = hashlib.sha256(content).hexdigest()
    return Archive("a.tar.gz", f"{server.url}/a.tar.gz", digest, "made here")


def test_an_archive_is_fetched_once_and_then_found(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        path = download.fetch(_archive(server), downloads=tmp_path)
        assert path.read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_an_archive_placed_by_hand_asks_nobody(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(CONTENT)
    assert download.fetch(_archive(server), downloads=tmp_path) == tmp_path / "a.tar.gz"
    assert server.requests == []


def test_a_wrong_file_is_replaced_only_by_the_right_one(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"half a download")
    server.faults = [503] * 20
    with pytest.raises(EnvironmentFault):
        download.fetch(_archive(server), downloads=tmp_path)
    assert (tmp_path / "a.tar.gz").read_bytes() == b"half a download"
    server.faults = []
    assert download.fetch(_archive(server), downloads=tmp_path).read_bytes() == CONTENT


def test_the_tries_are_counted(server: Server, tmp_path: Path) -> None:
    server.faults = [503] * 20
    with pytest.raises(EnvironmentFault):
        download.fetch(_archive(server), downloads=tmp_path)
    assert len(server.requests) == 1 + download.RETRIES


def test_a_refused_connection_is_an_environment_fault(server: Server, tmp_path: Path) -> None:
    gone = replace(_archive(server), url="http://127.0.0.1:9/a.tar.gz")
    with pytest.raises(EnvironmentFault, match=r"could not download http://127\.0\.0\.1:9/"):
        download.fetch(gone, downloads=tmp_path, retries=1)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_download_leaves_no_litter(server: Server, tmp_path: Path) -> None:
    server.faults = ["cut"] * 20
    with pytest.raises(EnvironmentFault):
        download.fetch(_archive(server), downloads=tmp_path, retries=1)
    assert list(tmp_path.iterdir()) == []


def test_the_check_accepts_the_digest_and_names_both_where_it_differs(server: Server, tmp_path: Path) -> None:
    file, archive = tmp_path / "mine.bin", _archive(server)
    file.write_bytes(CONTENT)
    download.check(file, archive)
    file.write_bytes(CONTENT + b" ")
    with pytest.raises(DataError) as caught:
        download.check(file, archive)
    for part in (archive.digest, hashlib.sha256(CONTENT + b" ").hexdigest(), "made here", str(file)):
        assert part in str(caught.value)
    file.unlink()
    with pytest.raises(EnvironmentFault):
        download.check(file, archive)


@pytest.mark.parametrize("fault", [503, "cut", "stall"])
def test_a_passing_fault_is_retried(server: Server, tmp_path: Path, fault: int | str) -> None:
    server.faults = [fault]
    path = download.fetch(
        _archive(server), downloads=tmp_path, timeout_s=2.0 if fault == "stall" else PATIENCE_S
    )
    assert path.read_bytes() == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize("fault", [404, 503, "cut", "stall", "wrong bytes"])
def test_a_lasting_fault_ends_after_bounded_tries_with_the_manual_way(
    server: Server, tmp_path: Path, fault: int | str
) -> None:
    archive = _archive(server)
    if fault == "wrong bytes":
        server.files["/a.tar.gz"] = CONTENT[:-1] + b"x"
    else:
        server.faults = [fault] * 20
    timeout_s = 0.3 if fault == "stall" else PATIENCE_S
    with pytest.raises(EnvironmentFault) as caught:
        download.fetch(archive, downloads=tmp_path, retries=2, timeout_s=timeout_s)
    assert caught.value.exit_code == 4
    message = str(caught.value)
    for part in (archive.url, str(tmp_path / "a.tar.gz"), "dataset.path", "make demo"):
        assert part in message
    assert ("made here" in message) == (fault == "wrong bytes")
    assert 1 <= len(server.requests) <= 3
    assert not (tmp_path / "a.tar.gz").exists()


def _batch(rng: np.random.Generator, n: int, **keys: Any) -> tuple[dict[Any, Any], np.ndarray]:
    pixels = rng.integers(0, 256, (n, 3, 32, 32)).astype(np.uint8)
    return {"data": pixels.reshape(n, -1), **keys}, pixels.transpose(0, 2, 3, 1)


def _tar(folder: str, members: dict[str, dict[Any, Any]]) -> tuple[bytes, dict[str, str]]:
    stream, digests = io.BytesIO(), {}
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in members.items():
            body = pickle.dumps(content)
            digests[name] = hashlib.md5(body).hexdigest()
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return stream.getvalue(), digests


NAMES10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class Small:
    """A small archive in an official format, and what it holds."""

    def __init__(
        self, name: str, content: bytes, pixels: dict[str, np.ndarray], labels: dict[str, list[int]]
    ) -> None:
        self.name, self.content, self.pixels, self.labels = name, content, pixels, labels


def _install(
    monkeypatch: pytest.MonkeyPatch, server: Server, name: str, content: bytes, **attributes: Any
) -> None:
    """Point torchvision's checks and our registry at the small archive; both loaders stay the real ones."""
    dataset_class = getattr(torchvision.datasets, name.upper())
    for key, value in attributes.items():
        monkeypatch.setattr(dataset_class, key, value)
    monkeypatch.setattr(dataset_class, "tgz_md5", hashlib.md5(content).hexdigest())
    entry = registry.REGISTRY[name]
    (archive,) = entry.archives
    archive = replace(archive, url=f"{server.url}/small.tar.gz", digest=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(registry.REGISTRY, name, replace(entry, archives=(archive,)))
    server.files["/small.tar.gz"] = content


@pytest.fixture
def cifar10(server: Server, monkeypatch: pytest.MonkeyPatch) -> Small:
    rng = np.random.default_rng(0)
    members: dict[str, dict[Any, Any]] = {"batches.meta": {"label_names": NAMES10}}
    pixels, labels = [], []
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        own = [int(i) for i in rng.permutation(np.arange(40) % 10)]
        members[name], images = _batch(rng, 40, labels=own)
        pixels.append(images)
        labels.append(own)
    content, digests = _tar("cifar-10-batches-py", members)
    _install(
        monkeypatch, server, "cifar10", content,
        train_list=[[n, digests[n]] for n in ("data_batch_1", "data_batch_2")],
        test_list=[["test_batch", digests["test_batch"]]],
        meta={"filename": "batches.meta", "key": "label_names", "md5": digests["batches.meta"]},
    )  # fmt: skip
    return Small(
        "cifar10", content,
        {"train": np.concatenate(pixels[:2]), "test": pixels[2]},
        {"train": labels[0] + labels[1], "test": labels[2]},
    )  # fmt: skip


@pytest.fixture
def cifar100(server: Server, monkeypatch: pytest.MonkeyPatch) -> Small:
    rng, fine = np.random.default_rng(1), [f"fine_{i}" for i in range(100)]
    members: dict[str, dict[Any, Any]] = {"meta": {"fine_label_names": fine, "coarse_label_names": ["c"]}}
    pixels, labels = {}, {}
    for split, n in (("train", 300), ("test", 100)):
        own = [int(i) for i in np.arange(n) % 100]
        members[split], pixels[split] = _batch(rng, n, fine_labels=own, coarse_labels=[0] * n)
        labels[split] = own
    content, digests = _tar("cifar-100-python", members)
    _install(
        monkeypatch, server, "cifar100", content,
        train_list=[["train", digests["train"]]],
        test_list=[["test", digests["test"]]],
        meta={"filename": "meta", "key": "fine_label_names", "md5": digests["meta"]},
    )  # fmt: skip
    return Small("cifar100", content, pixels, labels)


def _settings(name: str, path: str = NO_PATH, max_per_class: int | None = None) -> dict[str, Any]:
    dataset = {"name": name, "path": path, "max_per_class": max_per_class, "seed": 0, "on_bad_image": "error"}
    return {"dataset": dataset, "split": {"val_fraction": 0.25, "seed": 0}}


def _prepare(settings: dict[str, Any], folder: Path) -> Prepared:
    (folder / NO_PATH).parent.mkdir(exist_ok=True, parents=True)
    (folder / NO_PATH).write_text("")
    download_stage.main(settings, folder / "raw")
    prepare_stage.main(settings, folder / "raw", folder / "d.h5", folder / "s.h5", folder / "c.json")
    return read_dataset(folder / "d.h5")


@pytest.fixture
def small(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    monkeypatch.chdir(tmp_path)
    found: Small = request.getfixturevalue(request.param)
    return found


both = pytest.mark.parametrize("small", ["cifar10", "cifar100"], indirect=True)


@both
def test_an_official_archive_comes_out_as_its_images(small: Small, server: Server, tmp_path: Path) -> None:
    found = _prepare(_settings(small.name), tmp_path)
    for split in ("train", "test"):
        part = getattr(found, split)
        np.testing.assert_array_equal(part.content, small.pixels[split])
        assert part.labels.tolist() == small.labels[split]
        assert part.ids[:2] == [f"{split}/00000", f"{split}/00001"]
    expected = NAMES10 if small.name == "cifar10" else [f"fine_{i}" for i in range(100)]
    assert found.class_names == expected
    assert len(server.requests) == 1


@both
def test_an_archive_at_dataset_path_is_used_without_a_network(
    small: Small, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "mine.tar.gz").write_bytes(small.content)
    found = _prepare(_settings(small.name, path=str(tmp_path / "mine.tar.gz"), max_per_class=2), tmp_path)
    assert server.requests == []
    assert set(np.bincount(found.train.labels)) == {2}
    assert found.max_per_class == 2
    rows = [int(sample_id.split("/")[1]) for sample_id in found.train.ids]
    np.testing.assert_array_equal(found.train.content, small.pixels["train"][rows])


def test_a_damaged_archive_at_dataset_path_is_refused(
    cifar10: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.tar.gz").write_bytes(cifar10.content[:-1] + b"x")
    with pytest.raises(DataError, match="has sha256") as caught:
        _prepare(_settings("cifar10", path=str(tmp_path / "mine.tar.gz")), tmp_path)
    assert caught.value.exit_code == 3


def test_an_archive_whose_inner_files_are_not_the_official_ones_is_refused(
    cifar10: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive's own digest passes and torchvision's md5 of a file in it does not."""
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "train_list", [["data_batch_1", "0" * 32]])
    (tmp_path / "a.tar.gz").write_bytes(cifar10.content)
    with pytest.raises(DataError, match="official CIFAR10 files"):
        array_sets.load_cifar10(tmp_path / "a.tar.gz")


def test_a_path_that_does_not_exist_and_an_unknown_dataset_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        download_stage.main(_settings("cifar10", path=str(tmp_path / "nope")), tmp_path / "raw")
    with pytest.raises(ConfigError) as caught:
        download_stage.main(_settings("cifr10"), tmp_path / "raw")
    assert "did you mean cifar10?" in str(caught.value)


def test_the_digits_are_a_fixed_division_of_real_scans() -> None:
    found, again = array_sets.load_digits(), array_sets.load_digits()
    assert (len(found.train.ids), len(found.test.ids)) == (700, 397)
    assert found.train.images.shape == (700, 32, 32, 3)
    np.testing.assert_array_equal(found.test.images, again.test.images)
    assert not set(found.train.ids) & set(found.test.ids)
    scan = found.train.images[0, ::4, ::4, 0]
    np.testing.assert_array_equal(
        found.train.images[0], np.repeat(np.repeat(scan, 4, 0), 4, 1)[..., None].repeat(3, -1)
    )
    assert found.class_names[3] == "three"
