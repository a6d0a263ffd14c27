from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clipcifar.evaluation import headline, metrics, results
from clipcifar.methods.trained import seeds
from clipcifar.methods.trained.mlp_probe import MLPProbe
from clipcifar.methods.trained.seeds import Outputs, best_run, curve_rows, seed_metrics
from clipcifar.methods.trained.training import Epoch, Labelled, Run, TrainingParams, arrays_of, train
from clipcifar.store import heads
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.predictions import read_predictions
from clipcifar.store.splits import TrainVal
from tests.support.synthetic import CLASSES, image_embeddings, train_val, with_test

PARAMS = TrainingParams(
    hidden=8,
    dropout=0.3,
    learning_rate=0.01,
    weight_decay=1e-4,
    batch_size=32,
    max_epochs=6,
    patience=3,
    seeds=(4, 0, 7),
    device="cpu",
)


def run_of(seed: int, val_accuracy: float, val_loss: float = 1.0, number: int = 3) -> Run:
    best = Epoch(number, train_loss=0.0, val_loss=val_loss, val_accuracy=val_accuracy)
    return Run(seed=seed, curve=[best], state={})


def test_the_seed_that_is_best_on_val_is_chosen_and_the_first_of_equals() -> None:
    assert best_run([run_of(5, 0.7), run_of(2, 0.9), run_of(3, 0.8)]).seed == 2
    assert best_run([run_of(5, 0.9), run_of(2, 0.9), run_of(3, 0.9)]).seed == 5
    assert best_run([run_of(5, 0.9), run_of(2, 0.9, val_loss=0.5), run_of(3, 0.9, val_loss=0.5)]).seed == 2


def test_seed_metrics_by_hand() -> None:
    found = seed_metrics([0.5, 0.7, 0.9], run_of(7, 0.8, number=12))
    assert found == {
        "seeds": {
            "n": 3,
            "accuracy_mean": pytest.approx(0.7),
            "accuracy_std": pytest.approx(0.2),  # sqrt((0.04 + 0 + 0.04) / 2)
        },
        "selected": {"seed": 7, "epoch": 12},
    }


def test_one_seed_has_no_deviation() -> None:
    assert seed_metrics([0.5], run_of(7, 0.8))["seeds"] == {
        "n": 1,
        "accuracy_mean": 0.5,
        "accuracy_std": 0.0,
    }


def test_curve_rows_hold_every_epoch_of_every_seed_in_order() -> None:
    curves = {1: [Epoch(0, 1.0, 2.0, 0.3), Epoch(1, 0.5, 1.5, 0.4)], 0: [Epoch(0, 1.1, 2.1, 0.2)]}
    rows = curve_rows([Run(seed, curve, {}) for seed, curve in curves.items()])
    assert [tuple(row.values()) for row in rows] == [
        (1, 0, 1.0, 2.0, 0.3),
        (1, 1, 0.5, 1.5, 0.4),
        (0, 0, 1.1, 2.1, 0.2),
    ]
    assert list(rows[0]) == ["seed", "epoch", "train_loss", "val_loss", "val_accuracy"]


def test_a_state_as_arrays_is_the_state() -> None:
    layer = torch.nn.Linear(3, 2)
    found = arrays_of(layer.state_dict())
    assert set(found) == {"weight", "bias"}
    np.testing.assert_array_equal(found["weight"], layer.weight.detach().numpy())


def build(data: Labelled) -> MLPProbe:
    return MLPProbe(data.embeddings, num_classes=len(CLASSES), hidden=PARAMS.hidden, dropout=PARAMS.dropout)


@dataclass(frozen=True)
class Alone:
    """One seed trained on its own: its run, and what its best epoch says of the test images."""

    run: Run
    guesses: NDArray[np.int64]

    @property
    def key(self) -> tuple[float, float]:
        return self.run.best.val_accuracy, -self.run.best.val_loss


@pytest.fixture(scope="module")
def alone() -> dict[int, Alone]:
    start = image_embeddings(noise=3.0)
    data, val = (
        Labelled(torch.from_numpy(start.train.embeddings[part]), torch.from_numpy(start.train.labels[part]))
        for part in train_val(start)
    )
    found = {}
    for seed in PARAMS.seeds:
        run = train(lambda: build(data), data, val, params=PARAMS, seed=seed)
        head = build(data)
        head.load_state_dict(run.state)
        with torch.no_grad():
            guesses = head.eval()(torch.from_numpy(start.test.embeddings)).numpy().argmax(axis=1)
        found[seed] = Alone(run, guesses)
    return found


@pytest.fixture(scope="module")
def images(alone: dict[int, Alone]) -> ImageEmbeddings:
    """Of these the seed that is worst on val is right on every test image, so no choice may fall on it."""
    worst = min(alone.values(), key=lambda found: found.key)
    return with_test(image_embeddings(noise=3.0), labels=worst.guesses)


def train_and_report(
    folder: Path,
    images: ImageEmbeddings,
    *,
    params: TrainingParams = PARAMS,
    rows: TrainVal | None = None,
) -> dict[str, Any]:
    return seeds.train_and_report(
        "mlp_probe",
        build,
        images,
        rows or train_val(images),
        params=params,
        outputs=Outputs(
            folder / "head.h5",
            folder / "p.h5",
            folder / "m.json",
            folder / "details/m.json",
            folder / "plots",
        ),
        attributes={"texts_fingerprint": "12" * 32},
    )


@pytest.fixture(scope="module")
def done(images: ImageEmbeddings, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("seeds")
    return folder, train_and_report(folder, images)


def test_the_report_is_of_the_seed_that_val_chose_and_the_mean_stands_beside_it(
    done: tuple[Path, dict[str, Any]], alone: dict[int, Alone], images: ImageEmbeddings
) -> None:
    folder, written = done
    chosen = max(alone, key=lambda seed: alone[seed].key)
    test = {seed: float((found.guesses == images.test.labels).mean()) for seed, found in alone.items()}
    assert test[chosen] < max(test.values()) == 1
    assert written["selected"] == {"seed": chosen, "epoch": alone[chosen].run.best.epoch}
    assert written["accuracy"] == round(test[chosen], 5)
    assert written["seeds"] == {
        "n": 3,
        "accuracy_mean": pytest.approx(sum(test.values()) / 3, abs=1e-5),
        "accuracy_std": pytest.approx(np.std(list(test.values()), ddof=1), abs=1e-5),
    }
    assert headline.read(folder, "m") == written


def test_a_seed_comes_out_the_same_alone_and_among_others(
    done: tuple[Path, dict[str, Any]], alone: dict[int, Alone]
) -> None:
    folder, _ = done
    with open(folder / "plots" / "training.csv", newline="") as stream:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]
    expected = curve_rows([alone[seed].run for seed in PARAMS.seeds])
    assert rows == [{key: round(float(value), 5) for key, value in row.items()} for row in expected]


def test_the_stored_head_gives_the_stored_predictions_bit_for_bit(
    done: tuple[Path, dict[str, Any]], images: ImageEmbeddings
) -> None:
    folder, written = done
    arrays, attributes = heads.read(folder / "head.h5")
    stored = read_predictions(folder / "p.h5")
    torch.manual_seed(77)
    other_rows = torch.rand(9, images.train.embeddings.shape[1])  # everything must come from the file
    head = MLPProbe(
        other_rows, num_classes=len(CLASSES), hidden=int(attributes["hidden"]), dropout=PARAMS.dropout
    )
    head.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    with torch.no_grad():
        again = head.eval()(torch.from_numpy(images.test.embeddings)).numpy()
    assert again.tobytes() == stored.scores.tobytes()
    assert stored.ids == images.test.ids
    assert metrics.accuracy(again, stored.labels) == pytest.approx(written["accuracy"], abs=1e-5)
    assert attributes["seed"] == written["selected"]["seed"]
    for found in (attributes, stored.attributes):
        assert found["method"] == "mlp_probe"
        assert found["texts_fingerprint"] == "12" * 32
        assert found["images_fingerprint"] == images.attributes["fingerprint"]
        assert found["weights_sha256"] == images.attributes["weights_sha256"]


def test_what_every_seed_says_of_test_is_kept_in_the_order_of_the_seeds(
    done: tuple[Path, dict[str, Any]], alone: dict[int, Alone], images: ImageEmbeddings
) -> None:
    folder, written = done
    stored = read_predictions(folder / "p.h5")
    assert stored.by_seed is not None
    np.testing.assert_array_equal(stored.by_seed, [alone[seed].guesses for seed in sorted(alone)])
    accuracies = (stored.by_seed == images.test.labels).mean(axis=1)
    assert written["seeds"]["accuracy_mean"] == pytest.approx(accuracies.mean(), abs=1e-5)
    assert len(set(accuracies)) > 1  # else any order would do


def test_the_metrics_have_the_keys_of_every_other_method(
    done: tuple[Path, dict[str, Any]], images: ImageEmbeddings, tmp_path: Path
) -> None:
    _, written = done
    plain = results.write(
        "other",
        np.zeros((len(images.test.ids), len(CLASSES)), dtype=np.float32),
        images,
        temperature=2.0,
        predictions_path=tmp_path / "p.h5",
        metrics_path=tmp_path / "m.json",
        details_path=tmp_path / "details/m.json",
        plots_folder=tmp_path,
    )
    assert set(written) - set(plain) == {"seeds", "selected"}
    assert set(plain) <= set(written)
    assert list(plain["per_class"]) == list(written["per_class"]) == CLASSES


def test_test_labels_and_test_images_have_no_say_in_the_head(
    done: tuple[Path, dict[str, Any]], images: ImageEmbeddings, tmp_path: Path
) -> None:
    folder, written = done
    rng = np.random.default_rng(0)
    order = rng.permutation(len(images.test.ids))
    test = replace(
        images.test, embeddings=images.test.embeddings[::-1].copy(), labels=images.test.labels[order]
    )
    changed = train_and_report(tmp_path, replace(images, test=test))
    assert changed["accuracy"] != written["accuracy"]
    assert changed["selected"] == written["selected"]
    for name in ("head.h5", "plots/training.csv"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_other_val_labels_choose_another_head(
    done: tuple[Path, dict[str, Any]], images: ImageEmbeddings, tmp_path: Path
) -> None:
    """The control of the test before: what the choice depends on does change it."""
    folder, _ = done
    labels = images.train.labels.copy()
    rows = train_val(images)
    labels[rows.val] = (labels[rows.val] + 1) % 3
    train_and_report(tmp_path, replace(images, train=replace(images.train, labels=labels)), rows=rows)
    before, after = (heads.read(place / "head.h5")[0] for place in (folder, tmp_path))
    assert any(before[name].tobytes() != after[name].tobytes() for name in before)


def test_the_order_of_the_seeds_changes_no_run_and_no_choice(
    done: tuple[Path, dict[str, Any]], images: ImageEmbeddings, tmp_path: Path
) -> None:
    folder, written = done
    again = train_and_report(tmp_path, images, params=replace(PARAMS, seeds=PARAMS.seeds[::-1]))
    assert again == written
    for name in ("p.h5", "head.h5"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
