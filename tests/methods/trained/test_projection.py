from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from clipcifar.evaluation import metrics
from clipcifar.methods import zero_shot
from clipcifar.methods.trained.projection import Projection, ResidualHead
from clipcifar.methods.trained.training import Labelled, Run, TrainingParams, scores, train
from tests.support.synthetic import DIM, prototypes, task, unit

CPU = torch.device("cpu")
SCALE = 20.0
PARAMS = TrainingParams(
    hidden=16,
    dropout=0.1,
    learning_rate=0.01,
    weight_decay=1e-4,
    batch_size=32,
    max_epochs=20,
    patience=20,
    seeds=(0,),
    device="cpu",
)


def build(weights: NDArray[np.float32], *, dropout: float = 0.3, scale: float = SCALE) -> Projection:
    return Projection(torch.from_numpy(weights), logit_scale=scale, hidden=16, dropout=dropout)


def shaken(head: Projection) -> Projection:
    """The head as after some training: nothing is zero any more."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return head


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("scale", [1.0, 20.0, 100.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_untrained_head_is_the_zero_shot_classifier(training: bool, scale: float, seed: int) -> None:
    """In training mode too: dropout acts on a residual that is zero."""
    torch.manual_seed(seed)
    embeddings, _ = task(40, noise=1.5)
    weights = unit(prototypes() + 0.1)
    head = build(weights, dropout=0.5, scale=scale).train(training)
    found = head(torch.from_numpy(embeddings)).detach().numpy()
    expected = zero_shot.logits(embeddings, weights, logit_scale=scale)
    np.testing.assert_allclose(found, expected, atol=1e-5 * scale)
    assert not np.allclose(shaken(head)(torch.from_numpy(embeddings)).detach().numpy(), expected, atol=0.01)


def test_the_residual_head_is_a_naive_formula() -> None:
    torch.manual_seed(0)
    head = ResidualHead(DIM, hidden=8, dropout=0.5).eval()
    torch.nn.init.normal_(head.layers[3].weight)  # type: ignore[arg-type]
    state = {key: value.double().numpy() for key, value in head.state_dict().items()}
    embeddings, _ = task(10)
    for row, found in zip(embeddings, head(torch.from_numpy(embeddings)).detach().numpy(), strict=True):
        hidden = state["layers.0.weight"] @ (row * math.sqrt(DIM)) + state["layers.0.bias"]
        active = np.array([x * (1 + math.erf(x / math.sqrt(2))) / 2 for x in hidden])
        moved = row + (state["layers.3.weight"] @ active + state["layers.3.bias"]) / math.sqrt(DIM)
        np.testing.assert_allclose(found, moved / np.linalg.norm(moved), atol=1e-5)


def test_whatever_was_learned_the_logits_are_cosines_times_the_temperature() -> None:
    head = shaken(build(prototypes())).eval()
    embeddings = torch.from_numpy(task(50)[0])
    torch.testing.assert_close(head.image_head(embeddings).norm(dim=1), torch.ones(50))
    scale = float(head.log_scale.detach().exp())
    assert float(head(embeddings).detach().abs().max()) <= scale * (1 + 1e-5)
    assert scale != pytest.approx(SCALE, rel=1e-3)


def test_permuted_classes_give_permuted_logits() -> None:
    order = [2, 0, 1]
    one, other = build(prototypes()), build(prototypes()[order])
    state = {key: value for key, value in shaken(one).state_dict().items() if key != "class_weights"}
    other.load_state_dict(state, strict=False)
    embeddings = torch.from_numpy(task(20)[0])
    torch.testing.assert_close(other.eval()(embeddings), one.eval()(embeddings)[:, order])


def test_every_parameter_gets_a_gradient_after_the_first_step() -> None:
    """At the start the zeros of the last layers hide what is before them; one step lifts that."""
    embeddings, labels = (torch.from_numpy(array) for array in task(60, noise=1.5))
    torch.manual_seed(0)
    head = build(prototypes(), dropout=0.0)
    optimiser = torch.optim.AdamW(head.parameters(), lr=0.01)
    moved = []
    for _ in range(2):
        optimiser.zero_grad()
        F.cross_entropy(head(embeddings), labels).backward()  # type: ignore[no-untyped-call]
        moved.append({name for name, p in head.named_parameters() if p.grad.abs().max() > 0})  # type: ignore[union-attr]
        optimiser.step()
    everything = {name for name, _ in head.named_parameters()}
    assert moved[0] == {name for name in everything if ".layers.0." not in name}
    assert moved[1] == everything
    assert "class_weights" not in everything


def train_from(weights: NDArray[np.float32]) -> tuple[Run, Projection]:
    data, val = (Labelled.on(CPU, *task(n, noise=1.0, seed=seed)) for n, seed in ((240, 1), (90, 2)))
    run = train(lambda: build(weights, dropout=PARAMS.dropout), data, val, params=PARAMS, seed=0)
    head = build(weights)
    head.load_state_dict(run.state)
    return run, head


def test_training_mends_classes_that_point_away_from_their_images() -> None:
    turn, _ = np.linalg.qr(np.random.default_rng(7).standard_normal((DIM, DIM)))
    weights = unit(prototypes() @ turn)
    embeddings, labels = task(300, noise=1.0, seed=3)
    before = metrics.accuracy(zero_shot.logits(embeddings, weights, logit_scale=SCALE), labels)
    run, head = train_from(weights)
    after = metrics.accuracy(scores(head, torch.from_numpy(embeddings)).numpy(), labels)
    assert before < 0.6
    assert after > before + 0.3
    assert run.curve[0].val_accuracy < 0.6 < run.best.val_accuracy
    assert abs(float(head.log_scale.detach()) - math.log(SCALE)) > 0.01  # the temperature has moved
    assert torch.equal(head.class_weights, torch.from_numpy(weights))  # and the classifier has not


def test_of_a_perfect_classifier_training_makes_nothing_worse_on_val() -> None:
    run, head = train_from(prototypes())
    assert run.best.val_accuracy >= run.curve[0].val_accuracy > 0.9
    embeddings, labels = task(300, noise=1.0, seed=3)
    assert metrics.accuracy(scores(head, torch.from_numpy(embeddings)).numpy(), labels) > 0.9
