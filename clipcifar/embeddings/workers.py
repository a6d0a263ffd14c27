"""What every worker of a cluster must be like, lest it come to other rows; and sentences embedded by such."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from clipcifar.backbone.params import EmbedParams
from clipcifar.core import files
from clipcifar.core.errors import EnvironmentFault
from clipcifar.core.files import Attribute
from clipcifar.embeddings import cluster, provenance
from clipcifar.store.model import ModelDescription, check_weights, embedding_dim

if TYPE_CHECKING:  # torch, which who hands out tasks does without
    from clipcifar.backbone.towers import Backbone

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


_held: dict[str, Backbone] = {}  # by the run, since Ray keeps workers; but none that has a GPU


def backbone_of(duty: Duty, embed: EmbedParams) -> Backbone:
    """In a worker: the model, loaded once this node has what the duty says; errors as of `Duty.check`."""
    if duty.run not in _held:
        from clipcifar.backbone import device
        from clipcifar.backbone.towers import Backbone

        target = device.choose(embed.device, key="embed.device")
        device.dtype_of(target, embed.precision)
        duty.check((target.type, device.model_of(target, embed.precision)))
        _held.clear()
        _held[duty.run] = Backbone.load(duty.weights, target, embed.precision)
    return _held[duty.run]


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
    for where, embeddings in backbone_of(duty, embed).encode_sentences(sentences):
        rows[where] = embeddings
    return start, rows
