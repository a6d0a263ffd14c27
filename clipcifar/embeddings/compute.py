"""Embeddings of images: found where they are kept, computed only where nobody has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clipcifar.backbone.device_kind import confirmed, device_kind
from clipcifar.backbone.params import EmbedParams
from clipcifar.backbone.uncompiled import uncompiled
from clipcifar.core import files
from clipcifar.core.files import Attribute
from clipcifar.embeddings import known as known_rows, provenance, second_pass
from clipcifar.embeddings.kept import Contents, Wanted, find
from clipcifar.embeddings.known import Known
from clipcifar.embeddings.shards import ShardFolder, require_space, require_writable, scratch_folder
from clipcifar.store import container
from clipcifar.store.container import fingerprint_of
from clipcifar.store.dataset import Prepared, PreparedSplit
from clipcifar.store.embeddings import IMAGES_KIND
from clipcifar.store.fields import copies_of
from clipcifar.store.images import Listed, listing, write_manifest
from clipcifar.store.model import ModelDescription, check_weights, embedding_dim
from clipcifar.store.parts import Parts, part_name, write_parts

if TYPE_CHECKING:  # torch, which nobody waits for where everything is found
    from clipcifar.backbone.preprocess import Preprocess
    from clipcifar.embeddings.sources import ImageSource

Engine = Callable[[Wanted, ShardFolder], None]  # computes a file and has it written


def attributes_of(dataset: Prepared, model: ModelDescription, embed: EmbedParams) -> dict[str, Attribute]:
    """What determines the embeddings of a dataset's images; torch is not asked where the device is known."""
    if embed.engine == "ray":
        from clipcifar.embeddings import cluster

        kind = cluster.device_kind(embed)
    else:
        kind = device_kind(embed.device)
    return {
        **provenance.embedding_attributes(model, dataset.class_names, kind),
        **provenance.image_attributes(dataset, embed),
    }


def _source(split: PreparedSplit, photographs: Path, preprocess: Preprocess, workers: int) -> ImageSource:
    with uncompiled():
        from clipcifar.embeddings.sources import source_of

    return source_of(split, photographs, preprocess=preprocess, workers=workers)


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

    def images(rows: range | NDArray[np.int64]) -> Callable[[Preprocess, int], ImageSource]:
        whole = isinstance(rows, range) and rows == range(len(everything.ids))
        split = everything if whole else everything.take(np.asarray(rows, dtype=np.int64))
        if split.members is not None:  # a worker of a cluster is sent them
            split = replace(split, members=split.members.alone())
        return partial(_source, split, photographs.absolute())

    def finish(made: Parts, contents: Contents) -> None:
        write_manifest(path, {**of_images, **contents(made)}, made, attributes=attributes)

    def write(rows: Iterator[NDArray[np.float32]], contents: Contents) -> None:
        finish(write_parts(path, rows, storage=embed.storage), contents)

    def gather(folder: Path, made: Parts, contents: Contents) -> None:
        for number in range(len(made.counts)):
            files.copy_file(folder / part_name(number), path / part_name(number))
        finish(made, contents)

    ids, digests = everything.ids, cache(partial(known_rows.contents_of, dataset.train, dataset.test))
    return Wanted(path, IMAGES_KIND, attributes, recorded, ids, images, write, gather, of_images, digests)


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

    An image that other embeddings have a row of is not encoded, where rows depend on their images alone.

    Args:
        wanted: the files.
        repository: the project's root, for what DVC keeps.
        model, weights, embed, nobody_waits: as `encode` has them.

    Returns:
        How many images had to be encoded.

    Raises:
        ClipcifarError: as `encode`.
    """
    missing: list[Wanted] = []
    known: dict[Path, Known] = {}
    for file in wanted:
        kept = find(file, repository)
        if kept is None:
            rows = known_rows.look_up(file, repository)
            if rows is None or len(rows.unknown) or len(rows.origins) > 1:
                missing.append(file)
                known |= {file.path: rows} if rows else {}
            else:
                second_pass.write_known(file, rows, iter(()))
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
    if not missing:
        return 0
    return encode(missing, known, model=model, weights=weights, embed=embed, nobody_waits=nobody_waits)


def encode(
    wanted: Sequence[Wanted],
    known: Mapping[Path, Known] | None = None,
    *,
    model: ModelDescription,
    weights: Path,
    embed: EmbedParams,
    nobody_waits: Callable[[], bool] = lambda: False,
) -> int:
    """Compute files of embeddings; a run that is killed goes on where it stopped.

    Args:
        wanted: the files.
        known: of some, by path, the rows that other embeddings have.
        model, weights: the model and its folder.
        embed: how to embed.
        nobody_waits: whether who started this run has died and will start it again; then finished
            pieces are kept.

    Returns:
        How many images were encoded.

    Raises:
        ConfigError: the device cannot do what `embed` asks for; said before the model is loaded.
        DataError: the weights are not those described, or an embedding is not a unit vector.
        EnvironmentFault: another run is at it, or there is no room for it; said before, too.
    """
    kind, scratch, folder = str(wanted[0].attributes["device"]), scratch_folder(embed), wanted[0].path.parent
    known, encoded = known or {}, 0
    with ExitStack() as held:
        engine = held.enter_context(_engine(model, weights, embed, kind))
        require_writable(scratch, embed)
        files.require_writable(folder)
        check_weights(model, weights)
        determined = [fingerprint_of(provenance.determining(file.attributes)) for file in wanted]
        pieces = [ShardFolder(scratch, fingerprint) for fingerprint in determined]
        for shards in pieces:
            held.enter_context(shards.locked())
        row_bytes = 4 * embedding_dim(weights)
        num_bytes = row_bytes * max(len(file.ids) for file in wanted)
        read_elsewhere = row_bytes * sum(len(rows.known) for rows in known.values())
        require_space(pieces, num_bytes, output=folder, known=read_elsewhere)
        for number, (file, shards) in enumerate(zip(wanted, pieces, strict=True), start=1):
            if len(wanted) > 1:
                print(f"{file.path.stem}, {number} of {len(wanted)}", flush=True)
            run = partial(_run, engine, shards)
            encoded += second_pass.write(file, known.get(file.path), run, embed=embed)
        if not nobody_waits():
            for shards in pieces:
                shards.remove()
    return encoded


def _run(engine: Engine, shards: ShardFolder, file: Wanted) -> None:
    """Compute a file whose shards these are, or some of its images, whose shards lie among them."""
    fingerprint = fingerprint_of(provenance.determining(file.attributes))
    engine(file, shards if fingerprint == shards.fingerprint else shards.of(fingerprint))


@contextmanager
def _engine(model: ModelDescription, weights: Path, embed: EmbedParams, kind: str) -> Iterator[Engine]:
    """What computes a file and has it written; it is asked whether it can before anything is begun."""
    if embed.engine == "ray":
        from clipcifar.embeddings import cluster, tasks

        with cluster.connected(embed):
            yield partial(tasks.embed_images, model=model, weights=weights, embed=embed)
        return
    with uncompiled():
        from clipcifar.backbone import device
        from clipcifar.backbone.towers import Backbone
        from clipcifar.embeddings.extract import extract

    target = confirmed(embed.device, kind)
    device.dtype_of(target, embed.precision)
    backbone: list[Backbone] = []  # loaded when the first file comes, all that can fail sooner being asked

    def compute(file: Wanted, shards: ShardFolder) -> None:
        if not backbone:
            backbone.append(Backbone.load(weights, target, embed.precision))
        tower = backbone[0].encode_images
        source = file.images(range(len(file.ids)))(backbone[0].preprocess, embed.worker_count)
        size, multiple = embed.batch_size, device.short_batch_multiple(target, embed.batch_size)
        rows = extract(
            source, tower, ids=file.ids, batch_size=size, multiple=multiple, shards=shards, what=file.what
        )
        file.write(rows, file.contents)

    yield compute
