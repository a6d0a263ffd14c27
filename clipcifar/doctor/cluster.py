"""What `clipcifar doctor` says of the cluster that embeds, where params.yaml names one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipcifar.backbone.params import EmbedParams
from clipcifar.core import params
from clipcifar.core.counts import count_of
from clipcifar.core.errors import ClipcifarError, ConfigError
from clipcifar.doctor.files import MODEL, WEIGHTS, Found
from clipcifar.embeddings import cluster, provenance
from clipcifar.embeddings.shards import require_writable, scratch_folder
from clipcifar.embeddings.workers import Duty, duty_of
from clipcifar.store.model import ModelDescription


def nodes(repository: Path, settings: Mapping[str, Any]) -> Found:
    """The cluster's nodes, and whether each has the device, versions, code, weights and folder it needs."""
    embed = params.read(settings, "embed", EmbedParams)
    if embed.engine == "local":
        return
    with cluster.connected(embed) as ray:
        offered, alive = ray.cluster_resources(), sum(bool(node["Alive"]) for node in ray.nodes())
        cores, gpus = (
            count_of(int(offered.get("CPU", 0)), "core"),
            count_of(int(offered.get("GPU", 0)), "GPU"),
        )
        yield f"Ray {ray.__version__} at {embed.address}: {count_of(alive, 'node')}, {cores}, {gpus}"
        devices = []
        for _, device in cluster.of_every_node(cluster.device_here, embed, embed):
            if isinstance(device, ClipcifarError):
                yield device
            else:
                devices.append(device)
        if alive > 1 and embed.scratch is None:
            yield ConfigError(
                "no folder is named that all nodes see",
                where="params.yaml: embed.scratch",
                fix="name one: `scratch: /srv/shared/clipcifar`",
            )
        elif not (repository / MODEL).is_file():
            yield f"{MODEL} is not made yet; `dvc repro fetch_model` makes it, and nodes are checked then"
        elif devices:
            yield from _checked(repository, embed, devices[0])


def _checked(repository: Path, embed: EmbedParams, device: tuple[str, str]) -> Found:
    """Every node against this machine, and against the device of the first."""
    model, folder = ModelDescription.read(repository / MODEL), scratch_folder(embed)
    require_writable(folder, embed)
    attributes = provenance.embedding_attributes(model, [], device[0])
    about = (attributes, model, repository / WEIGHTS, embed)
    with duty_of(*about, folder=folder, device=device) as duty:
        for name, answer in cluster.of_every_node(_on_a_node, (duty, embed), embed):
            yield answer if isinstance(answer, ClipcifarError) else f"{name}: {answer}"


def _on_a_node(asked: tuple[Duty, EmbedParams], task: None, cores: int) -> str:
    duty, embed = asked
    kind, model = cluster.device_here(embed)
    duty.check((kind, model))
    return f"{kind}, {model}; code, libraries and weights of this machine; sees {duty.folder}"
