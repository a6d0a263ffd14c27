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
from clipcifar.store.embeddings import IMAGES_KIND, ImageEmbeddings
from clipcifar.store.fields import copies_of
from clipcifar.store.images import MANIFEST, Listed, listing, read_images, write_manifest
from clipcifar.store.model import ModelDescription, check_weights, embedding_dim
from clipcifar.store.parts import write_parts

if TYPE_CHECKING:  # torch, which nobody waits for where everything is found
    from clipcifar.backbone.preprocess import Preprocess
    from clipcifar.embeddings.sources import ImageSource


@dataclass(frozen=True)
class Wanted:
    """Embeddings to have in a file, or in a folder of parts, and how to come by them where nobody has them.

    Attributes:
        path: where they shall be.
        kind: of the container; in a folder, of its manifest.
        attributes: all that determines their content.
        recorded: what DVC may have recorded them as: an output's path in the project, or a file of one.
        ids: N names of the images, for messages.
        source: the N images, for the preprocessing of the loaded model.
        write: writes them from their rows in order, (n, D) float32 unit rows at a time.
        beside: of a folder, what its manifest holds besides its parts, by the name of the array.
    """

    path: Path
    kind: str
    attributes: Mapping[str, Attribute]
    recorded: Path
    ids: list[str]
    source: Callable[[Preprocess], ImageSource]
    write: Callable[[Iterator[NDArray[np.float32]]], None]
    beside: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def main(self) -> Path:
        """The file that says what determined the embeddings, relative to their place."""
        return Path(MANIFEST) if self.beside else Path()


@dataclass(frozen=True)
class Kept:
    """Whole embeddings as they are wanted, kept somewhere.

    Attributes:
        files: where each file of them lies, by its path relative to their place.
        content: of the main file.
    """

    files: Mapping[Path, Path]
    content: Container

    def images(self) -> ImageEmbeddings:
        """Those of a folder, verified as `read_images` does."""
        return read_images(
            self.files[Path(MANIFEST)], part_of=lambda name: self.files.get(Path(name), Path(name))
        )


def in_cache_folder(attributes: Mapping[str, Attribute]) -> Path:
    """The place in the user's cache folder for embeddings that these attributes determine."""
    determined = fingerprint_of(provenance.determining(attributes))
    return files.cache_folder("embeddings") / determined[:32]


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
    everything, attributes = dataset.train + dataset.test, attributes_of(dataset, model, embed)
    of_images = listing(
        *(Listed(part.labels, part.ids, copies_of(part.contents)) for part in (dataset.train, dataset.test))
    )

    def source(preprocess: Preprocess) -> ImageSource:
        from clipcifar.embeddings.sources import source_of

        return source_of(everything, photographs, preprocess=preprocess, workers=embed.worker_count)

    def write(rows: Iterator[NDArray[np.float32]]) -> None:
        write_manifest(path, of_images, write_parts(path, rows, storage=embed.storage), attributes=attributes)

    return Wanted(path, IMAGES_KIND, attributes, recorded, everything.ids, source, write, of_images)


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
        kept = find(file, repository)
        if kept is None:
            missing.append(file)
            continue
        attributes, arrays = kept.content.attributes, kept.content.arrays
        renamed = any(attributes.get(key) != file.attributes[key] for key in provenance.NAMES)
        lacking = not set(file.beside) <= set(arrays)  # an earlier version knew of no copies
        for name, path in kept.files.items():
            if name == file.main and (renamed or lacking):
                whole = {**arrays, **file.beside}
                container.write(file.path / name, kind=file.kind, arrays=whole, attributes=file.attributes)
            elif path != file.path / name:
                files.require_writable((file.path / name).parent)
                files.copy_file(path, file.path / name)
    if missing:
        encode(missing, model=model, weights=weights, embed=embed, nobody_waits=nobody_waits)
    return sum(len(file.ids) for file in missing)


def find(wanted: Wanted, repository: Path) -> Kept | None:
    """Whole embeddings that are what is wanted, in the user's cache folder or else in DVC's cache.

    Their attributes may call the same weights by another name: the path that they had on another machine.

    Raises:
        EnvironmentFault: a file is there and cannot be read. It may be the one that is wanted, and the tower
            can take an hour: whoever reads the message gives a right or mounts a disk in less.
    """
    fingerprint = container.fingerprint_in_file(provenance.determining(wanted.attributes), kind=wanted.kind)
    for kept in _places(wanted, repository):
        if wanted.main not in kept:
            continue
        with suppress(DataError):  # damaged: the next, and at last the tower
            content = container.read(kept[wanted.main], kind=wanted.kind)
            if fingerprint_of(provenance.determining(content.attributes)) == fingerprint:
                whole = Kept(kept, content)
                if wanted.beside:
                    whole.images().verify()
                return whole
    return None


def _places(wanted: Wanted, repository: Path) -> Iterator[dict[Path, Path]]:
    """Where files of the embeddings may lie, by their path relative to their place."""
    cached = in_cache_folder(wanted.attributes)
    yield {path.relative_to(cached): path for path in (cached, *cached.glob("*.h5")) if path.is_file()}
    recorded = kept_objects(repository, wanted.recorded).items()
    yield {Path(path).relative_to(wanted.recorded): kept for path, kept in recorded}


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
