"""The two sides of a comparison: what a person names, as predictions on the test images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipcifar import results, revisions, store, zero_shot
from clipcifar.errors import ConfigError, DataError
from clipcifar.report.table import METHODS
from clipcifar.results import Predictions

WORKSPACE = "workspace"
PREDICTIONS, IMAGES, TEXTS = "data/predictions", "data/embeddings/images.h5", "data/embeddings/texts"


@dataclass(frozen=True)
class Aligned:
    """Two sets of predicted classes on the same images in the same order.

    Attributes:
        predicted_a, predicted_b: (N,) int64.
        labels: (N,) int64.
        class_names: C names in label order.
    """

    predicted_a: NDArray[np.int64]
    predicted_b: NDArray[np.int64]
    labels: NDArray[np.int64]
    class_names: list[str]


def load(name: str, *, repository: Path, method: str) -> Predictions:
    """Predictions of what a person named.

    In this order: "workspace", a method of the workspace, a prompt set embedded in the workspace, a
    git revision or DVC experiment. `method:`, `set:` and `rev:` before the name say which is meant.

    Args:
        name: of the side.
        repository: root of the git and DVC repository.
        method: whose predictions are meant by the workspace or a revision.

    Raises:
        ConfigError: nothing of that name is there.
        DataError: a file is damaged.
    """
    kind, _, rest = name.rpartition(":")
    if kind not in ("", "method", "set", "rev"):
        kind, rest = "", name
    if rest == WORKSPACE and not kind:
        return results.read_predictions(repository / PREDICTIONS / f"{method}.h5")
    if kind == "method" or (not kind and rest in METHODS):
        if rest not in METHODS:
            raise ConfigError(f"unknown method {rest!r}", fix=f"use one of: {', '.join(METHODS)}")
        return results.read_predictions(repository / PREDICTIONS / f"{rest}.h5")
    texts = repository / TEXTS / f"{rest}.h5"
    if kind == "set" or (not kind and "/" not in rest and texts.is_file()):
        return _of_prompt_set(repository / IMAGES, texts)
    return revisions.read_predictions(repository, rest, f"{PREDICTIONS}/{method}.h5")


def _of_prompt_set(images_path: Path, texts_path: Path) -> Predictions:
    images, texts = store.read_images(images_path), store.read_texts(texts_path)
    store.check_same_space(images, texts)
    weights = zero_shot.class_weights(texts.embeddings, texts.class_index, class_names=texts.class_names)
    scores = zero_shot.logits(images.test.embeddings, weights, logit_scale=images.logit_scale)
    return Predictions(scores, images.test.labels, images.test.ids, results.inherited(images.attributes))


def align(a: Predictions, b: Predictions) -> Aligned:
    """Join two sides by sample id.

    Raises:
        DataError: they are of other images, labels or classes.
    """
    if a.attributes["class_names"] != b.attributes["class_names"] or set(a.ids) != set(b.ids):
        raise DataError(
            f"the two sides are of different images ({len(a.ids)} and {len(b.ids)}) or classes",
            fix="compare runs of the same dataset and subset",
        )
    row_in_b = {sample_id: row for row, sample_id in enumerate(b.ids)}
    rows = [row_in_b[sample_id] for sample_id in a.ids]
    if (b.labels[rows] != a.labels).any():
        raise DataError("the two sides give the same image different labels", fix="run `dvc repro` for both")
    return Aligned(
        a.predicted,
        b.predicted[rows],
        a.labels,
        store.class_names_of(a.attributes),
    )
