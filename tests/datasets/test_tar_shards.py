from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from clipcifar.core.errors import DataError, EnvironmentFault
from clipcifar.datasets import tar_shards
from clipcifar.datasets.source import Collected, collect
from clipcifar.datasets.tar_shards import ShardFile, ShardReader, read_member
from clipcifar.datasets.tar_stream import shard_sha256
from clipcifar.datasets.tarfolder import tar_folder
from clipcifar.store.members import Members, Shard
from tests.support.local_server import Server, serving
from tests.support.shards import png, tar_of, write
from tests.support.waiting import PATIENCE_S

IMAGES = {f"{label}/{i}.png": png(f"{label}{i}") for label in ("cat", "dog") for i in range(4)}
SHARD = tar_of(IMAGES)
NOWHERE = Path("/nowhere")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(tar_shards, "PAUSE_S", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as running:
        running.ranges = True
        running.files = {"/train-0.tar": SHARD, "/test-0.tar": SHARD}
        yield running


def lists(folder: Path, server: Server) -> Path:
    return write(
        folder, {f"{split}.txt": f"{server.url}/{split}-0.tar".encode() for split in ("train", "test")}
    )


def collected(root: Path) -> Collected:
    return collect(tar_folder(root, max_megapixels=250), on_bad_image="error")


def members(root: Path) -> tuple[list[str], Members]:
    train = collected(root).splits["train"]
    assert train.members is not None
    return train.ids, train.members


def local(folder: Path) -> Path:
    return write(folder, {"train/train-0.tar": SHARD, "test/test-0.tar": SHARD})


def test_shards_behind_urls_hold_what_those_of_a_folder_hold(server: Server, tmp_path: Path) -> None:
    here, there = collected(local(tmp_path / "a")), collected(lists(tmp_path / "b", server))
    for split in ("train", "test"):
        for name in ("ids", "digests"):
            assert getattr(here.splits[split], name) == getattr(there.splits[split], name)
        assert here.splits[split].members.offset.tolist() == there.splits[split].members.offset.tolist()  # type: ignore[union-attr]
    assert {shard.digest for shard in there.splits["test"].members.shards} == {
        hashlib.sha256(SHARD).hexdigest()
    }  # type: ignore[union-attr]


def test_neighbours_come_in_one_request_and_nothing_else_is_fetched(server: Server, tmp_path: Path) -> None:
    ids, places = members(lists(tmp_path, server))
    server.asked.clear()
    rows = [5, 2, 3, 4]
    with closing(ShardReader(NOWHERE, places)) as reader:
        read = dict(reader.read(rows))
        assert [read[i] for i in range(4)] == [IMAGES[ids[row].split(".tar/")[1]] for row in rows]
        first, last = int(places.offset[2]), int(places.offset[5] + places.size[5])
        assert server.asked == [range(first, last)]


@pytest.mark.parametrize("remote", [True, False])
def test_far_images_and_large_pieces_are_read_apart(
    remote: bool, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, places = members(lists(tmp_path, server) if remote else local(tmp_path))
    expected = [IMAGES[sample_id.split(".tar/")[1]] for sample_id in ids]
    rows = np.random.default_rng(0).permutation(len(ids)).tolist()
    sizes: list[int] = []
    read = ShardFile.read

    def counted(self: ShardFile, start: int, length: int) -> bytes:
        sizes.append(length)
        return read(self, start, length)

    monkeypatch.setattr(ShardFile, "read", counted)
    for gap, piece, pieces in (
        (0, 10**9, len(ids)),
        (10**9, 10**9, 1),
        (10**9, 2_500, 3),
        (10**9, 1, len(ids)),
    ):
        sizes.clear()
        monkeypatch.setattr(tar_shards, "_GAP", gap)
        monkeypatch.setattr(tar_shards, "_PIECE", piece)
        with closing(ShardReader(tmp_path, places)) as reader:
            read_now = dict(reader.read(rows))
        assert [read_now[i] for i in range(len(rows))] == [expected[row] for row in rows]
        assert len(sizes) == pieces
    assert max(sizes) == int(places.size.max())


def test_few_shards_are_open_at_a_time(tmp_path: Path) -> None:
    write(
        tmp_path,
        {f"test/{i:02d}.tar": tar_of({"a/1.png": png(f"{i}"), "b/2.png": png("b")}) for i in range(20)},
    )
    made = collected(tmp_path).splits["test"].members
    assert made is not None
    with closing(ShardReader(tmp_path, made)) as reader:
        read = dict(reader.read(range(40)))
        assert [read[2 * i] for i in range(20)] == [png(f"{i}") for i in range(20)]
        assert len(reader._open) == tar_shards.OPEN_SHARDS
    assert reader._open == {}


@pytest.mark.parametrize("fault", [503, "cut", "stall"])
def test_a_passing_fault_is_tried_again(
    fault: int | str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, places = members(lists(tmp_path, server))
    monkeypatch.setattr(tar_shards, "SILENCE_S", 1.5 if fault == "stall" else PATIENCE_S)
    with closing(ShardFile(places.shards[0].place, NOWHERE)) as file:
        server.faults = [fault]
        assert file.read(0, 512) == SHARD[:512]
        assert server.faults == []


@pytest.mark.parametrize("fault", [503, "cut"])
def test_a_lasting_fault_ends_after_bounded_tries(fault: int | str, server: Server, tmp_path: Path) -> None:
    _, places = members(lists(tmp_path, server))
    with closing(ShardFile(places.shards[0].place, NOWHERE)) as file:
        server.faults, before = [fault] * 99, len(server.requests)
        with pytest.raises(EnvironmentFault, match="could not be read") as caught:
            file.read(0, 512)
        assert len(server.requests) - before == tar_shards.TRIES
        assert caught.value.where == f"{server.url}/train-0.tar"


def test_nothing_is_tried_again_when_nobody_waits_for_it(server: Server) -> None:
    stopping = False
    with closing(ShardFile(f"{server.url}/train-0.tar", NOWHERE, stopped=lambda: stopping)) as file:
        for stopping, tries in ((False, tar_shards.TRIES), (True, 1)):  # noqa: B007
            server.faults, before = [503] * 99, len(server.requests)
            with pytest.raises(EnvironmentFault, match="could not be read"):
                file.read(0, 512)
            assert len(server.requests) - before == tries


def test_a_broken_connection_while_shards_are_listed_names_the_shard(server: Server, tmp_path: Path) -> None:
    root = lists(tmp_path, server)
    server.faults = ["cut"] * 99
    with pytest.raises(EnvironmentFault, match="could not be read") as caught:
        collected(root)
    assert caught.value.where.startswith(server.url)


def test_a_server_that_nobody_answers_for_is_the_surroundings_fault(server: Server, tmp_path: Path) -> None:
    root = write(tmp_path, {"test.txt": b"http://127.0.0.1:9/a.tar"})
    with pytest.raises(EnvironmentFault, match="could not be read") as caught:
        collected(root)
    assert "127.0.0.1:9" in caught.value.where


def test_a_shard_that_is_not_there_is_bad_data_at_once(server: Server, tmp_path: Path) -> None:
    root = lists(tmp_path, server)
    del server.files["/train-0.tar"]
    with pytest.raises(DataError, match=r"train/train-0\.tar: the shard is not there"):
        collected(root)
    assert server.requests.count("HEAD /train-0.tar") == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_asks_for_keys_and_is_not_tried_again(status: int, server: Server, tmp_path: Path) -> None:
    server.faults = [status] * 99
    with pytest.raises(EnvironmentFault, match="refused") as caught:
        ShardFile(f"{server.url}/train-0.tar", NOWHERE)
    assert "environment" in caught.value.fix
    assert len(server.requests) == 2  # HEAD, and GET where that is not known


@pytest.mark.parametrize("status", [403, 503, "nobody"])
def test_no_key_of_a_url_that_a_server_sends_us_on_to_is_told(
    status: int | str, server: Server, tmp_path: Path
) -> None:
    target = "http://127.0.0.1:9" if status == "nobody" else server.url
    target = target.replace("//", "//me:secret@")
    server.redirects = {"/train-0.tar": f"{target}/signed.tar?X-Amz-Signature=secret"}
    server.files = {"/signed.tar?X-Amz-Signature=secret": SHARD}
    server.faults = [status] * 99
    with pytest.raises(EnvironmentFault, match="refused" if status == 403 else "could not be read") as caught:
        ShardFile(f"{server.url}/train-0.tar", NOWHERE)
    assert "secret" not in str(caught.value)
    assert status == "nobody" or f": {status} " in caught.value.what
    server.faults = []
    if status != "nobody":
        assert ShardFile(f"{server.url}/train-0.tar", NOWHERE).read(0, 512) == SHARD[:512]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cannot reach https://me:secret@h/a.tar?X=secret#x", "cannot reach https://h/a.tar?…"),
        ("URL('s3://secret@b/a?secret') is odd", "URL('s3://b/a?… is odd"),
        ("what now?", "what now?"),
        ("", "OSError"),
    ],
)
def test_no_key_in_the_text_of_an_error_is_told(text: str, told: str) -> None:
    said = tar_shards._said(OSError(text))
    assert said == told
    assert "secret" not in said


def test_keys_come_from_the_environment(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = write(tmp_path, {"netrc": b"machine 127.0.0.1 login me password secret\n"}) / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    with closing(ShardFile(f"{server.url}/train-0.tar", NOWHERE)) as file:
        file.read(0, 10)
    assert server.authorizations == {"Basic " + base64.b64encode(b"me:secret").decode()}


def test_a_server_without_ranges_is_told_of(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.headers = {"Accept-Ranges": "none"}
    with pytest.raises(EnvironmentFault, match="its server gives no ranges of a file"):
        ShardFile(f"{server.url}/train-0.tar", NOWHERE)
    server.headers = {}
    with (
        closing(ShardFile(f"{server.url}/train-0.tar", NOWHERE)) as file,
        pytest.raises(EnvironmentFault, match=r"does(n't| not).*range"),
    ):
        file.read(512, 512)


@pytest.mark.parametrize("remote", [True, False])
def test_a_shard_that_changed_is_named_with_its_digest(remote: bool, server: Server, tmp_path: Path) -> None:
    root = lists(tmp_path, server) if remote else local(tmp_path)
    _, places = members(root)
    longer = tar_of({**IMAGES, "cat/more.png": bytes(20_000)})
    server.files["/train-0.tar"] = longer
    if not remote:
        (root / "train/train-0.tar").write_bytes(longer)
    with closing(ShardReader(root, places)) as reader:
        for _ in range(2):  # nor is it taken the second time it is asked for
            with pytest.raises(DataError, match="when prepare read it"):
                next(reader.read([0]))
        assert reader._open == {}
    with pytest.raises(DataError, match="when prepare read it") as caught:
        read_member(root, places, 0)
    assert hashlib.sha256(SHARD).hexdigest() in caught.value.what
    assert "train-0.tar" in caught.value.where
    assert "dvc repro -f prepare" in caught.value.fix
    assert "where its list gives its sha256, write its line anew with `sha256sum` first" in caught.value.fix


def test_a_shard_is_digested_wherever_it_lies(server: Server, tmp_path: Path) -> None:
    local(tmp_path)
    expected = hashlib.sha256(SHARD).hexdigest()
    for place in ("train/train-0.tar", f"file://{tmp_path}/train/train-0.tar", f"{server.url}/train-0.tar"):
        assert shard_sha256(place, tmp_path) == expected


def test_a_package_that_is_lacking_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(EnvironmentFault, match="s3:// cannot be read here") as caught:
        ShardFile("s3://bucket/a.tar", NOWHERE)
    assert caught.value.fix == "pip install --editable '.[s3]'"


def test_less_than_was_asked_for_is_no_image(tmp_path: Path) -> None:
    local(tmp_path)
    with (
        closing(ShardFile("train/train-0.tar", tmp_path)) as file,
        pytest.raises(DataError, match=f"ends at byte {len(SHARD):,}, and is to have {len(SHARD) + 1:,}"),
    ):
        file.read(1, len(SHARD))


def test_members_of_two_splits_stay_with_their_shards() -> None:
    shards = [Shard("a.tar", 10, "x"), Shard("b.tar", 10, "y")]
    a, b = Members.of(shards, [0, 1, 2, 0, 3, 4]), Members.of(shards, [1, 5, 5])
    both = (a + b).take(np.array([2, 0]))
    assert (both.shard.tolist(), both.offset.tolist(), both.size.tolist()) == ([1, 0], [5, 1], [5, 2])
    assert Members.of(shards, []).offset.shape == (0,)
    alone = Members.of(shards, [1, 5, 5]).alone()
    assert (alone.shards, alone.shard.tolist(), alone.offset.tolist()) == ([shards[1]], [0], [5])
