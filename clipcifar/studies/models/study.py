"""Several backbones on the same images: what each is worth zero-shot and under a linear probe.

Protocol: the linear probe's C is chosen on val for each backbone by itself. Between backbones one
chooses by accuracy on train (zero-shot) or val (linear probe); test is for the report. Test labels
are read by the scoring of finished classifiers and by the paired comparison alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.backbone.params import EmbedParams
from clipcifar.core.progress import progress
from clipcifar.evaluation import metrics
from clipcifar.methods import linear_probe, zero_shot
from clipcifar.methods.linear import Linear
from clipcifar.methods.linear_probe import LinearProbeParams
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.model import ModelDescription, check_described
from clipcifar.store.prompt_set import PromptSet
from clipcifar.store.splits import TrainVal
from clipcifar.studies.models.cache import zero_shot_classifier
from clipcifar.studies.models.cost import images_per_second, size


@dataclass(frozen=True)
class Outcome:
    """One backbone.

    Attributes:
        metrics: by method; the linear probe is not among them where there is nothing to learn from.
        predicted: by method, (N,) int64 classes of the N test images.
    """

    metrics: Mapping[str, Any]
    predicted: Mapping[str, NDArray[np.int64]]


def evaluate(
    images: ImageEmbeddings,
    classifier: NDArray[np.float32],
    rows: TrainVal | None,
    *,
    probe: LinearProbeParams,
    on_fit: Callable[[], object] = lambda: None,
) -> Outcome:
    """Score one backbone with both methods, or with zero-shot alone.

    Args:
        images: its embeddings.
        classifier: (C, D) float32 unit rows, the zero-shot classifier.
        rows: of train and val; None where either has no image, and there is no linear probe then.
        probe: the grid to choose C from.
        on_fit: called after each fit, one more than the grid has points.
    """
    names, scale = images.class_names, images.logit_scale
    train, test = (
        zero_shot.logits(split.embeddings, classifier, logit_scale=scale)
        for split in (images.train, images.test)
    )
    of_zero_shot: dict[str, Any] = {}
    if len(train):
        of_zero_shot["train"] = {"accuracy": metrics.accuracy(train, images.train.labels)}
    of_zero_shot["test"] = _scored(test, images)
    if rows is None:
        return Outcome({"zero_shot": of_zero_shot}, {"zero_shot": test.argmax(axis=1)})
    points = linear_probe.validation_curve(
        *images.train.part(rows.train),
        *images.train.part(rows.val),
        params=probe,
        class_names=names,
        on_fit=on_fit,
    )
    chosen = linear_probe.choose(points)
    refit = linear_probe.solve(
        images.train.embeddings,
        images.train.labels,
        c=chosen.c,
        max_iter=probe.max_iter,
        class_names=names,
    )
    on_fit()
    probed = Linear.of(refit.coefficients, refit.intercepts).scores(images.test.embeddings)
    return Outcome(
        {
            "zero_shot": of_zero_shot,
            "linear_probe": {
                "val": {"accuracy": chosen.val_accuracy},
                "test": _scored(probed, images),
                **linear_probe.as_metrics(points, chosen, refit),
            },
        },
        {"zero_shot": test.argmax(axis=1), "linear_probe": probed.argmax(axis=1)},
    )


def _scored(scores: NDArray[np.float32], images: ImageEmbeddings) -> dict[str, Any]:
    summary = metrics.summarise(scores, images.test.labels, class_names=images.class_names)
    del summary["per_class"]
    return summary


class Study:
    """The backbones of one run, added one by one so that the embeddings of one are held at a time.

    Args:
        said: the prompt set of zero-shot.
        rows: of train and val, or None, as `evaluate` has them.
        probe: the grid of the linear probe.
        embed: how to embed.
        repository: the project's root.

    Attributes:
        outcomes, sizes, descriptions: by label.
    """

    def __init__(
        self,
        said: PromptSet,
        rows: TrainVal | None,
        *,
        probe: LinearProbeParams,
        embed: EmbedParams,
        repository: Path,
    ) -> None:
        self._said, self._rows, self._probe, self._embed = said, rows, probe, embed
        self._repository = repository
        self._speeds: dict[str, float] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.sizes: dict[str, dict[str, int]] = {}
        self.descriptions: dict[str, str] = {}

    def add(self, label: str, model: ModelDescription, folder: Path, images: ImageEmbeddings) -> None:
        """Score one backbone; `folder` holds its weights, `images` are its embeddings.

        Raises:
            DataError: the embeddings are not this model's.
        """
        check_described(images.attributes, model)
        embed = self._embed
        classifier = zero_shot_classifier(
            self._said,
            model,
            folder,
            class_names=images.class_names,
            embed=embed,
            repository=self._repository,
        )
        fits = len(self._probe.c_grid) + 1 if self._rows else 0
        with progress(total=fits, unit="fits", what=f"linear probe, {label}") as bar:
            self.outcomes[label] = evaluate(
                images, classifier, self._rows, probe=self._probe, on_fit=bar.update
            )
        dimension = images.train.embeddings.shape[1]
        self.sizes[label] = size(model, folder, dimension=dimension)
        self._speeds[label] = images_per_second(model, folder, embed=embed)
        self.descriptions[label] = model.label

    def timing(self, *, device: str) -> dict[str, Any]:
        """What was measured rather than computed, and on what kind of device."""
        return {
            "device": device,
            "precision": self._embed.precision,
            "batch_size": self._embed.batch_size,
            "images_per_s": self._speeds,
        }
