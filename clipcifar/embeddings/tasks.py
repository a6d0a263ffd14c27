"""Embedding on a cluster: tasks for its workers, what each worker must be, and the bytes of a run here.

A task is one part of the rows (`store/parts.py`), or some thousand sentences. That of a part runs the
ordinary extraction over its shards and writes the part, both into a folder that all nodes see; what is
finished there is skipped, and equal tasks write equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from clipcifar.backbone.params import EmbedParams
from clipcifar.core import files
from clipcifar.core.errors import DataError, EnvironmentFault
from clipcifar.core.files import Attribute
from clipcifar.core.progress import progress
from clipcifar.embeddings import cluster, provenance
from clipcifar.embeddings.kept import Wanted
from clipcifar.embeddings.shards import ShardFolder
from clipcifar.store import container, parts
from clipcifar.store.container import fingerprint_of
from clipcifar.store.model import ModelDescription, check_weights, embedding_dim
from clipcifar.store.parts import PART_KIND, PartFolder, Parts, part_name, write_part

if TYPE_CHECKING:  # torch, which who hands out tasks does without
    from clipcifar.backbone.preprocess import Preprocess
    from clipcifar.backbone.towers import Backbone
    from clipcifar.embeddings.sources import ImageSource

SENTENCES = 4096  # of a task


@dataclass(frozen=True)
class Duty:
    """What a worker must have as who started the run has it, lest its rows be others.

    Attributes:
        run: its name.
        model, weights: the model, and where its folder is on every node.
        attributes: what determined the rows.
        device: kind and model of the device of the worker that was asked first.
        folder: that all nodes see, with a file of this run in it; None where nothing is shared.
    """

    run: str
    model: ModelDescription
    weights: Path
    attributes: Mapping[str, Attribute]
    device: tuple[str, str]
    folder: Path | None

    @property
    def mark(self) -> Path | None:
        return self.folder and self.folder / f"{self.run}.run"

    def check(self, here: tuple[str, str]) -> None:
        """Raise ClipcifarError where this node, its device being `here`, has something else; it says what."""
        if self.mark is not None and not self.mark.is_file():
            raise EnvironmentFault(
                f"the shared folder is not seen there: {self.folder}",
                where="params.yaml: embed.scratch",
                fix="mount it on every node, under the same path",
            )
        kind, model = here
        said = {**provenance.embedding_attributes(self.model, [], kind), "device model": model}
        wanted = {**self.attributes, "device model": self.device[1]}
        for field in sorted(said.keys() - {"class_names"}):
            if said[field] != wanted.get(field):
                raise EnvironmentFault(
                    f"{field} is {said[field]!r} there, and {wanted.get(field)!r} where the run began",
                    fix="give all nodes the same code, libraries and kind of device, or take this one out",
                )
        check_weights(self.model, self.weights)


@contextmanager
def duty_of(
    attributes: Mapping[str, Attribute],
    model: ModelDescription,
    weights: Path,
    embed: EmbedParams,
    *,
    folder: Path | None = None,
    device: tuple[str, str] | None = None,
) -> Iterator[Duty]:
    """The duty of a run's workers; the folder is marked meanwhile. For the device a worker is asked."""
    device = device or cluster.device_of_a_worker(embed, str(attributes["device"]))
    duty = Duty(token_hex(8), model, weights.absolute(), attributes, device, folder and folder.absolute())
    try:
        if duty.mark:
            files.write_atomically(duty.mark, b"")
        yield duty
    finally:
        if duty.mark:
            duty.mark.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Part:
    """Some rows, their names, what makes their images, and how their part is filed."""

    number: int
    rows: range
    ids: list[str]
    images: Callable[[Preprocess, int], ImageSource]
    fingerprint: str
    embed: EmbedParams


def embed_images(
    file: Wanted, shards: ShardFolder, *, model: ModelDescription, weights: Path, embed: EmbedParams
) -> None:
    """Have all images of a file embedded by workers, and write it; a cluster is connected.

    Args:
        file: what is wanted.
        shards: its folder, which all nodes see; the caller holds its lock.
        model, weights, embed: as `compute.encode` has them.
    """
    rows_of, fingerprint = (
        parts.bounds(len(file.ids)),
        fingerprint_of(provenance.determining(file.attributes)),
    )
    storage: Any = file.attributes.get("storage", "float32")
    embed = replace(embed, storage=storage)
    digests: dict[int, str] = {}

    def finished() -> int:
        """Rows of whole parts, and of the shards of others."""
        whole = [rows_of[number] for number in digests]
        others = [rows for rows in shards.finished() if not any(rows.start in each for each in whole)]
        return sum(map(len, [*whole, *others]))

    with (
        duty_of(file.attributes, model, weights, embed, folder=shards.folder) as duty,
        progress(total=len(file.ids), initial=finished(), unit="images", what=file.what) as bar,
    ):
        tasks = (
            _Part(number, rows, file.ids[rows.start : rows.stop], file.images(rows), fingerprint, embed)
            for number, rows in enumerate(rows_of)
        )
        kind = duty.device[0]
        for number, digest in cluster.results(_embed_part, duty, tasks, embed, kind, bar, finished):
            digests[number] = digest
    in_order, dim = [digests[number] for number in range(len(rows_of))], embedding_dim(weights)
    made = Parts([len(rows) for rows in rows_of], in_order, dim if digests else 0)
    if file.gather is not None:
        file.gather(shards.folder, made, file.contents)
    else:
        folder = PartFolder(shards.folder.joinpath, made, check=lambda *_: None)
        file.write((folder.read(number) for number in range(len(folder))), file.contents)


def _embed_part(duty: Duty, part: _Part, cores: int) -> tuple[int, str]:
    """In a worker: the number of a part, and the content digest of its file."""
    assert duty.folder is not None  # where its shards and its part are
    shards = ShardFolder(duty.folder.parent, part.fingerprint, first=part.rows.start)
    path = shards.folder / part_name(part.number)
    if (digest := _digest_of(path, part)) is None:
        try:
            rows = _extracted(duty, part, shards, cores)
            digest = write_part(shards.folder, rows, number=part.number, storage=part.embed.storage)
        except EnvironmentFault:  # of a node that Ray thought dead the task goes on: it may remove the shards
            if (digest := _digest_of(path, part)) is None:
                raise
    shards.discard(part.rows)
    return part.number, digest


def _extracted(duty: Duty, part: _Part, shards: ShardFolder, cores: int) -> NDArray[np.float32]:
    """In a worker: the rows of a part, (n, D) float32."""
    from clipcifar.backbone import device
    from clipcifar.embeddings.extract import extract

    backbone, embed = _backbone(duty, part.embed), part.embed
    device.autocast(backbone.device, embed.precision)  # says what the device cannot do
    blocks = extract(
        part.images(backbone.preprocess, cores if embed.workers is None else embed.workers),
        partial(backbone.encode_images, precision=embed.precision),
        ids=part.ids,
        batch_size=embed.batch_size,
        multiple=device.short_batch_multiple(backbone.device, embed.batch_size),
        shards=shards,
    )
    return np.concatenate(list(blocks))


def _digest_of(path: Path, part: _Part) -> str | None:
    """Of the file of a part, where an earlier task has written it."""
    with suppress(DataError):
        file = container.read(path, kind=PART_KIND)
        rows = file.arrays.get("embeddings", ())
        if (file.attributes.get("number"), len(rows)) == (part.number, len(part.ids)):
            return str(file.attributes["content_digest"])
    return None


def embed_sentences(
    sentences: list[str],
    attributes: Mapping[str, Attribute],
    bar: tqdm[Any],
    *,
    model: ModelDescription,
    weights: Path,
    embed: EmbedParams,
) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
    """What `Backbone.encode_sentences` gives, some thousand sentences at a time, as workers are done."""
    with cluster.connected(embed), duty_of(attributes, model, weights, embed) as duty:
        tasks = ((i, sentences[i : i + SENTENCES], embed) for i in range(0, len(sentences), SENTENCES))
        for start, rows in cluster.results(_embed_sentences, duty, tasks, embed, duty.device[0], bar):
            yield list(range(start, start + len(rows))), rows


def _embed_sentences(
    duty: Duty, task: tuple[int, list[str], EmbedParams], cores: int
) -> tuple[int, NDArray[np.float32]]:
    """In a worker: where some sentences begin among all, and their (S, D) float32 unit rows."""
    start, sentences, embed = task
    rows = np.empty((len(sentences), embedding_dim(duty.weights)), dtype=np.float32)
    for where, embeddings in _backbone(duty, embed).encode_sentences(sentences):
        rows[where] = embeddings
    return start, rows


_held: dict[str, Backbone] = {}  # by the run, since Ray keeps workers; but none that has a GPU


def _backbone(duty: Duty, embed: EmbedParams) -> Backbone:
    if duty.run not in _held:
        from clipcifar.backbone import device
        from clipcifar.backbone.towers import Backbone

        target = device.choose(embed.device, key="embed.device")
        duty.check((target.type, device.model_of(target)))
        _held.clear()
        _held[duty.run] = Backbone.load(duty.weights, target)
    return _held[duty.run]
