"""MLP probe, projection heads, their training, and several seeds of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clipcifar import heads, results, seeds, splits, store, training, zero_shot
from clipcifar.errors import ConfigError
from clipcifar.mlp_probe import MLPProbe
from clipcifar.projection import Projection
from clipcifar.training import Epoch, Labelled, Run, TrainingParams
from tests.made import DIM, NAMES, clusters, prototypes, write_embeddings

CPU = torch.device("cpu")


def _params(**changes: Any) -> TrainingParams:
    base: dict[str, Any] = {
        "hidden": 16,
        "dropout": 0.1,
        "learning_rate": 0.01,
        "weight_decay": 0.0,
        "batch_size": 64,
        "max_epochs": 12,
        "patience": 4,
        "seeds": (0, 1, 2),
        "device": "cpu",
    }
    return TrainingParams(**{**base, **changes})


def _data(seed: int, n: int, noise: float = 1.0) -> Labelled:
    return Labelled.on(CPU, *clusters(seed=seed, n=n, noise=noise))


def _mlp(data: Labelled) -> MLPProbe:
    return MLPProbe(data.embeddings, num_classes=3, hidden=16, dropout=0.1)


def _projection(class_weights: np.ndarray, logit_scale: float = 20.0) -> Projection:
    return Projection(torch.from_numpy(class_weights), logit_scale=logit_scale, hidden=16, dropout=0.1)


def test_better_means_more_accurate_then_less_loss() -> None:
    assert training.better(Epoch(1, 0, 9.0, 0.8), Epoch(0, 0, 1.0, 0.7))
    assert training.better(Epoch(1, 0, 0.5, 0.7), Epoch(0, 0, 1.0, 0.7))
    assert not training.better(Epoch(1, 0, 1.0, 0.7), Epoch(0, 0, 1.0, 0.7))


def test_training_learns_and_stops_after_patience_with_the_best_state() -> None:
    train_data, val_data = _data(0, 300), _data(1, 120)
    epochs: list[None] = []
    run = training.train(
        lambda: _mlp(train_data), train_data, val_data, params=_params(max_epochs=50), seed=0,
        on_epoch=lambda: epochs.append(None),
    )  # fmt: skip
    assert run.best.val_accuracy > 0.9
    assert [point.epoch for point in run.curve] == list(range(len(run.curve)))
    assert len(run.curve) - 1 == min(run.best.epoch + 4, 50) == len(epochs)
    head = _mlp(train_data)
    head.load_state_dict(run.state)
    correct = training.scores(head, val_data.embeddings).argmax(dim=1) == val_data.labels
    assert float(correct.float().mean()) == pytest.approx(run.best.val_accuracy)


def test_random_labels_are_not_learnt_on_val() -> None:
    train_data, val_data = _data(0, 300), _data(1, 300)
    rng = np.random.default_rng(0)
    shuffled = [
        Labelled(d.embeddings, torch.from_numpy(rng.integers(0, 3, 300))) for d in (train_data, val_data)
    ]
    run = training.train(lambda: _mlp(train_data), *shuffled, params=_params(), seed=0)
    assert run.best.val_accuracy < 0.45


def test_one_seed_gives_one_result() -> None:
    train_data, val_data = _data(0, 120), _data(1, 60)
    first, again, other = (
        training.train(lambda: _mlp(train_data), train_data, val_data, params=_params(), seed=seed)
        for seed in (3, 3, 4)
    )
    assert first.curve == again.curve
    assert all(torch.equal(first.state[name], again.state[name]) for name in first.state)
    assert first.curve != other.curve


def test_repeated_seeds_are_refused() -> None:
    with pytest.raises(ConfigError, match="twice"):
        _params(seeds=(0, 0))


def test_an_mlp_is_standardised_by_its_train_images() -> None:
    rows = torch.from_numpy(clusters(seed=0, n=100)[0])
    head = MLPProbe(rows, num_classes=3, hidden=4, dropout=0.5)
    torch.testing.assert_close(head.mean, rows.mean(dim=0))
    torch.testing.assert_close(head.deviation, rows.std(dim=0))
    head.eval()
    torch.testing.assert_close(head(rows), head.layers((rows - head.mean) / head.deviation))


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_projection_starts_as_the_zero_shot_classifier(mode: str) -> None:
    rows, _ = clusters(seed=0, n=50)
    head = _projection(prototypes()).train(mode == "train")
    expected = zero_shot.logits(rows, prototypes(), logit_scale=20.0)
    np.testing.assert_allclose(head(torch.from_numpy(rows)).detach().numpy(), expected, atol=2e-5)


def test_epoch_0_of_projection_is_zero_shot_accuracy() -> None:
    train_data, val_data = _data(0, 120), _data(1, 90)
    run = training.train(lambda: _projection(prototypes()), train_data, val_data, params=_params(), seed=0)
    guesses = (val_data.embeddings.numpy() @ prototypes().T).argmax(axis=1)
    assert run.curve[0].val_accuracy == pytest.approx((guesses == val_data.labels.numpy()).mean())


def test_projection_mends_class_vectors_that_point_elsewhere() -> None:
    """Class vectors of dog and eel are swapped for mixtures: zero-shot errs, trained heads need not."""
    wrong = prototypes()[[0, 2, 1]] * 0.6 + prototypes() * 0.5
    wrong /= np.linalg.norm(wrong, axis=1, keepdims=True)
    train_data, val_data, test_data = _data(0, 400), _data(1, 120), _data(2, 300)
    run = training.train(
        lambda: _projection(wrong), train_data, val_data, params=_params(max_epochs=30), seed=0
    )
    head = _projection(wrong)
    labels = test_data.labels
    before = (training.scores(head, test_data.embeddings).argmax(dim=1) == labels).float().mean()
    head.load_state_dict(run.state)
    after = (training.scores(head, test_data.embeddings).argmax(dim=1) == labels).float().mean()
    assert after > before + 0.2
    assert run.best.epoch > 0
    assert abs(float(run.state["log_scale"].exp()) - 20.0) > 0.05


def _run(seed: int, accuracy: float, loss: float) -> Run:
    return Run(seed, [], Epoch(seed, 0.0, loss, accuracy), {})


def test_the_best_seed_on_val_is_chosen_the_first_of_equals() -> None:
    runs = [_run(0, 0.8, 1.0), _run(1, 0.9, 2.0), _run(2, 0.9, 2.0)]
    assert seeds.best_run(runs).seed == 1
    found = seeds.seed_metrics([0.7, 0.8, 0.9], runs[1])
    assert found["seeds"] == {"n": 3, "accuracy_mean": pytest.approx(0.8), "accuracy_std": pytest.approx(0.1)}
    assert found["selected"] == {"seed": 1, "epoch": 1}
    assert seeds.seed_metrics([0.7], runs[0])["seeds"]["accuracy_std"] == 0.0


def test_a_stored_head_reproduces_the_stored_predictions_and_the_reported_accuracy_is_its_own(
    tmp_path: Path,
) -> None:
    write_embeddings(tmp_path)
    images = store.read_images(tmp_path / "images.h5")
    rows = splits.read_splits(tmp_path / "splits.h5", images.train.ids, dataset_digest="1")
    outputs = seeds.Outputs(tmp_path / "head.h5", tmp_path / "p.h5", tmp_path / "m.json", tmp_path / "plots")
    metrics = seeds.train_and_report(
        "mlp_probe", _mlp, images, rows, params=_params(), outputs=outputs, attributes={}
    )
    arrays, attributes = heads.read(outputs.head)
    train_rows = torch.from_numpy(images.train.embeddings[rows.train])
    head = MLPProbe(train_rows, num_classes=3, hidden=int(attributes["hidden"]), dropout=0.1)
    head.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    predictions = results.read_predictions(outputs.predictions)
    again = training.scores(head, torch.from_numpy(images.test.embeddings)).numpy()
    np.testing.assert_array_equal(again, predictions.scores)
    own = (predictions.scores.argmax(axis=1) == predictions.labels).mean()
    assert metrics["accuracy"] == pytest.approx(own, abs=1e-5)
    assert metrics["selected"]["seed"] == attributes["seed"]
    assert metrics["seeds"]["n"] == 3
    assert train_rows.shape[1] == DIM
    assert list(metrics["per_class"]) == NAMES
