"""How many labelled images per class does a method need to beat zero-shot?

Protocol: a draw is k train images per class to learn from and min(k, val_per_class) val images per class
to choose every hyper-parameter by, as CoOp (Zhou et al. 2022, https://arxiv.org/abs/2109.01134) bounds
its validation: choosing on thousands of val images would be learning from labels that the k leaves out.
Each choice asks them twice, the second time with train and val in each other's place (`both_ways`), so that
the labels that were learnt from judge as well; what answers for test has learnt from the k alone. They choose
by likelihood, because the accuracy of a few dozen images is too coarse, and methods that mix with zero-shot
leave it no further than these images warrant (`choice`). Draws of one seed are nested. With all images there
is one draw, and all of val chooses. Test is asked for predictions only; no test label is an argument of
anything here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.evaluation.selection import Standing, standing
from clipcifar.methods import gda
from clipcifar.methods.zero_shot import class_weights, logits
from clipcifar.studies.few_shot import choice, clap, knn
from clipcifar.studies.few_shot.params import FewShotParams
from clipcifar.studies.few_shot.shots import Examples, Fold
from clipcifar.studies.few_shot.text_probe import Fitted, beside_text, from_scratch
from clipcifar.studies.few_shot.tip_adapter import Cache, Mix, asking, finetuned

METHODS = {
    "class_mean": "nearest class mean",
    "knn": "nearest neighbours",
    "linear_probe": "linear probe",
    "text_probe": "linear probe beside text",
    "clap": "CLAP",
    "gda": "GDA",
    "tip_adapter": "Tip-Adapter",
    "tip_adapter_f": "Tip-Adapter-F",
}
WEIGHTED = "zero-shot with weighted prompts"
MIXING = ("text_probe", "gda", "tip_adapter", "tip_adapter_f")  # of which zero-shot itself is a candidate


@dataclass(frozen=True)
class Outcome:
    """One method on one draw.

    Attributes:
        predicted: (N,) int32, the classes that it says of the test images.
        standing: on the draw's val images.
        chosen: the hyper-parameters, by name.
    """

    predicted: NDArray[np.int32]
    standing: Standing
    chosen: dict[str, float]

    @property
    def is_zero_shot(self) -> bool:
        """Whether zero-shot itself was chosen."""
        return self.chosen.get("weight") == 0 or self.chosen.get("c") == 0


class Asked:
    """The test images, and how a method's answers about them and about val are kept.

    Args:
        val: of the draw.
        test: (N, D) float32 unit rows.
        zero_shot: (N, C) float32 logits of them.
    """

    def __init__(self, val: Examples, test: NDArray[np.float32], zero_shot: NDArray[np.float32]) -> None:
        self.val, self.test, self.zero_shot = val, test, zero_shot

    def outcome(self, of_val: NDArray[np.float32], of_test: NDArray[np.float32], **chosen: float) -> Outcome:
        """What (N, C) logits of val and of test amount to."""
        on_val = standing(of_val, self.val.labels)
        return Outcome(of_test.argmax(axis=1).astype(np.int32), on_val, chosen)

    def probed(self, probe: Fitted) -> Outcome:
        """What a probe says."""
        of_val = probe.scores(self.val.embeddings, self.val.zero_shot)
        of_test = probe.scores(self.test, self.zero_shot)
        failed = probe.n_not_converged
        return self.outcome(of_val, of_test, c=probe.c, alpha=probe.alpha, n_not_converged=failed)

    def linear(self, rows: NDArray[np.float32], *, logit_scale: float, **chosen: float) -> Outcome:
        """What a zero-shot classifier of (C, D) unit rows says."""
        of_val, of_test = (
            logits(images, rows, logit_scale=logit_scale) for images in (self.val.embeddings, self.test)
        )
        return self.outcome(of_val, of_test, **chosen)


def learn(
    folds: Sequence[Fold],
    test: NDArray[np.float32],
    test_zero_shot: NDArray[np.float32],
    *,
    weights: NDArray[np.float32],
    logit_scale: float,
    params: FewShotParams,
    class_names: list[str],
    seed: int,
) -> dict[str, Outcome]:
    """Fit every method on one draw and ask it about the test images.

    Args:
        folds: the draw, which is learnt from; then others that only choose.
        test: (N, D) float32 unit rows.
        test_zero_shot: (N, C) float32 logits.
        weights: (C, D) float32 unit rows, the zero-shot classifier.
        logit_scale: of the zero-shot logits, used for the class means too.
        seed: of the order of images in Tip-Adapter-F.

    Returns:
        By the keys of `METHODS`, in their order.
    """
    train, asked = folds[0].train, Asked(folds[0].val, test, test_zero_shot)
    num_classes, scale, max_iter = len(class_names), logit_scale, params.max_iter
    grid: dict[str, Any] = {"c_grid": params.c_grid, "max_iter": max_iter, "num_classes": num_classes}
    means = class_weights(train.embeddings, train.labels, class_names=class_names)
    held, converged = clap.fit(
        train, weights, logit_scale=scale, text_length=params.clap_length, max_iter=max_iter
    )
    caches = [Cache(fold.train.embeddings, fold.train.labels, num_classes) for fold in folds]
    return {
        "class_mean": asked.linear(means, logit_scale=scale),
        "knn": _neighbours(folds, asked, params.neighbours, num_classes=num_classes),
        "linear_probe": asked.probed(from_scratch(folds, **grid)),
        "text_probe": asked.probed(beside_text(folds, text_weights=params.text_weights, **grid)),
        "clap": asked.linear(held, logit_scale=scale, n_not_converged=int(not converged)),
        "gda": _gda(folds, asked, params.gda_weights, class_names=class_names),
        "tip_adapter": _mixed(caches, folds, asked, params),
        "tip_adapter_f": _finetuned(caches, folds, asked, params, seed=seed),
    }


def _labels(folds: Sequence[Fold]) -> NDArray[np.int64]:
    return np.concatenate([fold.val.labels for fold in folds])


def _neighbours(folds: Sequence[Fold], asked: Asked, grid: Sequence[int], *, num_classes: int) -> Outcome:
    grid = knn.usable(grid, min(len(fold.train.labels) for fold in folds))
    by_fold = [
        knn.votes(
            fold.val.embeddings,
            fold.train.embeddings,
            fold.train.labels,
            neighbours=grid,
            num_classes=num_classes,
        )
        for fold in folds
    ]
    chosen = choice.likeliest(choice.pooled(by_fold), _labels(folds))
    keys, labels = folds[0].train.embeddings, folds[0].train.labels
    (of_test,) = knn.votes(
        asked.test, keys, labels, neighbours=grid[chosen : chosen + 1], num_classes=num_classes
    )
    return asked.outcome(by_fold[0][chosen], of_test, neighbours=grid[chosen])


def _gda(folds: Sequence[Fold], asked: Asked, grid: Sequence[float], *, class_names: list[str]) -> Outcome:
    discriminants = [
        gda.fit(fold.train.embeddings, fold.train.labels, class_names=class_names) for fold in folds
    ]
    grid = [0.0, *(weight for weight in grid if weight > 0)]
    by_fold = []
    for fold, linear in zip(folds, discriminants, strict=True):
        scores = linear.scores(fold.val.embeddings)
        by_fold.append([gda.added(fold.val.zero_shot, scores, weight) for weight in grid])
    chosen = choice.nearest(choice.pooled(by_fold), _labels(folds))
    of_test = gda.added(asked.zero_shot, discriminants[0].scores(asked.test), grid[chosen])
    return asked.outcome(by_fold[0][chosen], of_test, weight=grid[chosen])


def _mixed(
    caches: Sequence[Cache], folds: Sequence[Fold], asked: Asked, params: FewShotParams, **chosen: float
) -> Outcome:
    """Tip-Adapter with caches that are learnt or not; zero-shot is one of the mixes."""
    mixes = [Mix(params.sharpness[0], 0.0), *asking(params.sharpness, params.cache_weights)]
    by_fold = [
        cache.logits_by_mix(fold.val.embeddings, fold.val.zero_shot, mixes)
        for cache, fold in zip(caches, folds, strict=True)
    ]
    best = choice.nearest(choice.pooled(by_fold), _labels(folds))
    of_test = caches[0].logits(asked.test, asked.zero_shot, mixes[best])
    return asked.outcome(by_fold[0][best], of_test, **chosen, **mixes[best]._asdict())


def _finetuned(
    caches: Sequence[Cache], folds: Sequence[Fold], asked: Asked, params: FewShotParams, *, seed: int
) -> Outcome:
    """Tip-Adapter-F: keys learnt at the likeliest mix that asks them; then the epoch, then the mix again."""
    starts = [_bounded(cache, params.finetuned_per_class) for cache in caches]
    mixes, labels = asking(params.sharpness, params.cache_weights), _labels(folds)
    first = [
        start.logits_by_mix(fold.val.embeddings, fold.val.zero_shot, mixes)
        for start, fold in zip(starts, folds, strict=True)
    ]
    mix = mixes[choice.likeliest(choice.pooled(first), labels)]
    states, by_fold = [], []
    for start, fold in zip(starts, folds, strict=True):
        learnt = finetuned(
            start,
            fold.train,
            mix,
            epochs=params.epochs,
            learning_rate=params.learning_rate,
            batch_size=params.batch_size,
            seed=seed,
        )
        states.append([start, *learnt])
        by_fold.append([state.logits(fold.val.embeddings, fold.val.zero_shot, mix) for state in states[-1]])
    epoch = choice.likeliest(choice.pooled(by_fold), labels)
    return _mixed([of_fold[epoch] for of_fold in states], folds, asked, params, epoch=epoch)


def _bounded(cache: Cache, per_class: int) -> Cache:
    """The first so many keys of every class, in the order of the rows."""
    kept = np.sort(
        np.concatenate(
            [np.flatnonzero(cache.labels == label)[:per_class] for label in range(cache.num_classes)]
        )
    )
    return Cache(cache.keys[kept], cache.labels[kept], cache.num_classes)
