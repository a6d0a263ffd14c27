from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import nn

from clipcifar.core.errors import ConfigError
from clipcifar.methods.trained import training
from clipcifar.methods.trained.mlp_probe import MLPProbe
from clipcifar.methods.trained.training import Epoch, Labelled, Run, TrainingParams, best, scores, train
from tests.support.synthetic import task

CPU = torch.device("cpu")
PARAMS = TrainingParams(
    hidden=16,
    dropout=0.2,
    learning_rate=0.01,
    weight_decay=1e-4,
    batch_size=32,
    max_epochs=15,
    patience=5,
    seeds=(0,),
    device="cpu",
)


def labelled(n: int, *, noise: float = 0.7, seed: int = 1) -> Labelled:
    return Labelled.on(CPU, *task(n, noise=noise, seed=seed))


def train_probe(
    data: Labelled, val: Labelled, *, seed: int = 0, params: TrainingParams = PARAMS
) -> tuple[Run, MLPProbe]:
    """The run, and the head with the state that was chosen."""

    def build() -> MLPProbe:
        return MLPProbe(data.embeddings, num_classes=3, hidden=params.hidden, dropout=params.dropout)

    run = train(build, data, val, params=params, seed=seed)
    head = build()
    head.load_state_dict(run.state)
    return run, head


def accuracy(head: nn.Module, data: Labelled) -> float:
    """By NumPy, not by the code under test."""
    head.eval()
    with torch.no_grad():
        guesses = head(data.embeddings).numpy().argmax(axis=1)
    return float((guesses == data.labels.numpy()).mean())


def epoch(val_accuracy: float, val_loss: float, number: int = 0) -> Epoch:
    return Epoch(epoch=number, train_loss=0.0, val_loss=val_loss, val_accuracy=val_accuracy)


@pytest.mark.parametrize(
    ("chosen", "other"),
    [
        (epoch(0.8, 2.0), epoch(0.7, 1.0)),  # accuracy comes first
        (epoch(0.8, 0.9), epoch(0.8, 1.0)),
        (epoch(0.1, 1.0), epoch(0.9, float("nan"))),
        (epoch(0.0, 1e9), epoch(0.9, float("inf"))),
    ],
)
def test_val_chooses_the_epoch(chosen: Epoch, other: Epoch) -> None:
    assert best([chosen, other]) is chosen
    assert best([other, chosen]) is chosen


def test_of_equals_the_first_is_chosen_whatever_its_train_loss() -> None:
    first, later = Epoch(1, 5.0, 1.0, 0.8), Epoch(9, 0.0, 1.0, 0.8)
    assert best([first, later]) is first
    diverged = [epoch(0.5, float("nan"), 0), epoch(0.9, float("inf"), 1)]
    assert best(diverged) is diverged[0]


def test_a_seed_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="twice") as caught:
        replace(PARAMS, seeds=(3, 1, 3))
    assert caught.value.exit_code == 2


class Scripted(nn.Module):
    """A head whose epochs are written down: how many of the val rows it gets right, and how surely.

    One batch is one epoch. The buffer `epoch` is part of the state, so a state tells its epoch.
    """

    epoch: torch.Tensor

    def __init__(self, script: list[tuple[int, float]]) -> None:
        super().__init__()
        self.script = script
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.epoch += 1
        hits, margin = self.script[int(self.epoch)]
        right = torch.arange(len(embeddings)) < hits
        of_class_0 = torch.where(right, margin, -margin)  # all rows are of class 0
        return torch.stack([of_class_0, torch.zeros(len(embeddings))], dim=1) + 0 * self.weight


ROWS = 4
PLAIN = Labelled(torch.zeros(ROWS, 2), torch.zeros(ROWS, dtype=torch.int64))
SCRIPTED = replace(PARAMS, batch_size=ROWS)


def naive_early_stopping(keys: list[tuple[float, float]], *, patience: int) -> tuple[int, int]:
    """(best epoch, last epoch that is trained) for (accuracy, -loss) by epoch."""
    best = 0
    for i in range(1, len(keys)):
        if keys[i] > keys[best]:
            best = i
        elif i - best == patience:
            return best, i
    return best, len(keys) - 1


@given(
    st.lists(st.tuples(st.integers(0, ROWS), st.sampled_from([0.5, 1.0, 2.0])), min_size=2, max_size=15),
    st.integers(1, 5),
)
@settings(max_examples=60)
def test_early_stopping_is_a_naive_loops_and_keeps_the_state_of_the_best_epoch(
    script: list[tuple[int, float]], patience: int
) -> None:
    params = replace(SCRIPTED, patience=patience, max_epochs=len(script) - 1)
    calls = []
    run = train(
        lambda: Scripted(script), PLAIN, PLAIN, params=params, seed=0, on_epoch=lambda: calls.append(1)
    )
    keys = []
    for hits, margin in script:
        losses = [np.log1p(np.exp(-margin if row < hits else margin)) for row in range(ROWS)]
        keys.append((hits / ROWS, -float(np.float32(np.mean(losses)))))
    best, last = naive_early_stopping([(a, round(b, 5)) for a, b in keys], patience=patience)
    assert [point.epoch for point in run.curve] == list(range(last + 1))
    assert len(calls) == last
    assert run.best == run.curve[best]
    assert int(run.state["epoch"]) == best
    for point, (val_accuracy, minus_loss) in zip(run.curve, keys, strict=False):
        assert point.val_accuracy == val_accuracy
        assert point.val_loss == pytest.approx(-minus_loss, abs=1e-5)


def test_training_stops_after_patience_epochs_without_improvement() -> None:
    script = [(1, 1.0), (2, 1.0), (3, 1.0)] + [(2, 1.0)] * 3 + [(4, 1.0)] * 5
    run = train(lambda: Scripted(script), PLAIN, PLAIN, params=replace(SCRIPTED, patience=3), seed=0)
    assert (run.best.epoch, len(run.curve) - 1) == (2, 5)
    patient = train(
        lambda: Scripted(script), PLAIN, PLAIN, params=replace(SCRIPTED, patience=4, max_epochs=10), seed=0
    )
    assert patient.best.epoch == 6


def test_a_head_that_never_improves_is_returned_untrained() -> None:
    script = [(3, 1.0)] + [(1, 1.0)] * 20
    run = train(lambda: Scripted(script), PLAIN, PLAIN, params=SCRIPTED, seed=0)
    assert run.best.epoch == 0
    assert int(run.state["epoch"]) == 0


def test_an_epoch_with_loss_nan_is_not_chosen() -> None:
    script = [(1, 1.0), (2, 1.0), (4, float("nan")), (4, float("nan"))]
    run = train(lambda: Scripted(script), PLAIN, PLAIN, params=replace(SCRIPTED, max_epochs=3), seed=0)
    assert np.isnan(run.curve[2].val_loss)
    assert run.best.epoch == 1


class Recorder(nn.Module):
    """Notes which rows each training batch held."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.batches: list[list[int]] = []

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.batches.append(embeddings[:, 0].int().tolist())
        return torch.stack([embeddings[:, 0] * self.weight, embeddings[:, 0]], dim=1)


def test_every_epoch_of_every_seed_shows_every_row_once_in_an_order_of_its_own() -> None:
    rows = torch.arange(10.0)[:, None]
    data = Labelled(rows, torch.zeros(10, dtype=torch.int64))
    orders = set()
    for seed in (0, 1):
        head = Recorder()
        params = replace(PARAMS, batch_size=4, max_epochs=3)
        train(lambda head=head: head, data, data, params=params, seed=seed)  # type: ignore[misc]
        assert [len(batch) for batch in head.batches] == [4, 4, 2] * 3
        for i in range(3):
            order = tuple(row for batch in head.batches[3 * i : 3 * i + 3] for row in batch)
            assert sorted(order) == list(range(10))
            orders.add(order)
    assert len(orders) == 6


def test_the_train_loss_of_an_epoch_is_the_mean_over_rows_not_over_batches() -> None:
    """The last batch is small and has another loss; with no step to speak of, epoch 1 equals epoch 0."""
    rows = torch.tensor([[0.0], [0.0], [0.0], [0.0], [8.0]])
    data = Labelled(rows, torch.zeros(5, dtype=torch.int64))
    params = replace(PARAMS, batch_size=4, max_epochs=1, learning_rate=1e-8)
    run = train(Recorder, data, data, params=params, seed=0)
    expected = (4 * np.log(2) + np.log1p(np.exp(8))) / 5
    assert [point.train_loss for point in run.curve] == pytest.approx([expected] * 2, rel=1e-4)


def test_epoch_0_is_the_untrained_head() -> None:
    data, val = labelled(90), labelled(60, seed=2)
    run, _ = train_probe(data, val, params=replace(PARAMS, max_epochs=1))
    torch.manual_seed(0)
    head = MLPProbe(data.embeddings, num_classes=3, hidden=PARAMS.hidden, dropout=PARAMS.dropout).eval()
    assert run.curve[0].epoch == 0
    assert run.curve[0].val_accuracy == pytest.approx(accuracy(head, val))
    for found, part in ((run.curve[0].train_loss, data), (run.curve[0].val_loss, val)):
        with torch.no_grad():
            probabilities = torch.softmax(head(part.embeddings).double(), dim=1).numpy()
        naive = -np.log(probabilities[np.arange(len(part.labels)), part.labels.numpy()]).mean()
        assert found == pytest.approx(naive, abs=1e-5)


def test_the_kept_state_is_that_of_the_best_epoch() -> None:
    data, val = labelled(90, noise=3.0), labelled(60, noise=3.0, seed=2)
    run, head = train_probe(data, val)
    assert 0 < run.best.epoch < len(run.curve) - 1  # neither the first nor the last state
    assert accuracy(head, val) == pytest.approx(run.best.val_accuracy)
    assert run.best.val_accuracy == max(point.val_accuracy for point in run.curve)
    with torch.no_grad():
        assert float(F.cross_entropy(head(val.embeddings), val.labels)) == pytest.approx(run.best.val_loss)


def test_one_seed_gives_the_same_bits_and_another_seed_others() -> None:
    data, val = labelled(90, noise=2.0), labelled(60, noise=2.0, seed=2)
    torch.manual_seed(1234)
    one, _ = train_probe(data, val)
    torch.manual_seed(99)  # what ran before has no say
    two, _ = train_probe(data, val)
    other, _ = train_probe(data, val, seed=1)
    assert one.curve == two.curve
    assert one.best == two.best
    assert all(torch.equal(one.state[key], two.state[key]) for key in one.state)
    assert other.curve[0] != one.curve[0]  # initial weights
    assert not torch.equal(one.state["layers.0.weight"], other.state["layers.0.weight"])


def test_val_decides_the_epoch_and_nothing_else() -> None:
    data, val = labelled(90, noise=2.0), labelled(60, noise=2.0, seed=2)
    other = Labelled(val.embeddings, (val.labels + 1) % 3)
    patient = replace(PARAMS, patience=PARAMS.max_epochs)
    one, two = (train_probe(data, part, params=patient)[0] for part in (val, other))
    assert [point.train_loss for point in one.curve] == [point.train_loss for point in two.curve]
    assert one.best.epoch != two.best.epoch


def test_a_separable_problem_is_learned() -> None:
    run, head = train_probe(labelled(150), labelled(60, seed=2))
    assert run.curve[0].val_accuracy < 0.8
    assert run.best.val_accuracy > 0.95
    assert accuracy(head, labelled(300, seed=3)) > 0.95


def test_random_labels_are_not_learned() -> None:
    rng = np.random.default_rng(0)

    def random_labels(data: Labelled) -> Labelled:
        return Labelled(data.embeddings, torch.from_numpy(rng.integers(0, 3, len(data.labels))))

    data, val, test = (random_labels(labelled(n, seed=i)) for i, n in enumerate((120, 600, 900)))
    params = replace(PARAMS, hidden=128, dropout=0.0, max_epochs=40, patience=40)
    run, head = train_probe(data, val, params=params)
    assert run.curve[-1].train_loss < 0.1  # learned by heart, so that val had something to betray
    assert run.best.val_accuracy < 1 / 3 + 5 * np.sqrt(2 / 9 / 600)  # the best of 40 tries
    assert abs(accuracy(head, test) - 1 / 3) < 4 * np.sqrt(2 / 9 / 900)


def test_scores_are_computed_in_pieces_in_evaluation_mode_and_without_a_graph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = labelled(50)
    head = MLPProbe(data.embeddings, num_classes=3, hidden=8, dropout=0.9).train()
    whole = scores(head, data.embeddings)
    assert whole.shape == (50, 3)
    assert not whole.requires_grad
    assert not head.training
    assert torch.equal(whole, scores(head, data.embeddings))  # no dropout
    sizes: list[int] = []
    head.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    monkeypatch.setattr(training, "_EVALUATION_ROWS", 20)
    torch.testing.assert_close(scores(head, data.embeddings), whole)
    assert sizes == [20, 20, 10]
