"""Archives and weights that do not come, come broken or come with a payload, through the real stages."""

from __future__ import annotations

import functools
import hashlib
import io
import pickle
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from clipcifar.core import files
from clipcifar.datasets import download, registry
from clipcifar.store.model import WEIGHTS_FILE
from clipcifar.weights import resolve
from clipcifar.weights.resolve import Pin
from stages import download as download_stage, embed_images, fetch_model, prepare
from tests.support import stage_runs
from tests.support.local_server import Server, serving
from tests.support.stage_runs import Ended
from tests.weights.test_tensor_file import HOSTILE

pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # of pooch's sockets
CONTENT = b"the archive " * 1000


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Stands for the origin of CIFAR-10; two seconds without an answer are a stall."""
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "fetch", functools.partial(download.fetch, timeout_s=2.0))
    with serving() as running:
        running.files["/cifar.tar.gz"] = CONTENT
        entry = registry.REGISTRY["cifar10"]
        digest = hashlib.sha256(CONTENT).hexdigest()
        archive = replace(entry.archives[0], url=f"{running.url}/cifar.tar.gz", digest=digest)
        monkeypatch.setitem(registry.REGISTRY, "cifar10", replace(entry, archives=(archive,)))
        yield running


def _download(folder: Path) -> Ended:
    stage_runs.write_params(folder, {"dataset": {"name": "cifar10"}})
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data/none").write_text("")
    return stage_runs.run(download_stage.main, "data/raw", folder=folder)


@pytest.mark.parametrize("fault", [404, 503, "cut", "stall", "wrong bytes"])
def test_a_download_that_fails_for_good_is_exit_4_with_the_manual_way_and_then_works(
    fault: int | str, server: Server, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "stall":
        monkeypatch.setattr(download, "fetch", functools.partial(download.fetch, timeout_s=0.3))
    if fault == "wrong bytes":
        server.files["/cifar.tar.gz"] = CONTENT[:-1] + b"x"
    else:
        server.faults = [fault] * 20
    ended = _download(tmp_path)
    assert ended.code == 4
    place = own_cache / "downloads" / "cifar-10-python.tar.gz"
    for part in (f"{server.url}/cifar.tar.gz", f"where: {place}", "dataset.path", "make demo"):
        assert part in ended.error
    assert ("its sha256 is not" in ended.error) == (fault == "wrong bytes")
    assert 1 <= len(server.requests) <= 1 + download.RETRIES
    assert list(place.parent.iterdir()) == []  # neither the name nor a part of the file
    assert list((tmp_path / "data/raw").iterdir()) == []

    place.write_bytes(CONTENT)  # the manual way that the message names
    server.requests.clear()
    assert _download(tmp_path).code == 0
    assert server.requests == []
    assert (tmp_path / "data/raw/cifar-10-python.tar.gz").read_bytes() == CONTENT


@pytest.mark.parametrize("fault", [503, "cut", "stall"])
def test_a_passing_fault_of_the_network_is_not_even_noticed(
    fault: int | str, server: Server, tmp_path: Path
) -> None:
    server.faults = [fault]
    assert _download(tmp_path).code == 0
    assert len(server.requests) == 2
    assert (tmp_path / "data/raw/cifar-10-python.tar.gz").read_bytes() == CONTENT


class Payload:
    """Unpickled, it writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.target, "executed"))


def test_an_archive_with_a_payload_is_refused_by_its_digest_before_it_is_opened(tmp_path: Path) -> None:
    """Official archives hold pickles: only the digest makes them trusted."""
    witness, body = tmp_path / "witness", pickle.dumps(Payload(tmp_path / "witness"))
    with tarfile.open(tmp_path / "mine.tar.gz", "w:gz") as tar:
        for name in ("batches.meta", "data_batch_1", "test_batch"):
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    stage_runs.write_params(tmp_path, {"dataset": {"name": "cifar10", "path": str(tmp_path / "mine.tar.gz")}})
    ended = stage_runs.run(prepare.main, "raw", "d.h5", "s.h5", "c.json", folder=tmp_path)
    assert ended.code == 3
    assert "mine.tar.gz has sha256" in ended.error
    assert not witness.exists()
    pickle.loads(body)  # negative control
    assert witness.exists()


def _fetch(folder: Path, **model: Any) -> Ended:
    stage_runs.write_params(folder, {"model": {"pretrained": None, **model}})
    return stage_runs.run(fetch_model.main, "weights", "model.json", folder=folder)


def _flip(path: Path, at: int = -5) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_known_weights_with_one_flipped_bit_are_exit_3_and_both_digests_are_said(
    tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (tiny_clip / WEIGHTS_FILE).read_bytes()
    pin = Pin(hashlib.sha256(content).hexdigest(), "d" * 40, "made here")
    key = ("ViT-B-32", "laion2b_s34b_b79k")
    monkeypatch.setitem(resolve.PINS, key, pin)
    file = tmp_path / "w.safetensors"
    file.write_bytes(content)
    _flip(file)
    ended = _fetch(tmp_path, name=key[0], pretrained=key[1], path=str(file))
    assert ended.code == 3
    for part in (pin.sha256, files.file_sha256(file), "made here", f"where: {file}"):
        assert part in ended.error
    assert not (tmp_path / "model.json").exists()
    assert not (tmp_path / "weights" / WEIGHTS_FILE).exists()


def test_weights_that_change_after_they_were_resolved_are_exit_3(tiny_clip: Path, tmp_path: Path) -> None:
    name = f"local-dir:{tiny_clip}"
    assert _fetch(tmp_path, name=name, path=str(tiny_clip)).code == 0
    _flip(tmp_path / "weights" / WEIGHTS_FILE)
    stage_runs.write_params(
        tmp_path, {"dataset": {"name": "digits", "max_per_class": 2}, "split": {"val_fraction": 0.5}}
    )
    assert stage_runs.run(prepare.main, "raw", "d.h5", "s.h5", "c.json", folder=tmp_path).code == 0
    ended = stage_runs.run(
        embed_images.main, "raw", "d.h5", "weights", "model.json", "images", folder=tmp_path
    )
    assert ended.code == 3
    assert "the weights have sha256" in ended.error
    assert not (tmp_path / "images").exists()


def test_a_pickle_is_refused_unless_allowed_and_even_then_nothing_is_executed(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    (tmp_path / "plain.bin").write_bytes(pickle.dumps({"state_dict": Payload(witness)}))
    torch.save({"x": Payload(witness)}, tmp_path / "zip.bin")
    (tmp_path / "named.pt").write_bytes(pickle.dumps(Payload(witness)))
    for name in ("plain.bin", "zip.bin", "named.pt"):
        ended = _fetch(tmp_path, path=str(tmp_path / name))
        assert ended.code == 2
        assert "model.allow_pickle: true" in ended.error
        ended = _fetch(tmp_path, path=str(tmp_path / name), allow_pickle=True)
        assert ended.code == 3
        assert f"where: {tmp_path / name}" in ended.error
        assert not witness.exists()
    (tmp_path / "named.safetensors").write_bytes((tmp_path / "named.pt").read_bytes())
    assert _fetch(tmp_path, path=str(tmp_path / "named.safetensors"), allow_pickle=True).code == 3
    assert not witness.exists()
    pickle.loads((tmp_path / "named.pt").read_bytes())  # negative control
    assert witness.read_text() == "executed"


def test_hostile_safetensors_headers_are_exit_3_from_a_file_and_from_a_folder(
    tiny_clip: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / "open_clip_config.json").write_bytes((tiny_clip / "open_clip_config.json").read_bytes())
    for trick, content in HOSTILE.items():
        (folder / WEIGHTS_FILE).write_bytes(content)
        for ended in (
            _fetch(tmp_path, path=str(folder / WEIGHTS_FILE)),
            _fetch(tmp_path, name=f"local-dir:{folder}", path=str(folder)),
        ):
            assert ended.code == 3, trick
            assert f"where: {folder / WEIGHTS_FILE}" in ended.error, trick
        assert not (tmp_path / "model.json").exists()


@pytest.mark.parametrize(
    "config",
    [b"", b"[" * 200_000, b"[]", b'{"model_cfg": {}}', b'{"model_cfg": NaN}', b"\xff", b'{"a": 1e999}'],
)
def test_a_config_that_is_none_is_exit_3(config: bytes, tiny_clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / "open_clip_config.json").write_bytes(config)
    (folder / WEIGHTS_FILE).write_bytes((tiny_clip / WEIGHTS_FILE).read_bytes())
    ended = _fetch(tmp_path, name=f"local-dir:{folder}", path=str(folder))
    assert ended.code == 3
    assert "not an open_clip config" in ended.error


def test_a_payload_is_not_executed_by_the_stage_as_a_process(tmp_path: Path) -> None:
    """Nothing patched, exit code and all."""
    torch.save({"x": Payload(tmp_path / "witness")}, tmp_path / "w.bin")
    model = {"pretrained": None, "path": str(tmp_path / "w.bin"), "allow_pickle": True}
    stage_runs.write_params(tmp_path, {"model": model})
    ended = stage_runs.process("fetch_model", "weights", "model.json", folder=tmp_path)
    assert (ended.code, ended.output) == (3, "")
    assert "cannot be read as plain tensors" in ended.error
    assert not (tmp_path / "witness").exists()
