"""Embeddings of images: found by what determined them, computed only where nobody has them.

A file of embeddings says what determined it, so any whole file that says the same is the one that is
wanted: one in the user's cache folder, or one that DVC keeps of the last run, whose copy in the workspace it
deletes before a stage runs. Whatever else has changed since, no image goes through the tower a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.backbone.device_kind import confirmed, device_kind
from clipcifar.backbone.params import EmbedParams
from clipcifar.core import files
from clipcifar.core.errors import DataError
from clipcifar.core.files import Attribute
from clipcifar.embeddings import provenance
from clipcifar.embeddings.shards import ShardFolder, require_space
from clipcifar.project.dvc_cache import kept_objects
from clipcifar.store import container
from clipcifar.store.container import Container, fingerprint_of
from clipcifar.store.dataset import Prepared
from clipcifar.store.embeddings import COPIES, IMAGES_KIND, Split
from clipcifar.store.fields import copies_of
from clipcifar.store.images import write_images
from clipcifar.store.model import ModelDescription, check_weights, embedding_dim

if TYPE_CHECKING:  # torch, which nobody waits for where everything is found
    from clipcifar.backbone.preprocess import Preprocess
    from clipcifar.embeddings.sources import ImageSource


@dataclass(frozen=True)
class Wanted:
    """A file of embeddings to have, and how to come by it where nobody has it.

    Attributes:
        path: where it shall be.
        kind: of the container.
        attributes: all that determines its content.
        recorded: what DVC may have recorded it as: an output's path in the project, or a file of one.
        ids: N names of the images, for messages.
        source: the N images, for the preprocessing of the loaded model.
        write: writes the file from (N, D) float32 unit rows.
        beside: what else the file shall hold that did not determine its rows, by the name of the array.
    """

    path: Path
    kind: str
    attributes: Mapping[str, Attribute]
    recorded: Path
    ids: list[str]
    source: Callable[[Preprocess], ImageSource]
    write: Callable[[NDArray[np.float32]], None]
    beside: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def in_cache_folder(attributes: Mapping[str, Attribute]) -> Path:
    """The file of the user's cache folder for embeddings that these attributes determine."""
    determined = fingerprint_of(provenance.determining(attributes))
    return files.cache_folder("embeddings") / f"{determined[:32]}.h5"


def attributes_of(dataset: Prepared, model: ModelDescription, embed: EmbedParams) -> dict[str, Attribute]:
    """What determines the embeddings of a dataset's images; torch is not asked where the device is known."""
    return {
        **provenance.embedding_attributes(model, dataset.class_names, device_kind(embed.device)),
        **provenance.image_attributes(dataset, embed),
    }


def dataset_images(
    path: Path,
    dataset: Prepared,
    model: ModelDescription,
    *,
    recorded: Path,
    photographs: Path,
    embed: EmbedParams,
) -> Wanted:
    """All images of a dataset, train and test.

    Args:
        path, recorded: of the file, as `Wanted` has them.
        dataset: the prepared images.
        model: what they go through.
        photographs: what the ids of photographs are relative to.
        embed: how.
    """
    everything, n = dataset.train + dataset.test, len(dataset.train.ids)
    attributes = attributes_of(dataset, model, embed)
    copies = {
        name: copies_of(part.contents) for name, part in (("train", dataset.train), ("test", dataset.test))
    }

    def source(preprocess: Preprocess) -> ImageSource:
        from clipcifar.embeddings.sources import source_of

        return source_of(everything, photographs, preprocess=preprocess, workers=embed.worker_count)

    def write(rows: NDArray[np.float32]) -> None:
        write_images(
            path,
            train=Split(rows[:n], dataset.train.labels, dataset.train.ids, copies["train"]),
            test=Split(rows[n:], dataset.test.labels, dataset.test.ids, copies["test"]),
            attributes=attributes,
        )

    beside = {f"{name}/{COPIES}": rows for name, rows in copies.items() if rows is not None}
    return Wanted(path, IMAGES_KIND, attributes, recorded, everything.ids, source, write, beside)


def obtain(
    wanted: Sequence[Wanted],
    *,
    repository: Path,
    model: ModelDescription,
    weights: Path,
    embed: EmbedParams,
    nobody_waits: Callable[[], bool] = lambda: False,
) -> int:
    """Have every file at its path: found and copied, or encoded with the model loaded once.

    Args:
        wanted: the files.
        repository: the project's root, for what DVC keeps.
        model, weights, embed, nobody_waits: as `encode` has them.

    Returns:
        How many images had to be encoded.

    Raises:
        ClipcifarError: as `encode`.
    """
    missing = []
    for file in wanted:
        if (source := find(file, repository)) is None:
            missing.append(file)
            continue
        path, content = source
        renamed = any(content.attributes.get(key) != file.attributes[key] for key in provenance.NAMES)
        if renamed or not set(file.beside) <= set(content.arrays):  # an earlier version knew of no copies
            arrays = {**content.arrays, **file.beside}
            container.write(file.path, kind=file.kind, arrays=arrays, attributes=file.attributes)
        elif path != file.path:
            files.require_writable(file.path.parent)
            files.copy_file(path, file.path)
    if missing:
        encode(missing, model=model, weights=weights, embed=embed, nobody_waits=nobody_waits)
    return sum(len(file.ids) for file in missing)


def find(wanted: Wanted, repository: Path) -> tuple[Path, Container] | None:
    """A whole file that holds what is wanted, in the user's cache folder or else in DVC's cache.

    Its attributes may call the same weights by another name: the path that they had on another machine.

    Raises:
        EnvironmentFault: a file is there and cannot be read. It may be the one that is wanted, and the tower
            can take an hour: whoever reads the message gives a right or mounts a disk in less.
    """
    fingerprint = container.fingerprint_in_file(provenance.determining(wanted.attributes), kind=wanted.kind)
    for path in _places(wanted, repository):
        with suppress(DataError):  # not there, or damaged: the next, and at last the tower
            content = container.read(path, kind=wanted.kind)
            if fingerprint_of(provenance.determining(content.attributes)) == fingerprint:
                return path, content
    return None


def _places(wanted: Wanted, repository: Path) -> Iterator[Path]:
    yield in_cache_folder(wanted.attributes)
    yield from kept_objects(repository, wanted.recorded).values()


def encode(
    wanted: Sequence[Wanted],
    *,
    model: ModelDescription,
    weights: Path,
    embed: EmbedParams,
    nobody_waits: Callable[[], bool] = lambda: False,
) -> None:
    """Compute files of embeddings; a run that is killed goes on where it stopped.

    Args:
        wanted: the files.
        model, weights: the model and its folder.
        embed: how to embed.
        nobody_waits: whether who started this run has died and will start it again; then finished
            pieces are kept.

    Raises:
        ConfigError: the device cannot do what `embed` asks for; said before the model is loaded.
        DataError: the weights are not those described, or an embedding is not a unit vector.
        EnvironmentFault: another run is at it, or there is no room for it; said before, too.
    """
    from clipcifar.backbone import device
    from clipcifar.backbone.towers import Backbone
    from clipcifar.embeddings.extract import extract

    target = confirmed(embed.device, str(wanted[0].attributes["device"]))
    device.autocast(target, embed.precision)
    scratch, folder = files.cache_folder("extraction"), wanted[0].path.parent
    for place in (scratch, folder):
        files.require_writable(place)
    check_weights(model, weights)
    determined = [fingerprint_of(provenance.determining(file.attributes)) for file in wanted]
    pieces = [ShardFolder(scratch, fingerprint) for fingerprint in determined]
    with ExitStack() as held:
        for shards in pieces:
            held.enter_context(shards.locked())
        num_bytes = 4 * max(len(file.ids) for file in wanted) * embedding_dim(weights)
        require_space(pieces, num_bytes, output=folder)
        backbone = Backbone.load(weights, target)
        tower = partial(backbone.encode_images, precision=embed.precision)
        for number, (file, shards) in enumerate(zip(wanted, pieces, strict=True), start=1):
            if len(wanted) > 1:
                print(f"{file.path.stem}, {number} of {len(wanted)}", flush=True)
            source = file.source(backbone.preprocess)
            file.write(extract(source, tower, ids=file.ids, batch_size=embed.batch_size, shards=shards))
        if not nobody_waits():
            for shards in pieces:
                shards.remove()
