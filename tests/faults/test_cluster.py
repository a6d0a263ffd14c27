"""What dies on a cluster, and what differs there: a run ends in the bytes of one without it, or says why."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import clipcifar
from clipcifar.core.errors import ClipcifarError, EnvironmentFault
from clipcifar.core.processes import is_running
from clipcifar.doctor import cluster as doctor_cluster
from clipcifar.embeddings import cluster
from clipcifar.store import parts
from clipcifar.store.model import CONFIG_FILE, WEIGHTS_FILE
from tests.support import faults, on_cluster
from tests.support.import_closure import ROOT
from tests.support.nightly import first
from tests.support.on_cluster import NODE, PART_ROWS, digests, embed_of, noted, run
from tests.support.waiting import PATIENCE_S, wait_for

KIND = "arrays"


@pytest.fixture(scope="module")
def weights(tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return on_cluster.fetch(tiny_clip, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def expected(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a run without a cluster comes to."""
    folder = tmp_path_factory.mktemp(KIND)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "PART_ROWS", PART_ROWS[KIND])
        patch.setenv("CLIPCIFAR_CACHE", str(folder / "cache"))
        return digests(run(folder, weights, KIND, embed_of(None, folder)))


@pytest.fixture(scope="module")
def whole_cluster() -> Iterator[Any]:
    pytest.importorskip("ray", reason="Ray is not installed: pip install --editable '.[ray]'")
    with on_cluster.started() as made:
        yield made


@pytest.fixture
def nodes(whole_cluster: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The cluster without a node that takes tasks; those that a test adds go with it."""
    monkeypatch.setattr(parts, "PART_ROWS", PART_ROWS[KIND])
    monkeypatch.setattr(cluster, "_LOOK_S", 0.2)
    yield whole_cluster
    for node in list(whole_cluster.worker_nodes):
        whole_cluster.remove_node(node, allow_graceful=False)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    (folder := tmp_path / "gate").mkdir()
    return folder


def tries(gate: Path) -> dict[int, list[int]]:
    """By the first row of a part, of how many batches each of its tasks was."""
    made: dict[int, list[int]] = {}
    for note in sorted(gate.glob("*-*"), key=lambda path: path.stat().st_mtime_ns):
        made.setdefault(int(note.name.partition("-")[0]), []).append(int(note.read_text()))
    return made


class Harm:
    """What happens to a cluster of two nodes whose tasks both have a shard written and another begun."""

    def __init__(self, nodes: Any, gate: Path, waiting: threading.Event) -> None:
        self._nodes, self._gate, self._waiting = nodes, gate, waiting

    def a_worker_is_killed(self) -> None:
        os.kill(self._at_work()[0], signal.SIGKILL)
        noted(self._gate, 3)

    def a_node_is_killed(self) -> None:
        self._kill_nodes(1)

    def all_nodes_are_killed_and_one_comes(self) -> None:
        self._kill_nodes(2)
        assert self._waiting.wait(PATIENCE_S)
        self._nodes.add_node(**NODE)

    def _kill_nodes(self, number: int) -> None:
        """Kill nodes, and wait until their workers have noticed."""
        working = self._at_work()
        for node in list(self._nodes.worker_nodes)[:number]:
            self._nodes.remove_node(node, allow_graceful=False)
        wait_for(lambda: sum(map(is_running, working)) == 2 - number, what="workers of a dead node to end")

    def _at_work(self) -> list[int]:
        return [int(note.name.partition("-")[2]) for note in noted(self._gate, 2)]


@pytest.mark.parametrize(
    ("harm", "again"),
    first(
        1,
        [
            (Harm.a_worker_is_killed, 1),
            (Harm.a_node_is_killed, 1),
            (Harm.all_nodes_are_killed_and_one_comes, 2),
        ],
    ),
)
def test_what_dies_is_begun_again_and_finished_shards_are_not(
    harm: Callable[[Harm], None],
    again: int,
    nodes: Any,
    weights: Path,
    expected: dict[str, str],
    gate: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    waiting = threading.Event()
    real = cluster._no_room

    def heard(*arguments: Any) -> str:
        waiting.set()
        return real(*arguments)

    monkeypatch.setattr(cluster, "_no_room", heard)
    for _ in range(2):
        nodes.add_node(**NODE)

    embed = embed_of(nodes.address, tmp_path / "scratch")
    with on_cluster.beside(lambda: run(tmp_path, weights, KIND, embed, gate=gate), gate) as running:
        harm(Harm(nodes, gate, waiting))
    assert digests(running.result()) == expected
    counts = tries(gate)
    assert {start: batches[0] for start, batches in counts.items()} == {0: 24, 1500: 24, 3000: 11}
    # A task of 24 batches has written a shard of 16 when it dies, and 8 are left; one of 11 has none.
    died = {start: batches[1:] for start, batches in counts.items() if len(batches) > 1}
    assert len(died) == again
    assert all(batches == ([11] if start == 3000 else [8]) for start, batches in died.items())
    was_told = "no node has room for a task of 1 core" in capsys.readouterr().out
    assert was_told == (harm is Harm.all_nodes_are_killed_and_one_comes)


def driver(folder: Path, weights: Path, address: str, **environment: str) -> subprocess.Popen[str]:
    """A run in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.on_cluster", str(folder), str(weights), address, KIND],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.nightly
def test_a_driver_that_is_killed_goes_on_where_it_was_and_a_second_one_is_refused_meanwhile(
    nodes: Any, weights: Path, expected: dict[str, str], gate: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        nodes.add_node(**NODE)
    embed = embed_of(nodes.address, tmp_path / "scratch")
    with driver(tmp_path, weights, nodes.address) as process:
        noted(gate, 2)
        with pytest.raises(EnvironmentFault, match="another run is extracting the same embeddings") as caught:
            run(tmp_path / "second", weights, KIND, embed)
        assert f"process {process.pid}" in caught.value.what
        assert not (tmp_path / "second" / "data" / "embeddings" / "images" / "manifest.h5").exists()
        process.kill()
    (gate / "open").touch()
    assert digests(run(tmp_path, weights, KIND, embed, gate=gate)) == expected
    assert {start: batches[0] for start, batches in tries(gate).items()} == {0: 24, 1500: 24, 3000: 11}
    again = {start: batches[1:] for start, batches in tries(gate).items() if len(batches) > 1}
    assert len(again) == 2
    assert all(batches == ([11] if start == 3000 else [8]) for start, batches in again.items())


@pytest.mark.nightly
def test_another_token_or_no_cluster_at_all_is_told_in_a_line(
    nodes: Any, weights: Path, gate: Path, tmp_path: Path
) -> None:
    for address, token in ((nodes.address, "0" * 64), ("127.0.0.1:1", os.environ["RAY_AUTH_TOKEN"])):
        with driver(tmp_path, weights, address, RAY_AUTH_TOKEN=token) as process:
            said, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == EnvironmentFault.exit_code, said
        assert f"no Ray cluster at {address} lets this process in" in said
        assert "docs/cluster.md" in said


def other(target: Path, change: Callable[[bytes], bytes], folder: Path) -> str:
    """A shell command after which a file is another one for who sees this mount."""
    changed = folder / target.name
    changed.write_bytes(change(target.read_bytes()))
    return f"mount --bind {shlex.quote(str(changed))} {shlex.quote(str(target))}"


def other_torch(weights: Path, scratch: Path, folder: Path) -> str:
    here = importlib.metadata.version("torch")
    listed = importlib.metadata.distribution("torch")._path / "METADATA"  # type: ignore[attr-defined]
    return other(listed, lambda text: text.replace(f"Version: {here}".encode(), b"Version: 9.9.9"), folder)


def other_code(weights: Path, scratch: Path, folder: Path) -> str:
    code = Path(next(iter(clipcifar.__path__))) / "backbone" / "preprocess.py"
    return other(code, lambda text: text + b"\n# another version\n", folder)


def other_weights(weights: Path, scratch: Path, folder: Path) -> str:
    return other(weights / WEIGHTS_FILE, lambda content: content[:-1] + bytes([content[-1] ^ 1]), folder)


def other_config(weights: Path, scratch: Path, folder: Path) -> str:
    return other(weights / CONFIG_FILE, lambda text: text + b" ", folder)


def no_folder(weights: Path, scratch: Path, folder: Path) -> str:
    scratch.mkdir()
    return faults.tmpfs(scratch, "1m")


@pytest.mark.parametrize(
    ("difference", "said"),
    first(
        1,
        [
            (other_torch, r"version_torch is '9\.9\.9' there, and '.*' where the run began"),
            (other_code, "source_sha256 is '.*' there"),
            (other_weights, "the weights have sha256"),
            (other_config, "the config have sha256"),
            (no_folder, "the shared folder is not seen there: "),
        ],
    ),
)
def test_a_node_that_differs_is_refused_by_the_name_of_what_differs(
    difference: Callable[[Path, Path, Path], str],
    said: str,
    nodes: Any,
    weights: Path,
    tmp_path: Path,
) -> None:
    """The node is a real one, and sees other files."""
    if not faults.can_mount(tmp_path / "mount"):
        pytest.skip("this user may not mount anything")
    (changed := tmp_path / "changed").mkdir()
    setup = difference(weights, tmp_path / "scratch", changed)
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={nodes.address}", "--block"]
    start += ["--num-cpus=1", "--object-store-memory=100000000"]
    log = tmp_path / "node.log"
    with log.open("w") as output:
        node = subprocess.Popen(faults.in_namespace(setup, start), stdout=output, stderr=output)
    try:
        with pytest.raises(ClipcifarError, match=said) as caught:
            run(tmp_path, weights, KIND, embed_of(nodes.address, tmp_path / "scratch"))
        assert caught.value.where.startswith(f"node {os.uname().nodename}")
        project = tmp_path / "project"
        (project / "data").mkdir(parents=True)
        shutil.copy(weights.parent / "model.json", project / "data")
        (project / "data" / "weights").symlink_to(weights)
        embed = asdict(embed_of(nodes.address, tmp_path / "scratch"))
        told = [str(line) for line in doctor_cluster.nodes(project, {"embed": embed})]
        assert [line for line in told if re.search(said, line)] == told[1:]  # the first counts nodes
    finally:
        node.terminate()
        node.wait()


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["arrays", "photographs"])
def test_one_worker_alone_comes_to_the_same_bytes(
    kind: str, nodes: Any, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", PART_ROWS[kind])
    nodes.add_node(**NODE)
    expected = digests(run(tmp_path / "a", weights, kind, embed_of(None, tmp_path)))
    made = run(tmp_path / "b", weights, kind, embed_of(nodes.address, tmp_path / "scratch"))
    assert digests(made) == expected
