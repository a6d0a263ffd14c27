"""All draws of the few-shot study: every number of images per class, every seed, every method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.counts import count_of
from clipcifar.methods.zero_shot import logits
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.splits import TrainVal
from clipcifar.studies.few_shot.methods import METHODS, Outcome, learn
from clipcifar.studies.few_shot.params import FewShotParams
from clipcifar.studies.few_shot.shots import Examples, Fold, both_ways, check_shots, draw

ALL = 0  # stands for all images per class
_CHOICES = ("neighbours", "c", "alpha", "sharpness", "weight", "epoch", "n_not_converged")


@dataclass(frozen=True)
class Draw:
    """What every method makes of one draw.

    Attributes:
        shots: images per class, or `ALL`.
        n_train, n_val: images learnt from and chosen by.
        outcomes: by method.
    """

    shots: int
    seed: int
    n_train: int
    n_val: int
    outcomes: Mapping[str, Outcome]


@dataclass(frozen=True)
class Study:
    """All draws, and what needs no labelled image.

    Attributes:
        draws: those of more images later.
        zero_shot: (N,) int32, what it says of the test images.
        weighted: the same of zero-shot with weighted prompts.
    """

    draws: list[Draw]
    zero_shot: NDArray[np.int32]
    weighted: NDArray[np.int32]

    @property
    def shots(self) -> list[int]:
        """The numbers of images per class in the order of the draws, each once."""
        return list(dict.fromkeys(draw.shots for draw in self.draws))

    def of(self, shots: int) -> list[Draw]:
        """The draws of so many images per class."""
        return [draw for draw in self.draws if draw.shots == shots]


def label(shots: int) -> str:
    """The number of images per class as a person reads it."""
    return "all" if shots == ALL else str(shots)


def num_draws(params: FewShotParams) -> int:
    """How many draws `run` makes."""
    return len(params.shots) * len(params.seeds) + 1


def run(
    images: ImageEmbeddings,
    rows: TrainVal,
    weights: NDArray[np.float32],
    weighted: NDArray[np.float32],
    *,
    params: FewShotParams,
    on_draw: Callable[[], object] = lambda: None,
) -> Study:
    """Make every draw and let every method learn from it; test labels are not read.

    Args:
        rows: train and val among the official train rows.
        weights: (C, D) float32 unit rows, the zero-shot classifier.
        weighted: (N, C) float32 logits of the test images by weighted prompts.
        on_draw: called after each draw.

    Raises:
        DataError: a class has fewer images than the largest draw wants.
    """
    split, scale = images.train, images.logit_scale
    check_shots(split.labels, rows, shots=max(params.shots), class_names=images.class_names)
    zero_shot = logits(split.embeddings, weights, logit_scale=scale)

    def examples(part: NDArray[np.int64]) -> Examples:
        return Examples(split.embeddings[part], zero_shot[part], split.labels[part])

    test = np.asarray(images.test.embeddings)
    of_test = logits(test, weights, logit_scale=scale)
    bound = params.val_per_class
    wanted = [(shots, seed) for shots in sorted(params.shots) for seed in params.seeds]
    draws = []
    for shots, seed in [*wanted, (ALL, params.seeds[0])]:
        drawn, ways = rows, [rows]
        if shots != ALL:
            val_per_class = None if bound is None else min(shots, bound)
            drawn = draw(split, rows, shots=shots, val_per_class=val_per_class, seed=seed)
            # all of val is more than a draw has to learn from: turned round it would judge another method
            ways = (
                [drawn]
                if val_per_class is None
                else both_ways(split, drawn, per_class=val_per_class, seed=seed)
            )
        outcomes = learn(
            [Fold(examples(way.train), examples(way.val)) for way in ways],
            test,
            of_test,
            weights=weights,
            logit_scale=scale,
            params=params,
            class_names=images.class_names,
            seed=seed,
        )
        draws.append(Draw(shots, seed, len(drawn.train), len(drawn.val), outcomes))
        on_draw()
    said = (scores.argmax(axis=1).astype(np.int32) for scores in (of_test, weighted))
    return Study(draws, *said)


def num_not_converged(study: Study, *, methods: Iterable[str] = METHODS) -> int:
    """How many fits of all draws did not converge, of all methods or some."""
    return sum(
        int(draw.outcomes[method].chosen.get("n_not_converged", 0))
        for draw in study.draws
        for method in methods
    )


def not_converged(study: Study, max_iter: int) -> list[str]:
    """A line for fits that were left out of the choice, and one for those that are used, where any were."""
    of_clap = num_not_converged(study, methods=["clap"])
    told = {"and left out": num_not_converged(study) - of_clap, "and used as they are, of CLAP": of_clap}
    return [
        f"Not converged in {max_iter} iterations {what}: {count_of(failed, 'fit')}."
        for what, failed in told.items()
        if failed
    ]


def choice_rows(study: Study) -> list[dict[str, Any]]:
    """What val chose for every method on every draw, as CSV rows; what a method lacks is empty."""
    return [
        {
            "shots": label(draw.shots),
            "seed": draw.seed,
            "method": method,
            "n_train": draw.n_train,
            "n_val": draw.n_val,
            "val_accuracy": outcome.standing.accuracy,
            "val_nll": outcome.standing.nll,
            **{name: outcome.chosen.get(name, "") for name in _CHOICES},
        }
        for draw in study.draws
        for method, outcome in draw.outcomes.items()
    ]


def prediction_arrays(study: Study) -> dict[str, NDArray[np.int32]]:
    """What every method says of every test image: `<shots>/<method>`, (R, N), one row per draw."""
    arrays = {"zero_shot": study.zero_shot, "prompt_weighting": study.weighted}
    for shots in study.shots:
        draws = study.of(shots)
        for method in draws[0].outcomes:
            arrays[f"{label(shots)}/{method}"] = np.stack([draw.outcomes[method].predicted for draw in draws])
    return arrays
