"""Everything that the report is about, read and checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError
from clipcifar.core.files import Attribute
from clipcifar.evaluation import compare, headline
from clipcifar.evaluation.compare import NamedDifference
from clipcifar.evaluation.metrics import metric_keys
from clipcifar.evaluation.names import METHODS
from clipcifar.report.ranking import is_kept, read as read_ranking
from clipcifar.store.dataset import Prepared, read_dataset
from clipcifar.store.model import ModelDescription
from clipcifar.store.predictions import Predictions, SetPredictions, read_predictions, read_set_predictions

MAX_CLASSES = 20  # classes that get bars and galleries of their own


@dataclass(frozen=True)
class Facts:
    """The finished run.

    Attributes:
        active: the active prompt set.
        metrics, predictions: by method.
        set_metrics, sets: by prompt set.
        left_out: prompt sets that are too large, with their numbers of sentences.
        ranking: `data/ranking.json`.
        model: what was resolved.
        dataset: the prepared images; their test split is that of the predictions, row by row.
    """

    active: str
    metrics: Mapping[str, Any]
    predictions: Mapping[str, Predictions]
    set_metrics: Mapping[str, Any]
    left_out: Mapping[str, int]
    sets: SetPredictions
    ranking: Mapping[str, Any]
    model: ModelDescription
    dataset: Prepared

    @cached_property
    def set_differences(self) -> list[NamedDifference]:
        """Every other prompt set against the active one, on test."""
        others = {name: said for name, said in self.sets.predicted.items() if name != self.active}
        return self._against(self.sets.predicted[self.active], others)

    @cached_property
    def method_differences(self) -> list[NamedDifference]:
        """Every other method against zero-shot, on test; the best prompts unless they are the active set."""
        said = {method: predictions.predicted for method, predictions in self.predictions.items()}
        same = ("zero_shot", "rank_prompts") if is_kept(self.ranking) else ("zero_shot",)
        others = {method: predicted for method, predicted in said.items() if method not in same}
        return self._against(said["zero_shot"], others)

    def _against(
        self, reference: NDArray[np.int64], others: Mapping[str, NDArray[np.int64]]
    ) -> list[NamedDifference]:
        return compare.against(
            reference,
            others,
            self.sets.labels,
            class_names=self.dataset.class_names,
            copies=self.sets.copies,
        )

    def images_by_class(self) -> dict[str, int]:
        """The number of test images of every class that has any, by its key in the metrics."""
        counts = np.bincount(self.sets.labels, minlength=len(self.dataset.class_names))
        keys = metric_keys(self.dataset.class_names)
        return {key: int(count) for key, count in zip(keys, counts, strict=True) if count}

    def shown_classes(self) -> list[int]:
        """The classes that have test images; of very many, those on which zero-shot is least accurate."""
        labels, said = self.sets.labels, self.predictions["zero_shot"].predicted
        present: list[int] = np.unique(labels).tolist()
        if len(present) <= MAX_CLASSES:
            return present
        accuracy = {label: float((said[labels == label] == label).mean()) for label in present}
        return sorted(sorted(present, key=lambda label: accuracy[label])[:MAX_CLASSES])


def read(
    metrics: Path, predictions: Path, ranking: Path, dataset: Path, model: Path, *, active: str
) -> Facts:
    """Read everything and check that it is of the same images.

    Args:
        metrics, predictions: folders with a file per method, and one of the prompt sets.
        ranking, dataset, model: the files of those names.
        active: the active prompt set.

    Raises:
        DataError: a file is missing or damaged, or of other images than the dataset.
    """
    facts = Facts(
        active=active,
        metrics={method: headline.read(metrics, method) for method in METHODS},
        predictions={method: read_predictions(predictions / f"{method}.h5") for method in METHODS},
        set_metrics=headline.read(metrics, headline.PROMPT_SETS),
        left_out=headline.left_out(metrics),
        sets=read_set_predictions(predictions / "prompt_sets.h5"),
        ranking=read_ranking(ranking),
        model=ModelDescription.read(model),
        dataset=read_dataset(dataset),
    )
    same_sets = active in facts.sets.scores and set(facts.set_metrics) == set(facts.sets.scores)
    if not same_sets or facts.ranking["active"] != active:
        raise DataError(
            f"the results are not those of the active set {active!r}",
            where=str(predictions),
            fix="run `dvc repro`",
        )
    said: dict[str, Predictions | SetPredictions] = {**facts.predictions, "prompt_sets": facts.sets}
    for name, answers in said.items():
        _check_origin(answers.attributes, facts, name=name, path=predictions / f"{name}.h5")
        if answers.ids != facts.dataset.test.ids:
            raise DataError(
                f"the predictions of {name} are of other images than the dataset",
                where=str(predictions / f"{name}.h5"),
                fix="run `dvc repro`",
            )
    return facts


def _check_origin(attributes: Mapping[str, Attribute], facts: Facts, *, name: str, path: Path) -> None:
    """Raise DataError when predictions are of another model or dataset than the files beside them."""
    wanted = {
        "model": facts.model.model,
        "pretrained": facts.model.pretrained,
        "weights_sha256": facts.model.weights_sha256,
        "dataset_digest": facts.dataset.digest,
    }
    for field, value in wanted.items():
        if attributes.get(field) != value:
            raise DataError(
                f"the predictions of {name} were made with {field} {attributes.get(field)!r}, "
                f"the model and dataset beside them have {value!r}",
                where=str(path),
                fix="run `dvc repro`",
            )
