from __future__ import annotations

import numpy as np
import pytest
import torch

from clipcifar.methods import zero_shot
from clipcifar.studies.few_shot import clap
from clipcifar.studies.few_shot.shots import Examples
from tests.support.synthetic import around, prototypes, task

NUM_CLASSES, SCALE = 3, 15.0
TEXT = around(prototypes(), np.arange(NUM_CLASSES), noise=1.0, seed=9)


def examples(n: int, *, seed: int = 1) -> Examples:
    rows, labels = task(n, noise=1.5, seed=seed)
    return Examples(rows, zero_shot.logits(rows, TEXT, logit_scale=SCALE), labels)


def fit(train: Examples, *, text_length: float, max_iter: int = 2000) -> tuple[np.ndarray, bool]:
    return clap.fit(train, TEXT, logit_scale=SCALE, text_length=text_length, max_iter=max_iter)


def test_multipliers_worked_out_by_hand() -> None:
    logits = np.log(np.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]], np.float32))
    train = Examples(np.zeros((3, 2), np.float32), logits, np.array([0, 0, 1]))
    np.testing.assert_allclose(clap.multipliers(train, num_classes=2), [0.7, 0.8], atol=1e-6)


@pytest.mark.parametrize("n", [3, 60])
def test_it_is_the_minimum_that_torch_descends_to_with_text_at_its_own_length(n: int) -> None:
    """The objective as the paper's code has it: text embeddings of length r, their mean over classes."""
    train, length = examples(n), 4.0
    found, converged = fit(train, text_length=length)
    assert converged
    images, labels = torch.from_numpy(train.embeddings).double(), torch.from_numpy(train.labels)
    text = length * torch.from_numpy(TEXT).double()
    certain = torch.softmax(torch.from_numpy(train.zero_shot).double(), dim=1)
    held = torch.stack([certain[labels == c, c].mean() for c in range(NUM_CLASSES)])
    rows = text.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([rows], max_iter=2000, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        logits = SCALE * images @ torch.nn.functional.normalize(rows, dim=1).T
        penalty = (held * ((rows - text) ** 2).sum(dim=1)).mean()
        value = torch.nn.functional.cross_entropy(logits, labels) + penalty
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    expected = torch.nn.functional.normalize(rows, dim=1).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert np.abs(found - TEXT).max() > 0.01


def test_the_gradient_is_that_of_finite_differences() -> None:
    train, rng = examples(20), np.random.default_rng(0)
    text, images = TEXT.astype(np.float64), train.embeddings.astype(np.float64)
    rows, held = text + 0.1 * rng.standard_normal(text.shape), np.array([0.5, 1, 2])

    def value(at: np.ndarray) -> float:
        return clap.loss_and_gradient(at, images, train.labels, text, held, logit_scale=SCALE)[0]

    gradient = clap.loss_and_gradient(rows, images, train.labels, text, held, logit_scale=SCALE)[1]
    for place in ((0, 0), (1, 7), (2, 20)):
        step = np.zeros_like(rows)
        step[place] = 1e-6
        assert (value(rows + step) - value(rows - step)) / 2e-6 == pytest.approx(gradient[place], abs=1e-5)
    assert np.abs(gradient).max() > 1e-2


def test_text_without_end_is_zero_shot_and_text_of_no_length_is_forgotten() -> None:
    train = examples(60)
    firm, free = fit(train, text_length=1e3)[0], fit(train, text_length=1e-2)[0]
    np.testing.assert_allclose(firm, TEXT, atol=1e-4)
    assert ((train.embeddings @ free.T).argmax(axis=1) == train.labels).all()
    assert not (train.zero_shot.argmax(axis=1) == train.labels).all()


def test_a_class_that_zero_shot_knows_is_held_and_one_that_it_mistakes_moves() -> None:
    """Class 2's text is that of class 1, so zero-shot gives it half of its images' probability or less."""
    text = TEXT.copy()
    text[2] = -TEXT[2]
    rows, labels = task(60, noise=1.5, seed=1)
    train = Examples(rows, zero_shot.logits(rows, text, logit_scale=SCALE), labels)
    held = clap.multipliers(train, num_classes=NUM_CLASSES)
    assert held[2] < 0.1 * held[:2].min()
    found, _ = clap.fit(train, text, logit_scale=SCALE, text_length=10, max_iter=2000)
    moved = np.linalg.norm(found - text, axis=1)
    assert moved[2] > 5 * moved[:2].max()


def test_many_images_in_float32_end_where_float64_does(monkeypatch: pytest.MonkeyPatch) -> None:
    train = examples(3000)
    exact, _ = fit(train, text_length=3)
    monkeypatch.setattr(clap, "FEW_NUMBERS", 0)
    found, converged = fit(train, text_length=3)
    assert converged
    np.testing.assert_allclose(found, exact, atol=2e-3)


def test_a_descent_that_was_cut_short_says_so() -> None:
    assert not fit(examples(60), text_length=0.1, max_iter=1)[1]
