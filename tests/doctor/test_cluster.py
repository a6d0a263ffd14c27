"""What the doctor says of a cluster; nodes that differ are in tests/faults/test_cluster.py."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clipcifar.core.errors import ClipcifarError, ConfigError
from clipcifar.doctor import cluster as doctor_cluster
from tests.support import on_cluster
from tests.support.on_cluster import NODE

EMBED = {"device": "auto", "precision": "fp32", "batch_size": 4, "workers": 0, "storage": "float32"}


def said(repository: Path, **more: Any) -> list[str | ClipcifarError]:
    return list(doctor_cluster.nodes(repository, {"embed": {**EMBED, **more}}))


def test_without_a_cluster_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert said(tmp_path) == said(tmp_path, engine="local", address="nowhere:1") == []


def test_without_ray_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="Ray is not installed"):
        said(tmp_path, engine="ray")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    pytest.importorskip("ray", reason="Ray is not installed: pip install --editable '.[ray]'")
    with on_cluster.started() as made:
        made.add_node(**NODE)
        yield made.address


@pytest.mark.nightly
def test_nodes_are_counted_and_each_says_what_it_has(address: str, tiny_clip: Path, tmp_path: Path) -> None:
    cluster: dict[str, Any] = {"engine": "ray", "address": address}
    counted, unnamed = said(tmp_path, **cluster)
    assert str(counted).endswith(f"at {address}: 2 nodes, 1 core, 0 GPUs")  # the head takes no task
    assert isinstance(unnamed, ConfigError)
    assert unnamed.where == "params.yaml: embed.scratch"
    cluster["scratch"] = str(tmp_path / "shared")
    assert "data/model.json is not made yet" in str(said(tmp_path, **cluster)[1])
    (tmp_path / "data").mkdir()
    on_cluster.fetch(tiny_clip, tmp_path / "data")
    _, of_a_node = said(tmp_path, **cluster)
    assert f"code, libraries and weights of this machine; sees {tmp_path / 'shared'}" in str(of_a_node)
    assert list((tmp_path / "shared").iterdir()) == []  # it changes nothing
    (tmp_path / "data" / "weights" / "open_clip_config.json").write_text("{}")
    _, changed = said(tmp_path, **cluster)
    assert isinstance(changed, ClipcifarError)
    assert "the config have sha256" in changed.what
    assert changed.where.startswith("node ")
