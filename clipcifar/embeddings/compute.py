"""Embeddings of images: found where they are kept, computed only where nobody has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clipcifar.backbone.device_kind import confirmed, device_kind
from clipcifar.backbone.params import EmbedParams
from clipcifar.core import files
from clipcifar.core.files import Attribute
from clipcifar.embeddings import known as known_rows, provenance, second_pass
from clipcifar.embeddings.kept import Contents, Wanted, find
from clipcifar.embeddings.known import Known
from clipcifar.embeddings.shards import ShardFolder, require_space
from clipcifar.store import container
from clipcifar.store.container import fingerprint_of
from clipcifar.store.dataset import Prepared
from clipcifar.store.embeddings import IMAGES_KIND
from clipcifar.store.fields import copies_of
from clipcifar.store.images import Listed, listing, write_manifest
from clipcifar.store.model import ModelDescription, check_weights, embedding_dim
from clipcifar.store.parts import write_parts

if TYPE_CHECKING:  # torch, which nobody waits for where everything is found
    from clipcifar.backbone.preprocess import Preprocess
    from clipcifar.embeddings.sources import ImageSource


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

    def source(preprocess: Preprocess, rows: NDArray[np.int64] | None) -> ImageSource:
        from clipcifar.embeddings.sources import source_of

        images = everything if rows is None else everything.take(rows)
        return source_of(images, photographs, preprocess=preprocess, workers=embed.worker_count)

    def write(rows: Iterator[NDArray[np.float32]], contents: Contents) -> None:
        parts = write_parts(path, rows, storage=embed.storage)
        write_manifest(path, {**of_images, **contents()}, parts, attributes=attributes)

    contents = cache(partial(known_rows.contents_of, dataset.train, dataset.test))
    return Wanted(path, IMAGES_KIND, attributes, recorded, everything.ids, source, write, of_images, contents)


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
            if rows is None or len(rows.unknown):
                missing.append(file)
                known |= {file.path: rows} if rows else {}
            else:
                file.write(rows.joined(iter(())), file.contents)
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
    from clipcifar.backbone import device
    from clipcifar.backbone.towers import Backbone
    from clipcifar.embeddings.extract import extract

    known, encoded = known or {}, 0
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
        row_bytes = 4 * embedding_dim(weights)
        num_bytes = row_bytes * max(len(file.ids) for file in wanted)
        read_elsewhere = row_bytes * sum(len(rows.known) for rows in known.values())
        require_space(pieces, num_bytes, output=folder, known=read_elsewhere)
        backbone = Backbone.load(weights, target)

        def embedded(
            file: Wanted, shards: ShardFolder, rows: NDArray[np.int64] | None, what: str
        ) -> Iterator[NDArray[np.float32]]:
            return extract(
                file.source(backbone.preprocess, rows),
                partial(backbone.encode_images, precision=embed.precision),
                ids=file.ids if rows is None else [file.ids[row] for row in rows],
                batch_size=embed.batch_size,
                multiple=device.short_batch_multiple(target, embed.batch_size),
                shards=shards if rows is None else shards.of(rows),
                what=what,
            )

        for number, (file, shards) in enumerate(zip(wanted, pieces, strict=True), start=1):
            if len(wanted) > 1:
                print(f"{file.path.stem}, {number} of {len(wanted)}", flush=True)
            rows = known.get(file.path)
            encoded += second_pass.write(file, rows, partial(embedded, file, shards), embed=embed)
        if not nobody_waits():
            for shards in pieces:
                shards.remove()
    return encoded
