"""What a linear probe says of train images that it was not fitted on: K-fold cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.progress import progress
from clipcifar.methods import linear_probe
from clipcifar.store.embeddings import Split
from clipcifar.store.names import Names
from clipcifar.store.rows import Embeddings, taken
from clipcifar.store.splits import ranked, rows_by_class
from clipcifar.studies.label_errors.confident import probabilities


def folds(labels: NDArray[np.int64], ids: Sequence[str], *, num_folds: int, seed: int) -> NDArray[np.int64]:
    """Deal the images of each class out to K folds, by the sha256 of seed and sample id.

    Args:
        labels: (N,) int64.
        ids: N unique sample ids; the fold of one does not depend on their order.

    Returns:
        (N,) int64 in 0 ... K - 1; the sizes within a class differ by one at most.
    """
    fold, names = np.empty(len(labels), dtype=np.int64), Names.of(ids)
    for rows in rows_by_class(labels):
        fold[rows[ranked(names[rows], seed=seed, purpose="folds")]] = np.arange(len(rows)) % num_folds
    return fold


def probe_scores(
    embeddings: Embeddings,
    labels: NDArray[np.int64],
    fold: NDArray[np.int64],
    *,
    c: float,
    max_iter: int,
    class_names: list[str],
    on_fit: Callable[[], object] = lambda: None,
) -> tuple[NDArray[np.float32], int]:
    """Logits of every image from the probe that was fitted without its fold.

    Args:
        embeddings, labels: (N, D) float32 and (N,) int64.
        fold: (N,) int64, of each image.
        c: inverse regularisation strength.
        on_fit: called after each fit.

    Returns:
        (N, C) float32, and how many of the fits did not converge.

    Raises:
        DataError: a class occurs in one fold only.
    """
    scores, failed = np.empty((len(labels), len(class_names)), dtype=np.float32), 0
    for held_out in np.unique(fold):
        inside, others = np.flatnonzero(fold == held_out), np.flatnonzero(fold != held_out)
        probe, converged = linear_probe.fit(
            taken(embeddings, others), labels[others], c=c, max_iter=max_iter, class_names=class_names
        )
        scores[inside] = probe.scores(taken(embeddings, inside))
        failed += not converged
        on_fit()
    return scores, failed


def opinions(
    train: Split,
    labellings: Sequence[NDArray[np.int64]],
    prompted: NDArray[np.float32],
    *,
    temperatures: Mapping[str, float],
    num_folds: int,
    seed: int,
    c: float,
    max_iter: int,
    class_names: list[str],
) -> tuple[list[dict[str, NDArray[np.float64]]], int]:
    """What zero-shot and cross-validated probes say of train images, for each of several labellings.

    Args:
        train: N images.
        labellings: (N,) int64 each: the labels to fit the probes to.
        prompted: (N, C) float32 zero-shot logits.
        temperatures: of "zero_shot" and "linear_probe".

    Returns:
        For each labelling (N, C) float64 probabilities by method, and how many fits did not converge.
    """
    fold = folds(train.labels, train.ids, num_folds=num_folds, seed=seed)
    by_labelling, not_converged = [], 0
    with progress(total=num_folds * len(labellings), unit="fits", what="probes without a fold") as bar:
        for labels in labellings:
            probed, failed = probe_scores(
                train.embeddings,
                labels,
                fold,
                c=c,
                max_iter=max_iter,
                class_names=class_names,
                on_fit=bar.update,
            )
            not_converged += failed
            by_labelling.append(probabilities({"zero_shot": prompted, "linear_probe": probed}, temperatures))
    return by_labelling, not_converged
