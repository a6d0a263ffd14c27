"""Embeddings by workers of a simulated Ray cluster: the bytes of a run without one, whatever dies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clipcifar.store import parts
from tests.support import on_cluster
from tests.support.on_cluster import PART_ROWS, digests, embed_of, run

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install --editable '.[ray]'")

NODE = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A head that takes no task; each test adds its nodes, and they go with it."""
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0})
    try:
        yield started
    finally:
        started.shutdown()


@pytest.fixture
def nodes(cluster: Any) -> Iterator[Any]:
    yield cluster
    for node in list(cluster.worker_nodes):
        cluster.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="module")
def weights(tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return on_cluster.fetch(tiny_clip, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def expected(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What a run without a cluster comes to, of arrays and of photographs."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        for kind, rows in PART_ROWS.items():
            folder = tmp_path_factory.mktemp(kind)
            patch.setattr(parts, "PART_ROWS", rows)
            patch.setenv("CLIPCIFAR_CACHE", str(folder / "cache"))
            made[kind] = digests(run(folder, weights, kind, embed_of(None, folder)))
    return made


@pytest.mark.parametrize(
    ("kind", "workers"), [("arrays", 2), ("photographs", 1), ("arrays", 1), ("photographs", 2)]
)
def test_workers_come_to_the_bytes_of_a_run_without_them(
    kind: str,
    workers: int,
    nodes: Any,
    weights: Path,
    expected: dict[str, dict[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", PART_ROWS[kind])
    for _ in range(workers):
        nodes.add_node(**NODE)
    made = run(tmp_path, weights, kind, embed_of(nodes.address, tmp_path / "scratch"))
    assert len(expected[kind]) == 4
    assert digests(made) == expected[kind]
    assert not [
        path for path in (tmp_path / "scratch").rglob("*") if path.is_file() and path.suffix != ".lock"
    ]
