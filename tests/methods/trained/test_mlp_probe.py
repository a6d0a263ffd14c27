from __future__ import annotations

import math

import numpy as np
import torch

from clipcifar.methods.trained.mlp_probe import MLPProbe
from clipcifar.methods.trained.training import Labelled, TrainingParams, train
from tests.support.synthetic import DIM, task

CPU = torch.device("cpu")


def rows(n: int = 60, *, seed: int = 1, noise: float = 1.5) -> torch.Tensor:
    return torch.from_numpy(task(n, noise=noise, seed=seed)[0])


def probe(train_rows: torch.Tensor, *, seed: int = 0, dropout: float = 0.3) -> MLPProbe:
    torch.manual_seed(seed)
    return MLPProbe(train_rows, num_classes=3, hidden=10, dropout=dropout)


def test_the_logits_are_those_of_a_naive_forward_pass() -> None:
    train_rows, unseen = rows(), rows(20, seed=2)
    head = probe(train_rows).eval()
    state = {key: value.double().numpy() for key, value in head.state_dict().items()}
    mean, deviation = (f(train_rows.double().numpy(), 0) for f in (np.mean, lambda x, _: x.std(0, ddof=1)))
    for row, found in zip(unseen.double().numpy(), head(unseen).detach().numpy(), strict=True):
        hidden = state["layers.0.weight"] @ ((row - mean) / deviation) + state["layers.0.bias"]
        active = np.array([x * (1 + math.erf(x / math.sqrt(2))) / 2 for x in hidden])
        np.testing.assert_allclose(
            found, state["layers.3.weight"] @ active + state["layers.3.bias"], atol=1e-5
        )


def test_the_train_images_become_standard_whatever_their_scale_and_offset() -> None:
    train_rows = 0.01 * rows(200) + 5
    seen: list[torch.Tensor] = []
    head = probe(train_rows).eval()
    head.layers.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    head(train_rows)
    torch.testing.assert_close(seen[0].mean(dim=0), torch.zeros(DIM), atol=1e-3, rtol=0)
    torch.testing.assert_close(seen[0].std(dim=0), torch.ones(DIM), atol=1e-3, rtol=0)


def test_a_component_that_never_varies_does_no_harm() -> None:
    train_rows = rows()
    train_rows[:, 3] = 0.25
    assert torch.isfinite(probe(train_rows).eval()(torch.cat([train_rows, rows(20, seed=2)]))).all()


def test_neither_val_nor_test_rows_nor_training_move_the_statistics() -> None:
    embeddings, labels = task(60, noise=1.5)
    data = Labelled.on(CPU, embeddings, labels)
    far = Labelled.on(CPU, 100 * embeddings + 7, labels)
    params = TrainingParams(16, 0.1, 0.01, 0.1, 16, 4, 4, (0,), "cpu")
    run = train(lambda: probe(data.embeddings), data, far, params=params, seed=0)
    assert torch.equal(run.state["mean"], data.embeddings.mean(dim=0))
    assert torch.equal(run.state["deviation"], data.embeddings.std(dim=0))
    learned = {name for name, _ in probe(data.embeddings).named_parameters()}
    assert not learned & {"mean", "deviation"}


def test_a_loaded_state_gives_the_same_bits_even_in_a_head_made_from_other_rows() -> None:
    unseen = rows(20, seed=2)
    head, other = probe(rows()).eval(), probe(rows(seed=5), seed=9).eval()
    expected = head(unseen)
    assert not torch.allclose(other(unseen), expected)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other(unseen), expected)


def test_dropout_is_for_training_only() -> None:
    data = rows()
    head = probe(data, dropout=0.5)
    assert not torch.equal(head.train()(data), head(data))
    assert torch.equal(head.eval()(data), head(data))


def test_a_rows_logits_do_not_depend_on_its_neighbours() -> None:
    data = rows()
    head = probe(data).eval()
    torch.testing.assert_close(head(data[:1]), head(data)[:1])
