from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from clipcifar.core.errors import ConfigError
from clipcifar.evaluation.metrics import accuracy
from clipcifar.methods import zero_shot
from clipcifar.studies.few_shot.choice import likeliest
from clipcifar.studies.few_shot.shots import Examples, Fold
from clipcifar.studies.few_shot.text_probe import beside_text, from_scratch
from tests.support.synthetic import around, prototypes, task

NUM_CLASSES, SCALE = 3, 20.0
GRID = (0.01, 0.1, 1.0, 10.0)
OPTIONS: dict[str, Any] = {"max_iter": 1000, "num_classes": NUM_CLASSES}


def examples(n: int, *, seed: int = 1, noise: float = 1.5, text_noise: float = 0.5) -> Examples:
    rows, labels = task(n, noise=noise, seed=seed)
    weights = around(prototypes(), np.arange(NUM_CLASSES), noise=text_noise, seed=9)
    return Examples(rows, zero_shot.logits(rows, weights, logit_scale=SCALE), labels)


def misled(val: Examples) -> Examples:
    """The same with zero-shot logits that are always wrong, so that zero-shot itself is not chosen."""
    return val._replace(zero_shot=np.roll(val.zero_shot, 1, axis=1))


@pytest.mark.parametrize("n", [9, 90])
def test_from_scratch_it_is_scikit_learns_fit_of_the_c_that_val_prefers(n: int) -> None:
    """With fewer images than dimensions too, where the fit happens in the space that they span."""
    train, val = examples(n), examples(60, seed=2)
    found = from_scratch([Fold(train, val)], c_grid=GRID, **OPTIONS)
    models = [LogisticRegression(C=c, tol=1e-10, max_iter=10_000) for c in GRID]
    for model in models:
        model.fit(train.embeddings.astype(np.float64), train.labels)
    best = likeliest([model.decision_function(val.embeddings) for model in models], val.labels)
    assert found.c == GRID[best]
    assert found.alpha == 0
    np.testing.assert_allclose(found.probe.coefficients, models[best].coef_, atol=5e-3)


def test_few_images_against_the_same_fit_in_all_dimensions() -> None:
    """The span of the rows is enough: padding with noughts to more rows than dimensions changes nothing."""
    train, val = examples(9), misled(examples(60, seed=2))
    options = {"text_weights": (1.0,), "c_grid": (1.0,), **OPTIONS}
    few = beside_text([Fold(train, val)], **options)
    assert few.c == 1
    copies = train.part(np.tile(np.arange(9), 4))  # 36 rows of 24 dimensions, the same mean loss
    many = beside_text(
        [Fold(copies, val)], **{**options, "c_grid": (0.25,)}
    )  # and the same penalty per mean loss
    np.testing.assert_allclose(few.probe.coefficients, many.probe.coefficients, atol=1e-3)


@pytest.mark.parametrize("n", [9, 60])
def test_beside_text_it_is_the_minimum_of_the_penalised_loss_with_the_text_held(n: int) -> None:
    """SciPy on the loss as it is written: alpha times the zero-shot logits under what is learnt."""
    train, val, alpha, c = examples(n), misled(examples(60, seed=2)), 0.3, 1.0
    rows, text = train.embeddings.astype(np.float64), train.zero_shot.astype(np.float64)

    def loss(flat: NDArray[np.float64]) -> float:
        weights = flat.reshape(NUM_CLASSES, -1)
        log_p = log_softmax(rows @ weights.T + alpha * text, axis=1)
        return float(-log_p[np.arange(n), train.labels].mean() + (weights**2).sum() / (2 * c * n))

    found = beside_text([Fold(train, val)], text_weights=(alpha,), c_grid=(c,), **OPTIONS)
    least = minimize(loss, np.zeros(NUM_CLASSES * rows.shape[1]), options={"gtol": 1e-6})
    expected = least.x.reshape(NUM_CLASSES, -1)
    np.testing.assert_allclose(found.probe.coefficients, expected, atol=2e-3)
    assert not found.probe.intercepts.any()
    scores = (val.embeddings @ expected.T + alpha * val.zero_shot).astype(np.float32)
    np.testing.assert_allclose(found.scores(val.embeddings, val.zero_shot), scores, atol=5e-3)
    without = beside_text([Fold(train, val)], text_weights=(0.0,), c_grid=(c,), **OPTIONS)
    assert np.abs(without.probe.coefficients - expected).max() > 0.1  # the text does matter here


def test_beside_text_without_room_it_is_zero_shot() -> None:
    train, val = examples(9), examples(60, seed=2)
    found = beside_text([Fold(train, val)], text_weights=(1.0,), c_grid=(1e-4,), **OPTIONS)
    np.testing.assert_allclose(found.scores(val.embeddings, val.zero_shot), val.zero_shot, atol=1e-2)


def test_with_few_images_and_good_text_val_leans_on_the_text_and_gains_by_it() -> None:
    train, val, unseen = (
        examples(3, text_noise=0.2),
        examples(90, seed=2, text_noise=0.2),
        examples(300, seed=3, text_noise=0.2),
    )
    beside = beside_text([Fold(train, val)], text_weights=(0.0, 0.3, 1.0), c_grid=GRID, **OPTIONS)
    scratch = from_scratch([Fold(train, val)], c_grid=GRID, **OPTIONS)
    assert beside.alpha > 0
    of_beside, of_scratch = (
        accuracy(found.scores(unseen.embeddings, unseen.zero_shot), unseen.labels)
        for found in (beside, scratch)
    )
    assert of_beside > of_scratch + 0.1


def test_text_that_misleads_is_left_out() -> None:
    train, val = examples(150), examples(90, seed=2)
    turned = [part._replace(zero_shot=np.roll(part.zero_shot, 1, axis=1)) for part in (train, val)]
    found = beside_text([Fold(*turned)], text_weights=(1.0, 0.3, 0.0), c_grid=GRID, **OPTIONS)
    assert found.alpha == 0


def test_all_folds_choose_and_the_first_alone_is_learnt_from() -> None:
    """A second fold in which zero-shot is always wrong outvotes a first in which it is always right."""
    train, val = examples(30), examples(12, seed=2)
    sure = val._replace(zero_shot=20 * np.eye(NUM_CLASSES, dtype=np.float32)[val.labels])
    other = Fold(examples(30, seed=5), misled(examples(90, seed=3)))
    options: dict[str, Any] = {"text_weights": (0.0,), "c_grid": (10.0,), **OPTIONS}
    alone = beside_text([Fold(train, sure)], **options)
    assert (alone.alpha, alone.c) == (1, 0)
    np.testing.assert_array_equal(alone.scores(val.embeddings, val.zero_shot), val.zero_shot)
    both = beside_text([Fold(train, sure), other], **options)
    of_first = beside_text([Fold(train, misled(val))], **options)
    assert (both.alpha, both.c) == (0, 10)
    np.testing.assert_array_equal(both.probe.coefficients, of_first.probe.coefficients)


def test_fits_that_do_not_converge_are_counted_and_never_chosen() -> None:
    train, val = examples(60), examples(60, seed=2)
    found = from_scratch([Fold(train, val)], c_grid=(1e-4, 1e4), max_iter=3, num_classes=NUM_CLASSES)
    assert (found.c, found.n_not_converged) == (1e-4, 1)
    with pytest.raises(ConfigError, match="converged for no C"):
        from_scratch([Fold(train, val)], c_grid=(1e4, 1e5), max_iter=2, num_classes=NUM_CLASSES)


def test_beside_text_too_they_are_counted_and_never_chosen() -> None:
    train, val = examples(60), examples(60, seed=2)
    options: dict[str, Any] = {"text_weights": (0.3, 1.0), "num_classes": NUM_CLASSES}
    whole = beside_text([Fold(train, val)], c_grid=(1e4,), max_iter=1000, **options)
    assert whole.n_not_converged == 0
    found = beside_text([Fold(train, val)], c_grid=(1e-4, 1e4), max_iter=3, **options)
    assert (found.c, found.n_not_converged) == (1e-4, 2)  # of either weight
    with pytest.raises(ConfigError, match="converged for no C"):
        beside_text([Fold(train, val)], c_grid=(1e4, 1e5), max_iter=2, **options)
