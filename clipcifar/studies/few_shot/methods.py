"""How many labelled images per class does a method need to beat zero-shot?

Protocol: a draw is k train images per class to learn from and min(k, val_per_class) val images per class
to choose every hyper-parameter by, as CoOp (Zhou et al. 2022, https://arxiv.org/abs/2109.01134) bounds
its validation: choosing on thousands of val images would be learning from labels that the k leaves out.
They choose by likelihood, because the accuracy of a few dozen images is too coarse. Draws of one seed are
nested. With all images there is one draw, and all of val chooses. Test is asked for predictions only; no
test label is an argument of anything here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipcifar.evaluation.selection import Standing, most_likely, standing
from clipcifar.methods.zero_shot import class_weights, logits
from clipcifar.studies.few_shot.params import FewShotParams
from clipcifar.studies.few_shot.shots import Examples
from clipcifar.studies.few_shot.text_probe import Fitted, beside_text, from_scratch
from clipcifar.studies.few_shot.tip_adapter import Cache, choose_mix, finetuned

METHODS = {
    "class_mean": "nearest class mean",
    "linear_probe": "linear probe",
    "text_probe": "linear probe beside text",
    "tip_adapter": "Tip-Adapter",
    "tip_adapter_f": "Tip-Adapter-F",
}


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


def _outcome(scores: NDArray[np.float32], on_val: Standing, **chosen: float) -> Outcome:
    return Outcome(scores.argmax(axis=1).astype(np.int32), on_val, chosen)


def _probed(probe: Fitted, test: NDArray[np.float32], test_zero_shot: NDArray[np.float32]) -> Outcome:
    scores = probe.scores(test, test_zero_shot)
    chosen = {"c": probe.c, "alpha": probe.alpha, "n_not_converged": probe.n_not_converged}
    return _outcome(scores, probe.standing, **chosen)


def learn(
    train: Examples,
    val: Examples,
    test: NDArray[np.float32],
    test_zero_shot: NDArray[np.float32],
    *,
    logit_scale: float,
    params: FewShotParams,
    class_names: list[str],
    seed: int,
) -> dict[str, Outcome]:
    """Fit every method on one draw and ask it about the test images.

    Args:
        train, val: to learn from, and to choose by.
        test: (N, D) float32 unit rows.
        test_zero_shot: (N, C) float32 logits.
        logit_scale: of the zero-shot logits, used for the class means too.
        seed: of the order of images in Tip-Adapter-F.

    Returns:
        By the keys of `METHODS`, in their order.
    """
    num_classes = len(class_names)
    means = class_weights(train.embeddings, train.labels, class_names=class_names)
    of_means = standing(logits(val.embeddings, means, logit_scale=logit_scale), val.labels)
    scratch = from_scratch(
        train, val, c_grid=params.c_grid, max_iter=params.max_iter, num_classes=num_classes
    )
    beside = beside_text(
        train,
        val,
        text_weights=params.text_weights,
        c_grid=params.c_grid,
        max_iter=params.max_iter,
        num_classes=num_classes,
    )
    cache = Cache(train.embeddings, train.labels, num_classes)
    mix, of_mix = choose_mix(cache, val, sharpness=params.sharpness, weights=params.cache_weights)
    return {
        "class_mean": _outcome(logits(test, means, logit_scale=logit_scale), of_means),
        "linear_probe": _probed(scratch, test, test_zero_shot),
        "text_probe": _probed(beside, test, test_zero_shot),
        "tip_adapter": _outcome(cache.logits(test, test_zero_shot, mix), of_mix, **mix._asdict()),
        "tip_adapter_f": _finetuned(cache, train, val, test, test_zero_shot, params=params, seed=seed),
    }


def _finetuned(
    cache: Cache,
    train: Examples,
    val: Examples,
    test: NDArray[np.float32],
    test_zero_shot: NDArray[np.float32],
    *,
    params: FewShotParams,
    seed: int,
) -> Outcome:
    """Tip-Adapter-F: keys learnt at the best mix that asks them; val chooses epoch, then the mix again."""
    start = _bounded(cache, params.finetuned_per_class)
    asking = tuple(weight for weight in params.cache_weights if weight > 0)
    mix, _ = choose_mix(start, val, sharpness=params.sharpness, weights=asking)
    learnt = finetuned(
        start,
        train,
        mix,
        epochs=params.epochs,
        learning_rate=params.learning_rate,
        batch_size=params.batch_size,
        seed=seed,
    )
    states, standings = [], []
    for state in (start, *learnt):
        states.append(state)
        standings.append(standing(state.logits(val.embeddings, val.zero_shot, mix), val.labels))
    epoch = most_likely(standings)
    final, of_val = choose_mix(states[epoch], val, sharpness=params.sharpness, weights=params.cache_weights)
    scores = states[epoch].logits(test, test_zero_shot, final)
    return _outcome(scores, of_val, epoch=epoch, **final._asdict())


def _bounded(cache: Cache, per_class: int) -> Cache:
    """The first so many keys of every class, in the order of the rows."""
    kept = np.sort(
        np.concatenate(
            [np.flatnonzero(cache.labels == label)[:per_class] for label in range(cache.num_classes)]
        )
    )
    return Cache(cache.keys[kept], cache.labels[kept], cache.num_classes)
