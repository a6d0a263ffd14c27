"""A Ray cluster for whoever has tasks: connected, asked for its devices, and handed tasks as it has room.

Scheduling, retries, liveness and authentication are Ray's. A task whose worker or node dies is begun again,
as often as it takes; so tasks are such that one which runs twice does no harm.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import islice
from typing import Any

from tqdm import tqdm

from clipcifar.backbone import device_kind as here
from clipcifar.backbone.params import EmbedParams
from clipcifar.core.counts import count_of
from clipcifar.core.errors import ClipcifarError, ConfigError, EnvironmentFault
from clipcifar.core.files import fault
from clipcifar.core.terminal import one_line

# Read by Ray when it is imported; what a person has set goes before.
_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_NUM_REDIS_GET_RETRIES": "2",  # of connecting: without these two, it tries for a quarter of an hour
    "RAY_py_gcs_connect_timeout_s": "10",
}
_ADDRESS = re.compile(r"local|auto|[^\s/]+:\d{1,5}")
_LOOK_S = 5  # between two looks at the nodes, while no task ends
_ANSWER_S = 10  # of a head's port
_PATIENCE_S = 60  # with a node that is asked a question
Task = Callable[[Any, Any, int], Any]  # of what all tasks have in common, what one has, and the cores to use


@contextmanager
def connected(embed: EmbedParams) -> Iterator[Any]:
    """Ray, with a cluster behind it; one that this process is connected to already is left as it is.

    Raises:
        ConfigError: the address is none, or Ray is not installed.
        EnvironmentFault: there is no such cluster, or it wants another token, or another version of Ray.
    """
    if not _ADDRESS.fullmatch(embed.address):
        raise ConfigError(
            f"embed.address is {one_line(embed.address)!r}, expected local, auto or host:port",
            where="params.yaml: embed.address",
            fix="local starts a cluster on this machine, auto finds the one that runs here, and host:port is "
            "that of its head",
        )
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "embed.engine is ray, and Ray is not installed",
            where="params.yaml: embed.engine",
            fix="pip install --constraint constraints.txt --editable '.[ray]', or set embed.engine: local",
        ) from error
    if ray.is_initialized():
        yield ray
        return
    own: dict[str, Any] = {"include_dashboard": False} if embed.address == "local" else {}
    try:
        if embed.address not in ("local", "auto"):  # Ray tries for most of a minute, and aloud
            host, _, port = embed.address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
        ray.init(address=embed.address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:  # of many types
        raise EnvironmentFault(
            f"no Ray cluster at {embed.address} lets this process in: {_last_line(error)}",
            where="params.yaml: embed.address",
            fix="docs/cluster.md says how one is started, and where its token lies. Where embed.device is "
            "named, embeddings that are there already are found without one",
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


@cache
def device_kind(embed: EmbedParams) -> str:
    """The kind of device that embeddings are of: what "auto" means is for a worker to say."""
    if embed.device != "auto" or embed.address == "local":
        return here.device_kind(embed.device)
    with connected(embed) as ray:
        has_gpus = any(node.get("GPU", 0) >= embed.worker_gpus for node in _nodes(ray))
        kind, _ = device_of_a_worker(embed, "cuda" if has_gpus else "cpu")
    return kind


def device_of_a_worker(embed: EmbedParams, kind: str) -> tuple[str, str]:
    """Kind and model of the device that a worker has which is given one of a kind."""
    with tqdm(disable=True) as bar:
        kind_and_model: tuple[str, str] = next(results(device_here, embed, [None], embed, kind, bar))
    return kind_and_model


def device_here(embed: EmbedParams, task: None = None, cores: int = 1) -> tuple[str, str]:
    """In a worker: kind and model of its device."""
    from clipcifar.backbone import device

    chosen = device.choose(embed.device, key="embed.device")
    return chosen.type, device.model_of(chosen, embed.precision)


def results(
    function: Task,
    common: object,
    tasks: Iterable[object],
    embed: EmbedParams,
    kind: str,
    bar: tqdm[Any],
    done: Callable[[], int] | None = None,
) -> Iterator[Any]:
    """What tasks come to, as they end; no more of them are under way than the nodes have room for, and a few.

    Args:
        function: a module's own, which gets `common`, a task and the number of its cores.
        common, tasks: what it is about; all of it is sent to other processes.
        embed: how many cores and GPUs a task has.
        kind: of the device; only cuda asks for GPUs.
        bar: that stands at `done`, and that a message is printed above.
        done: how much of it is done, asked now and then.

    Raises:
        ClipcifarError: of a task, which names its node.
        ConfigError: a cluster on this machine alone has no room for one.
    """
    with connected(embed) as ray:
        gpus = embed.worker_gpus if kind == "cuda" else 0
        cores = embed.worker_cpus or _cores(ray, gpus)
        remote = ray.remote(num_cpus=cores, num_gpus=gpus, max_retries=-1)(_told)
        shared, tasks, was_told = ray.put(common), iter(tasks), False
        pending: set[Any] = set()
        while True:
            room = _room(ray, cores, gpus)
            if room == 0 and embed.address == "local":  # where no other node will ever come
                raise ConfigError(
                    f"this machine has no room for a task of {_asked(cores, gpus)}",
                    where="params.yaml: embed.worker_cpus" if not gpus else "params.yaml: embed.device",
                    fix="ask for less, or name a cluster that has it: embed.address",
                )
            for task in islice(tasks, max(0, max(room, 1) + 2 - len(pending))):
                pending.add(remote.remote(function, shared, task, cores))
            if not pending:
                return
            if room == 0 and not was_told:
                bar.write(_no_room(ray, cores, gpus))
            was_told = room == 0
            for reference in ray.wait(list(pending), timeout=_LOOK_S)[0]:
                pending.remove(reference)
                yield _got(ray, reference)
            if done is not None:
                bar.update(done() - bar.n)


def of_every_node(function: Task, common: object, embed: EmbedParams) -> Iterator[tuple[str, Any]]:
    """What a task comes to on each node that takes some, by the node's name; its errors are among it."""
    with connected(embed) as ray:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        asked = {}
        for node in ray.nodes():
            if (
                node["Alive"] and node["Resources"].get("CPU", 0) >= 1
            ):  # whatever else it is at: 0 CPUs are left
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                remote = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(_told)
                asked[remote.remote(function, common, None, 1)] = str(node["NodeManagerHostname"])
        answered = ray.wait(list(asked), num_returns=len(asked), timeout=_PATIENCE_S)[0] if asked else []
        for reference, name in asked.items():
            try:
                if reference not in answered:
                    raise EnvironmentFault(
                        f"no answer within {_PATIENCE_S} s",
                        where=f"node {name}",
                        fix="see its logs, or stop Ray there",
                    )
                yield name, _got(ray, reference)
            except ClipcifarError as error:
                yield name, error


def _told(function: Task, common: object, task: object, cores: int) -> Any:
    """In a worker: what a task comes to; an error that a person is meant to read, too, with the node."""
    try:
        return function(common, task, cores)
    except (ClipcifarError, OSError) as error:
        told = error if isinstance(error, ClipcifarError) else fault(error, error.filename or "a file")
        told.where = f"node {platform.node()}" + (f", {told.where}" if told.where else "")
        return told


def _got(ray: Any, reference: Any) -> Any:
    try:
        result = ray.get(reference)
    except ray.exceptions.RayError as error:
        raise EnvironmentFault(
            f"a task failed on the cluster: {_last_line(error)}",
            fix="see that every node has this project's packages (docs/cluster.md); finished parts are kept",
        ) from error
    if isinstance(result, ClipcifarError):
        raise result
    return result


def _nodes(ray: Any) -> list[dict[str, float]]:
    """What each living node offers."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _room(ray: Any, cores: int, gpus: float) -> int:
    """How many tasks the cluster holds at once, were nobody else there."""
    by_cores = [(int(node.get("CPU", 0) // cores), node.get("GPU", 0)) for node in _nodes(ray)]
    return sum(min(n, int(has // gpus)) if gpus else n for n, has in by_cores)


def _cores(ray: Any, gpus: float) -> int:
    """Cores of a task where nobody says: those of the smallest node that can take it, shared by its GPUs."""
    able = [node for node in _nodes(ray) if node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= gpus]
    shares = [int(node["CPU"] // max(1, node["GPU"] // gpus if gpus else 1)) for node in able]
    return max(1, min(shares, default=1))


def _no_room(ray: Any, cores: int, gpus: float) -> str:
    return (
        f"no node has room for a task of {_asked(cores, gpus)} (nodes: {len(_nodes(ray))}); waiting for one. "
        "embed.worker_cpus and embed.worker_gpus say what a task takes"
    )


def _asked(cores: int, gpus: float) -> str:
    return count_of(cores, "core") + (f" and {gpus:g} GPU" if gpus else "")


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
