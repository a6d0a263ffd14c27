"""Sentences to embeddings, each encoded once per model: from the memo, else by the text tower.

The tower is loaded when the first new sentence comes, and then stays; without one torch is not imported.
The memo is keyed by model, tokenizer, code, libraries and kind of device. What it lacks is looked for in the
project's own text embeddings, which `dvc pull` may have brought from a machine whose memo is not here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.backbone.device_kind import confirmed, device_kind
from clipcifar.backbone.params import EmbedParams
from clipcifar.backbone.uncompiled import uncompiled
from clipcifar.core.errors import DataError
from clipcifar.core.faults import Faults
from clipcifar.core.files import Attribute, cache_folder
from clipcifar.core.progress import progress
from clipcifar.embeddings import provenance
from clipcifar.embeddings.memo import Memo
from clipcifar.project.dvc_cache import kept_objects
from clipcifar.store.container import fingerprint_in_file, fingerprint_of
from clipcifar.store.embeddings import TEXTS_KIND, read_texts
from clipcifar.store.fields import check_embeddings
from clipcifar.store.model import ModelDescription, check_weights
from clipcifar.store.places import ACTIVE, POOL, TEXTS

if TYPE_CHECKING:
    from tqdm import tqdm

    from clipcifar.backbone.towers import Backbone


MEMO_FILE = "sentences.sqlite"
# What stages make of sentences, the smallest first.
OUTPUTS = (Path(ACTIVE), Path(TEXTS), Path(POOL))
_OF_A_SET = ("class_names", "prompt_set")  # what a file of text embeddings says besides
FOR_A_CLUSTER = 16_384  # new sentences and more: on two cores, the minutes that are worth its start
KEPT_AT_ONCE = 1024  # new sentences; a run that is killed loses no more
# Text batches have a fixed size, on which a sentence's bytes depend: there is none to lower.
_TEXT_MEMORY = "free some memory and run again, what is embedded is kept; or set embed.device: cpu"


class SentenceEmbedder:
    """The text side of one model on one kind of device.

    Args:
        model: what was resolved.
        weights: the folder that holds it.
        embed: on which device and in which precision.
        repository: the project's root, whose text embeddings, here and in DVC's cache, are read where the
            memo does not know a sentence; None for none.
        by_cluster: whether many new sentences are embedded by a cluster, where `embed` says so.

    Attributes:
        kind: the kind of device that sentences are embedded on.
        attributes: what determined an embedding besides its sentence; the class names are left empty.
    """

    def __init__(
        self,
        model: ModelDescription,
        weights: Path,
        embed: EmbedParams,
        *,
        repository: Path | None = None,
        by_cluster: bool = False,
    ) -> None:
        self._model, self._weights, self._embed = model, weights, embed
        self._by_cluster = by_cluster and embed.engine == "ray"
        self.kind = device_kind(embed.device)
        # The memo outlives class lists and sets: its key leaves them out.
        self.attributes = provenance.text_attributes(model, [], self.kind, embed)
        memo, key = cache_folder() / MEMO_FILE, fingerprint_of(provenance.determining(self.attributes))
        self._memo, self._too_long = Memo(memo, key), Memo(memo, f"{key}, too long")
        self._unread = iter(()) if repository is None else _text_files(repository)
        self._kept: dict[str, NDArray[np.float32]] = {}
        self._backbone: Backbone | None = None

    def embed(self, origins: Mapping[str, str]) -> tuple[dict[str, NDArray[np.float32]], int]:
        """Embed sentences.

        Args:
            origins: each sentence with where it is from, for messages.

        Returns:
            Each sentence's (D,) float32 unit vector, and how many had to be encoded now.

        Raises:
            ConfigError: a sentence does not fit the model's context.
            DataError: the weights are not the ones that were described.
            EnvironmentFault: memory ran out; sentences that were embedded before it did are kept.
        """
        known = self._known(list(origins))
        new = [sentence for sentence in origins if sentence not in known]
        if new:
            known.update(self._encode(new, origins))
        return known, len(new)

    def knows(self, sentences: list[str]) -> bool:
        """Whether all of these sentences were embedded before, so that no tower is needed."""
        return self._known(sentences).keys() >= {*sentences}

    def embed_rows(self, sentences: list[str]) -> NDArray[np.float32]:
        """Embed S sentences of no particular origin, (S, D) float32 unit rows."""
        embeddings, _ = self.embed(dict.fromkeys(sentences, "the prompt"))
        return self.stacked(embeddings, sentences)

    @staticmethod
    def stacked(embeddings: Mapping[str, NDArray[np.float32]], sentences: list[str]) -> NDArray[np.float32]:
        """The embeddings of S sentences as (S, D) float32 rows; of none, an array without a row."""
        rows = [embeddings[sentence] for sentence in sentences]
        return np.stack(rows) if rows else np.zeros((0, 1), dtype=np.float32)

    def fitting(self, sentences: list[str]) -> list[str]:
        """Those of the sentences that fit the model's context; the memo knows which do not, too."""
        too_long = set(self._too_long.get(sentences))
        left = [text for text in sentences if text not in too_long]
        known = self._known(left)
        if new := [text for text in left if text not in known]:
            backbone = self.load()
            longer = [text for text in new if backbone.count_tokens(text) > backbone.context_length]
            self._too_long.put(dict.fromkeys(longer, np.zeros(0, dtype=np.float32)))
            too_long.update(longer)
        return [text for text in left if text not in too_long]

    def _known(self, sentences: list[str]) -> dict[str, NDArray[np.float32]]:
        """Those of the sentences that were embedded before, here or wherever DVC's files are from.

        A file of DVC's that is there and cannot be read is an error, as it is where images are looked for.
        """
        known = self._memo.get(sentences)
        missing = set(sentences) - set(known)
        while missing - set(self._kept) and (path := next(self._unread, None)) is not None:
            self._kept |= self._rows_of(path)
        kept = {sentence: self._kept[sentence] for sentence in missing & set(self._kept)}
        if kept:
            self._memo.put(kept)
        return known | kept

    def _rows_of(self, path: Path) -> dict[str, NDArray[np.float32]]:
        """The sentences of a file of text embeddings, if it is whole and of this model."""
        with suppress(DataError):  # damaged: its sentences are embedded again
            texts = read_texts(path)
            if fingerprint_of(_without_set(texts.attributes)) == fingerprint_in_file(
                _without_set(self.attributes), kind=TEXTS_KIND
            ):
                return dict(zip(texts.sentences, texts.embeddings, strict=True))
        return {}

    def _encode(self, sentences: list[str], origins: Mapping[str, str]) -> dict[str, NDArray[np.float32]]:
        backbone = self.load()
        from clipcifar.backbone.device import out_of_memory_explained

        too_long = Faults()
        for sentence in sentences:
            with too_long.gathered():
                backbone.check_length(sentence, where=origins[sentence])
        too_long.raise_all("the sentences")
        stored: dict[str, NDArray[np.float32]] = {}
        fresh: dict[str, NDArray[np.float32]] = {}
        with (
            progress(total=len(sentences), unit="sentences", what="embedding sentences") as bar,
            out_of_memory_explained("embed.device", fix=_TEXT_MEMORY),
        ):
            try:
                for rows, embeddings in self._batches(backbone, sentences, bar):
                    names = [sentences[row] for row in rows]
                    check_embeddings(embeddings, names, what="sentence")
                    fresh.update(zip(names, embeddings, strict=True))
                    bar.update(len(rows))
                    if len(fresh) >= KEPT_AT_ONCE:
                        self._memo.put(fresh)
                        stored.update(fresh)
                        fresh = {}
            finally:
                self._memo.put(fresh)
        return {**stored, **fresh}

    def _batches(
        self, backbone: Backbone, sentences: list[str], bar: tqdm[Any]
    ) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        """As `Backbone.encode_sentences` gives them; of many by a cluster, on this kind of device."""
        if not self._by_cluster or len(sentences) < FOR_A_CLUSTER:
            return backbone.encode_sentences(sentences)
        from clipcifar.embeddings import workers

        kind: Any = self.kind
        embed = replace(self._embed, device=kind)
        about: Any = {"model": self._model, "weights": self._weights, "embed": embed}
        return workers.embed_sentences(sentences, self.attributes, bar, **about)

    def load(self) -> Backbone:
        """The text tower, loaded once; called beforehand, the first new sentence waits for nothing."""
        if self._backbone is None:
            with ThreadPoolExecutor(1) as beside:  # hashing the weights while modules are imported
                checked = beside.submit(check_weights, self._model, self._weights)
                with uncompiled():
                    from clipcifar.backbone.towers import Backbone

                device = confirmed(self._embed.device, self.kind)
                checked.result()
            self._backbone = Backbone.load(self._weights, device, self._embed.precision)
        return self._backbone


def _text_files(repository: Path) -> Iterator[Path]:
    """Files of text embeddings: those of the workspace, then DVC's of an output that is not there."""
    yield from text_files(repository)
    for output in OUTPUTS:
        if not _files_of(repository / output):  # DVC deletes it before its stage runs
            yield from kept_objects(repository, output).values()


def text_files(repository: Path) -> list[Path]:
    """The files of text embeddings that lie in a project."""
    return [path for output in OUTPUTS for path in _files_of(repository / output)]


def _files_of(output: Path) -> list[Path]:
    return sorted(output.glob("*.h5")) if output.is_dir() else [output] if output.is_file() else []


def _without_set(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    return {k: v for k, v in provenance.determining(attributes).items() if k not in _OF_A_SET}
