"""Embeddings by workers of a simulated Ray cluster: the bytes of a run without one.

What happens when something dies is in tests/faults/test_cluster.py.
"""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tqdm import tqdm

from clipcifar.backbone.towers import Backbone
from clipcifar.core.errors import ConfigError, EnvironmentFault
from clipcifar.embeddings import cluster, compute, sentences, tasks, workers
from clipcifar.embeddings.kept import Wanted
from clipcifar.embeddings.sentences import SentenceEmbedder
from clipcifar.store import parts
from clipcifar.store.dataset import digest_of
from clipcifar.store.model import ModelDescription
from clipcifar.studies.corruptions.images.suite import described_preprocess, open_suite, wanted_files
from clipcifar.studies.corruptions.params import CorruptionParams
from tests.support import on_cluster
from tests.support.made import EMBED
from tests.support.on_cluster import NODE, OUTPUT, PART_ROWS, digests, embed_of, run


@pytest.fixture(scope="module")
def weights(tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return on_cluster.fetch(tiny_clip, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster of two workers, to which this process stays connected: its workers stay, too."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install --editable '.[ray]'")
    with on_cluster.started() as made:
        for _ in range(2):
            made.add_node(**NODE)
        with cluster.connected(embed_of(made.address, Path())):
            assert ray.is_initialized()
            yield made.address


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", PART_ROWS["arrays"])


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("kind", ["arrays", "photographs", "shards"])
def test_workers_come_to_the_bytes_of_a_run_without_them(
    kind: str, storage: str, address: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of arrays with two shards a part, and of photographs that a worker's own processes read."""
    monkeypatch.setattr(parts, "PART_ROWS", PART_ROWS[kind])
    here, there = tmp_path / "here", tmp_path / "there"
    expected = digests(run(here, weights, kind, embed_of(None, here, storage=storage)))
    made = run(there, weights, kind, embed_of(address, there / "scratch", storage=storage))
    assert len(expected) == 4
    assert digests(made) == expected
    left = [path for path in (there / "scratch").rglob("*") if path.is_file()]
    assert [path.suffix for path in left] == [".lock"]


@pytest.mark.usefixtures("few_rows")
def test_workers_embed_the_images_that_no_other_embeddings_have(
    address: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3,690 images of 3,700 are kept in the user's cache folder, in other splits and another order."""
    monkeypatch.setenv("CLIPCIFAR_CACHE", str(tmp_path / "cache"))
    model = ModelDescription.read(weights.parent / "model.json")
    whole = on_cluster.dataset_of("arrays", tmp_path)
    everything = whole.train + whole.test
    order = np.random.default_rng(0).permutation(3700)

    def embedded(train: Any, test: Any, folder: Path, address: str | None) -> int:
        embed = embed_of(address, tmp_path / "scratch", storage="float16")
        splits = everything.take(np.sort(train)), everything.take(np.sort(test))
        digest = digest_of(*splits, whole.class_names)
        dataset = replace(whole, train=splits[0], test=splits[1], digest=digest)
        wanted = compute.dataset_images(
            folder, dataset, model, recorded=OUTPUT, photographs=tmp_path, embed=embed
        )
        return compute.obtain([wanted], repository=tmp_path, model=model, weights=weights, embed=embed)

    parts_of = order[:2000], order[2000:]
    assert embedded(*parts_of, tmp_path / "fresh", None) == 3700
    kept = tmp_path / "cache" / "embeddings" / "a"
    assert embedded(order[10:700], order[700:], kept, None) == 3690
    assert embedded(*parts_of, tmp_path / "added", address) == 10
    assert digests(tmp_path / "added") == digests(tmp_path / "fresh")


@pytest.mark.usefixtures("few_rows")
def test_what_one_engine_has_begun_the_other_goes_on_with(
    address: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards of a run here that was stopped are skipped by workers."""
    expected = digests(run(tmp_path / "a", weights, "arrays", embed_of(None, tmp_path)))
    scratch = tmp_path / "cache" / "extraction"
    monkeypatch.setenv("CLIPCIFAR_CACHE", str(tmp_path / "cache"))
    calls = iter(range(35))  # batches: a part has 24, so one and a half shards of the next are left
    real = Backbone.encode_images

    def stopped(self: Backbone, *arguments: Any, **named: Any) -> Any:
        next(calls)
        return real(self, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "encode_images", stopped)
        with pytest.raises((StopIteration, RuntimeError)):
            run(tmp_path / "b", weights, "arrays", embed_of(None, tmp_path))
    names = sorted(path.name for path in scratch.rglob("*.shard"))
    assert names == ["000000000-000001024.shard", "000001024-000001500.shard"]
    (gate := tmp_path / "gate").mkdir()
    (gate / "open").touch()
    made = run(tmp_path / "b", weights, "arrays", embed_of(address, scratch), gate=gate)
    assert digests(made) == expected
    computed = {path.name.partition("-")[0]: path.read_text() for path in gate.glob("*-*")}
    assert computed == {"1500": "24", "3000": "11"}  # batches; none of the part whose shards were there


@pytest.mark.usefixtures("few_rows")
def test_a_task_that_runs_twice_at_once_does_no_harm(address: str, weights: Path, tmp_path: Path) -> None:
    embed = embed_of(address, tmp_path / "scratch")
    expected = digests(run(tmp_path / "a", weights, "arrays", embed_of(None, tmp_path)))
    dataset = on_cluster.dataset_of("arrays", tmp_path)
    model = ModelDescription.read(weights.parent / "model.json")
    (gate := tmp_path / "gate").mkdir()
    wanted = compute.dataset_images(
        tmp_path / "b", dataset, model, recorded=Path("b"), photographs=tmp_path, embed=embed
    )
    rows, folder = range(1500), tmp_path / "scratch" / ("ab" * 16)
    part = tasks._Part(
        0, rows, wanted.ids[:1500], on_cluster.Gated(wanted.images(rows), rows, gate), "ab" * 32, embed
    )
    with workers.duty_of(wanted.attributes, model, weights, embed, folder=folder) as duty:
        bar = tqdm(disable=True)
        results = cluster.results(tasks._embed_part, duty, [part, part, part], embed, "cpu", bar)
        with on_cluster.beside(lambda: {*results}, gate) as running:
            on_cluster.noted(gate, 2)
        assert len(running.result()) == 1
    assert len(list(gate.glob("0-*"))) == 2  # the third found it whole
    assert digests(folder)["part-00000.h5"] == expected["part-00000.h5"]


def _corruptions(folder: Path, weights: Path, embed: Any) -> list[Wanted]:
    dataset = on_cluster.dataset_of("arrays", folder)
    model = ModelDescription.read(weights.parent / "model.json")
    asked = CorruptionParams(("fog", "contrast"), (1, 5), "data/none", None, None, 0, {})
    test = dataset.test.take(np.arange(40))
    suite = open_suite(
        test,
        asked,
        dataset="digits",
        root=folder,
        preprocess=described_preprocess(model),
        workers=0,
    )
    common = compute.attributes_of(dataset, model, embed)
    return wanted_files(folder / "corrupted", suite, test.ids, severities=(1, 5), common=common)


def test_a_study_that_embeds_uses_the_cluster_too(
    address: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Corrupted images, a file of each corruption: 80 rows in parts of 50."""
    monkeypatch.setattr(parts, "PART_ROWS", 50)
    model = ModelDescription.read(weights.parent / "model.json")
    made = {}
    for name, embed in (("here", embed_of(None, tmp_path)), ("there", embed_of(address, tmp_path / "s"))):
        wanted = _corruptions(tmp_path / name, weights, embed)
        if name == "there":
            monkeypatch.setattr(Backbone, "load", lambda *_: pytest.fail("the driver loaded the model"))
        compute.encode(wanted, model=model, weights=weights, embed=embed)
        made[name] = digests(tmp_path / name / "corrupted")
    assert len(made["here"]) == 2
    assert made["there"] == made["here"]


def test_many_sentences_are_embedded_by_workers_to_the_same_bytes_and_remembered(
    address: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ModelDescription.read(weights.parent / "model.json")
    texts = [f"a photo of {'very ' * (i % 5)}many cats, {i} of them" for i in range(100)]
    asked = dict.fromkeys(texts, "here")
    expected, _ = SentenceEmbedder(model, weights, EMBED).embed(asked)
    monkeypatch.setattr(sentences, "FOR_A_CLUSTER", 100)
    monkeypatch.setattr(workers, "SENTENCES", 30)
    monkeypatch.setenv("CLIPCIFAR_CACHE", str(tmp_path / "empty"))
    embed = embed_of(address, tmp_path)
    embedder = SentenceEmbedder(model, weights, embed, by_cluster=True)
    backbone = embedder.load()
    monkeypatch.setattr(backbone, "encode_sentences", lambda _: pytest.fail("embedded here"))
    rows, new = embedder.embed(asked)
    assert new == 100
    assert {text: row.tobytes() for text, row in rows.items()} == {
        text: row.tobytes() for text, row in expected.items()
    }
    again = SentenceEmbedder(model, weights, embed, by_cluster=True)
    monkeypatch.setattr(Backbone, "load", lambda *_: pytest.fail("the model was loaded"))
    assert again.embed(asked)[1] == 0


def test_where_ray_is_not_installed_one_line_says_what_to_install(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"embed\.engine is ray, and Ray is not installed") as caught:
        run(tmp_path, weights, "arrays", embed_of("local", tmp_path))
    assert "pip install --constraint constraints.txt --editable '.[ray]'" in caught.value.fix
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("address", ["", "Local", "10.0.0.1", "ray://10.0.0.1:10001", "http://head:8265"])
def test_an_address_that_is_none_is_refused_before_anybody_is_asked(
    address: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="expected local, auto or host:port") as caught:
        run(tmp_path, weights, "arrays", embed_of(address, tmp_path))
    assert caught.value.where == "params.yaml: embed.address"


def test_where_nothing_listens_it_is_told_without_ray_trying(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was asked, which takes most of a minute"))
    with socket.socket() as bound:  # so that nobody else listens on its port
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(EnvironmentFault, match=f"no Ray cluster at {address} .*refused") as caught:
            run(tmp_path, weights, "arrays", embed_of(address, tmp_path))
    assert caught.value.where == "params.yaml: embed.address"


@pytest.mark.parametrize("scratch", ["", "~/shared", "shared", "s3://bucket/shared"])
def test_a_shared_folder_that_is_no_whole_path_is_refused(
    scratch: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be made in the project, and called `~`."""
    monkeypatch.chdir(tmp_path)
    embed = replace(embed_of("local", tmp_path), scratch=scratch)
    with pytest.raises(ConfigError, match="expected a whole path") as caught:
        run(tmp_path / "a", weights, "arrays", embed)
    assert caught.value.where == "params.yaml: embed.scratch"
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_task_is_sent_none_but_the_shards_of_its_images(weights: Path, tmp_path: Path) -> None:
    dataset, model = (
        on_cluster.dataset_of("shards", tmp_path),
        ModelDescription.read(weights.parent / "model.json"),
    )
    wanted = compute.dataset_images(
        tmp_path, dataset, model, recorded=OUTPUT, photographs=tmp_path, embed=embed_of(None, tmp_path)
    )
    sent: Any = wanted.images(range(20))
    assert [shard.place for shard in sent.args[0].members.shards] == ["train/0.tar"]
    assert len(dataset.train.members.shards) == 4  # type: ignore[union-attr]


@pytest.mark.parametrize("place", ["file", "file/folder"])
def test_a_shared_folder_that_cannot_be_written_is_told_with_its_key(
    place: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr(cluster, "connected", nullcontext)
    embed = replace(embed_of("local", tmp_path), scratch=str(tmp_path / place))
    with pytest.raises(EnvironmentFault, match=f"cannot use {re.escape(str(tmp_path / place))}: ") as caught:
        run(tmp_path / "a", weights, "arrays", embed)
    assert caught.value.where == "params.yaml: embed.scratch"


@pytest.mark.parametrize(("kind", "key"), [("cpu", "worker_cpus"), ("cuda", "device")])
def test_a_machine_alone_that_has_no_room_says_so_and_waits_for_no_other(
    kind: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ray:
        remote = staticmethod(lambda **_: lambda function: function)
        put = staticmethod(lambda common: common)
        nodes = staticmethod(lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])

    monkeypatch.setattr(cluster, "connected", lambda _: nullcontext(Ray))
    embed = replace(embed_of("local", tmp_path), worker_cpus=1 if kind == "cuda" else 3)
    with (
        tqdm(disable=True) as bar,
        pytest.raises(ConfigError, match="this machine has no room for a") as caught,
    ):
        list(cluster.results(cluster.device_here, embed, [None], embed, kind, bar))
    assert caught.value.where == f"params.yaml: embed.{key}"


def test_what_a_worker_must_have_is_refused_by_name(weights: Path, tmp_path: Path) -> None:
    """Each field in turn; tests/faults/test_cluster.py has nodes that differ."""
    model = ModelDescription.read(weights.parent / "model.json")
    dataset = on_cluster.dataset_of("photographs", tmp_path)
    attributes = compute.attributes_of(dataset, model, embed_of(None, tmp_path))
    here = ("cpu", "AVX9")
    folder = tmp_path / "shared"
    folder.mkdir()
    duty = workers.Duty("0a", model, weights, attributes, here, folder)
    with pytest.raises(EnvironmentFault, match=f"the shared folder is not seen there: {folder}"):
        duty.check(here)
    (folder / "0a.run").touch()
    duty.check(here)
    for field, value in (
        ("version_torch", "1.0"),
        ("version_pillow", "1.0"),
        ("source_sha256", "0" * 64),
        ("weights_sha256", "0" * 64),
        ("device", "cuda"),
    ):
        other = replace(duty, attributes={**attributes, field: value})
        with pytest.raises(EnvironmentFault, match=f"{field} is .* there, and '{value}' where the run began"):
            other.check(here)
    with pytest.raises(EnvironmentFault, match="device model is 'AVX2' there, and 'AVX9' where the run"):
        duty.check(("cpu", "AVX2"))
    (moved := tmp_path / "elsewhere").mkdir()
    with pytest.raises(Exception, match="the weights are missing"):
        replace(duty, weights=moved).check(here)


@pytest.mark.parametrize(
    ("nodes", "cores", "gpus", "room", "shares"),
    [
        ([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 4.0, "GPU": 1.0}, {"CPU": 16.0}], 4, 1.0, 3, 4),
        ([{"CPU": 8.0, "GPU": 2.0}], 2, 0.5, 4, 2),
        ([{"CPU": 3.0}, {"memory": 1.0}], 2, 0, 1, 3),
        ([{"memory": 1.0}], 1, 0, 0, 1),
    ],
)
def test_how_many_tasks_have_room_and_how_many_cores_each(
    nodes: list[dict[str, float]], cores: int, gpus: float, room: int, shares: int
) -> None:
    class Ray:
        @staticmethod
        def nodes() -> list[dict[str, Any]]:
            return [{"Alive": True, "Resources": node} for node in nodes] + [
                {"Alive": False, "Resources": {"CPU": 99.0, "GPU": 99.0}}
            ]

    assert cluster._room(Ray, cores, gpus) == room
    assert cluster._cores(Ray, gpus) == shares
