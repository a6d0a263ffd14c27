"""What a finished run measured on test, counted again from its predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError
from clipcifar.evaluation import headline
from clipcifar.evaluation.metrics import DECIMALS
from clipcifar.evaluation.names import TRAINED
from clipcifar.prompts.templates import normal_form
from clipcifar.store.embeddings import read_texts
from clipcifar.store.fields import class_names_of
from clipcifar.store.predictions import read_predictions, read_set_predictions

Sentences = frozenset[tuple[int, str]]  # (class, sentence in normal form)


@dataclass(frozen=True)
class Tally:
    """Test images and those that were classified correctly, (C,) int64 each, by class."""

    n: NDArray[np.int64]
    n_correct: NDArray[np.int64]

    @property
    def total(self) -> tuple[int, int]:
        """Images, and correct ones, of all classes."""
        return int(self.n.sum()), int(self.n_correct.sum())


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        dataset, model, pretrained, max_per_class, class_names: what it was run with.
        methods: by method that is trained.
        sets: by prompt set, zero-shot.
        sentences: of every prompt set.
        projected: the prompt set that the projection heads were trained with.
    """

    dataset: str
    model: str
    pretrained: str
    max_per_class: int
    class_names: list[str]
    methods: Mapping[str, Tally]
    sets: Mapping[str, Tally]
    sentences: Mapping[str, Sentences]
    projected: str


def tally(predicted: NDArray[np.int64], labels: NDArray[np.int64], *, num_classes: int) -> Tally:
    """Count (N,) predicted classes against (N,) labels."""
    return Tally(
        np.bincount(labels, minlength=num_classes),
        np.bincount(labels[predicted == labels], minlength=num_classes),
    )


def said_by(class_index: list[int], sentences: list[str]) -> Sentences:
    """A prompt set as what it says, whatever its order and its blanks."""
    return frozenset((label, normal_form(text)) for label, text in zip(class_index, sentences, strict=True))


def read(predictions: Path, metrics: Path, texts: Path) -> Run:
    """Read a finished run and check that its files belong together.

    Args:
        predictions, metrics: folders with a file per method, and one of the prompt sets.
        texts: folder with the embedded prompt sets.

    Raises:
        DataError: a file is missing or damaged, of another run, or its metrics are not those of its
            predictions.
    """
    trained = {name: read_predictions(predictions / f"{name}.h5") for name in TRAINED}
    said = read_set_predictions(predictions / "prompt_sets.h5")
    attributes = trained["linear_probe"].attributes
    class_names = class_names_of(attributes)
    for name, other in (*((n, f.attributes) for n, f in trained.items()), ("prompt_sets", said.attributes)):
        if other["images_fingerprint"] != attributes["images_fingerprint"]:
            raise _not_one_run(predictions / f"{name}.h5", "it was computed from other embeddings")
    embedded = {path.stem: read_texts(path) for path in sorted(texts.glob("*.h5"))}
    if set(embedded) != set(said.scores):
        raise _not_one_run(texts, "its prompt sets are not those of data/predictions/prompt_sets.h5")
    fingerprint = trained["projection"].attributes.get("texts_fingerprint")
    projected = [name for name, text in embedded.items() if text.attributes["fingerprint"] == fingerprint]
    if not projected:
        raise _not_one_run(predictions / "projection.h5", "its prompt set is not among the embedded ones")
    run = Run(
        dataset=str(attributes["dataset"]),
        model=str(attributes["model"]),
        pretrained=str(attributes["pretrained"]),
        max_per_class=int(attributes["max_per_class"]),
        class_names=class_names,
        methods={
            name: tally(item.predicted, item.labels, num_classes=len(class_names))
            for name, item in trained.items()
        },
        sets={
            name: tally(predicted, said.labels, num_classes=len(class_names))
            for name, predicted in said.predicted.items()
        },
        sentences={
            # Weighted, the same sentences are another classifier than the published one.
            name: said_by(text.class_index.tolist(), text.sentences) if text.weights is None else frozenset()
            for name, text in embedded.items()
        },
        projected=projected[0],
    )
    _check_metrics(run, metrics)
    return run


def _check_metrics(run: Run, metrics: Path) -> None:
    """Raise DataError unless the metrics files count what the predictions do."""
    written: dict[str, Any] = {name: headline.read(metrics, name) for name in run.methods}
    of_sets = headline.read(metrics, headline.PROMPT_SETS)
    for name, counted in (*run.methods.items(), *run.sets.items()):
        path = metrics / f"{name if name in run.methods else headline.PROMPT_SETS}.json"
        n, n_correct = counted.total
        try:
            entry = written[name] if name in run.methods else of_sets[name]["test"] | of_sets[name]
            expected = (n, n_correct, round(n_correct / n, DECIMALS))
            same = (entry["n"], entry["n_correct"], entry["accuracy"]) == expected
        except (KeyError, TypeError):
            same = False
        if not same:
            raise _not_one_run(path, f"it does not say of {name} what the predictions do")


def _not_one_run(path: Path, what: str) -> DataError:
    return DataError(
        f"{path.name} does not belong to this run: {what}", where=str(path), fix="run `dvc repro`"
    )
