"""Twins: the nearest train image, what a threshold means, and accuracy without the images that have one."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clipcifar.core.errors import ConfigError
from clipcifar.evaluation.names import METHODS
from clipcifar.render.pictures import Pictures
from clipcifar.store.dataset import Prepared, PreparedSplit
from clipcifar.store.images import read_images
from clipcifar.store.predictions import read_predictions
from clipcifar.studies.near_duplicates import (
    findings,
    nearest as near_duplicates,
    page,
    pictures as picture_correlation,
    within,
)
from clipcifar.studies.near_duplicates.nearest import background, nearest, nearest_other, without
from tests.support import synthetic
from tests.support.workspace import Workspace


def test_the_nearest_is_that_of_the_whole_product(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    queries, keys = (synthetic.unit(rng.standard_normal((n, 8))) for n in (53, 101))
    keys[77] = keys[3]  # equal keys: the first one
    queries[5] = keys[3]
    whole = queries @ keys.T
    for blocks in ((1024, 8192), (7, 10), (53, 101), (1, 1)):
        monkeypatch.setattr(near_duplicates, "QUERY_BLOCK", blocks[0])
        monkeypatch.setattr(near_duplicates, "KEY_BLOCK", blocks[1])
        counted: list[int] = []
        rows, cosines = nearest(queries, keys, on_rows=counted.append)
        assert sum(counted) == 53
        assert rows[5] == 3
        assert (rows == whole.argmax(axis=1)).all()
        assert cosines == pytest.approx(whole.max(axis=1), abs=1e-6)


def test_the_nearest_other_is_that_of_the_whole_product(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = synthetic.unit(np.random.default_rng(0).standard_normal((53, 8)))
    rows[40] = rows[3]
    rows[52] = rows[3]  # three equal rows: the first other one
    whole = rows @ rows.T
    np.fill_diagonal(whole, -np.inf)
    for block in (2048, 7, 53, 1):
        monkeypatch.setattr(near_duplicates, "OWN_BLOCK", block)
        counted: list[int] = []
        twins, cosines = nearest_other(rows, on_rows=counted.append)
        assert sum(counted) == 53
        assert twins[[3, 40, 52]].tolist() == [40, 3, 3]
        assert (twins == whole.argmax(axis=1)).all()
        assert cosines == pytest.approx(whole.max(axis=1), abs=1e-6)
    assert nearest_other(rows[:1])[1].tolist() == [-np.inf]  # there is no other


def test_memory_does_not_grow_with_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    import tracemalloc

    monkeypatch.setattr(near_duplicates, "QUERY_BLOCK", 16)
    monkeypatch.setattr(near_duplicates, "KEY_BLOCK", 64)
    monkeypatch.setattr(near_duplicates, "OWN_BLOCK", 64)
    rng = np.random.default_rng(0)
    queries, keys = (synthetic.unit(rng.standard_normal((n, 4))) for n in (500, 4000))
    tracemalloc.start()
    nearest(queries, keys)
    nearest_other(keys)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000 < 500 * 4000 * 4


def test_the_background_is_of_pairs_of_one_class() -> None:
    centres = synthetic.prototypes()
    labels = np.arange(30) % 3
    rows = centres[labels]
    assert background(rows, labels, rows[::-1], labels[::-1]) == pytest.approx(1.0)
    unequal = np.array([0, 0, 1, 2] * 5)  # classes of different sizes, in no order
    assert background(rows, labels, centres[unequal], unequal) == pytest.approx(1.0)
    wrong = background(rows, labels, centres[(unequal + 1) % 3], unequal)
    assert wrong == pytest.approx(0.0, abs=1e-6)


def test_every_pair_of_a_class_is_as_likely() -> None:
    angles = np.array([0.0, 0.5, 1.2])
    keys = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = background(keys[:1], np.zeros(1, dtype=np.int64), keys, np.zeros(3, dtype=np.int64))
    shares = [np.isclose(found, np.cos(angle), atol=1e-6).mean() for angle in angles]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.01)


def test_a_hand_case_without_twins() -> None:
    correct = np.array([True] * 6 + [False] * 2 + [True] * 2)
    left_out = np.array([False] * 8 + [True] * 2)
    found = without(correct, left_out)
    assert (found.all, found.rest, found.those) == (0.8, 0.75, 1.0)
    assert (found.n_correct, found.n) == (6, 8)
    assert found.difference == pytest.approx(-0.05)
    assert found.low <= found.difference <= found.high < 0.1


def test_leaving_nothing_out_changes_nothing() -> None:
    correct = np.arange(50) % 3 > 0
    found = without(correct, np.zeros(50, dtype=bool))
    assert (found.difference, found.low, found.high) == (0, 0, 0)


@pytest.mark.parametrize(("those", "covers"), [(0.5, True), (1.0, False)])
def test_the_interval_shows_a_difference_where_there_is_one(those: float, covers: bool) -> None:
    rng = np.random.default_rng(0)
    left_out = np.arange(4000) < 400
    correct = np.where(left_out, rng.random(4000) < those, rng.random(4000) < 0.5)
    found = without(correct, left_out)
    assert (found.low <= 0 <= found.high) == covers


def test_the_bootstrap_is_that_of_drawn_images() -> None:
    rng = np.random.default_rng(1)
    left_out, correct = rng.random(500) < 0.1, rng.random(500) < 0.8
    drawn = []
    for _ in range(4000):
        rows = rng.integers(500, size=500)
        drawn.append(correct[rows][~left_out[rows]].mean() - correct[rows].mean())
    found = without(correct, left_out)
    assert [found.low, found.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=8e-4)


def _prepared(seed: int = 0) -> Prepared:
    """Ten test images of noise; the first four have brighter, noisier copies in train, one mislabelled."""
    rng = np.random.default_rng(seed)
    test = rng.integers(0, 200, (10, 32, 32, 3), dtype=np.uint8).repeat(1, axis=0)
    test = test.reshape(10, 8, 4, 8, 4, 3).mean(axis=(2, 4)).repeat(4, axis=1).repeat(4, axis=2)
    train = rng.integers(0, 200, (20, 8, 8, 3)).repeat(4, axis=1).repeat(4, axis=2).astype(np.float64)
    train[:4] = test[:4] * 1.1 + rng.normal(0, 2, (4, 32, 32, 3))
    labels, train_labels = np.arange(10) % 2, np.arange(20) % 2
    train_labels[3] = 0
    parts = [
        PreparedSplit(pixels.clip(0, 255).astype(np.uint8), of, [f"{name}/{i}" for i in range(len(of))])
        for pixels, of, name in ((train, train_labels, "train"), (test, labels, "test"))
    ]
    return Prepared(parts[0], parts[1], ["cat", "dog"], name="toy", max_per_class=0, digest="1")


def _correlations(
    left: PreparedSplit, right: PreparedSplit, pairs: list[tuple[int, int]], folder: Path = Path()
) -> list[float]:
    return picture_correlation.correlations(Pictures(left, folder), Pictures(right, folder), pairs)


def test_a_brighter_copy_is_the_same_picture_and_another_is_not() -> None:
    dataset = _prepared()
    pairs = [(i, i) for i in range(10)]
    found = _correlations(dataset.test, dataset.train, pairs)
    assert min(found[:4]) > 0.95
    assert max(found[4:]) < 0.7
    train = dataset.train
    mirrored = PreparedSplit(train.content[:, :, ::-1], train.labels, train.ids)
    assert _correlations(dataset.test, mirrored, pairs) == pytest.approx(found)
    turned = PreparedSplit(train.content[:, ::-1], train.labels, train.ids)
    assert max(_correlations(dataset.test, turned, pairs)) < 0.7


def test_a_flat_or_missing_picture_correlates_with_nothing(tmp_path: Path) -> None:
    flat = PreparedSplit(np.full((1, 8, 8, 3), 7, dtype=np.uint8), np.zeros(1, dtype=np.int64), ["x"])
    gone = PreparedSplit(np.array([b"ab"]), np.zeros(1, dtype=np.int64), ["gone.png"])
    assert _correlations(flat, flat, [(0, 0)]) == [0.0]
    assert _correlations(gone, flat, [(0, 0)], tmp_path) == [0.0]


def _found(threshold: float = 0.95) -> tuple[findings.Findings, Prepared]:
    dataset = _prepared()
    twins, cosines = np.arange(10), np.array([0.99, 0.98, 0.97, 0.96] + [0.5] * 6, dtype=np.float32)
    predicted = {name: np.arange(10) % 2 for name in METHODS}
    predicted["zero_shot"] = np.array([0, 1, 0, 1, 1, 0, 1, 0, 0, 1])  # right on the twins and two more
    random = np.linspace(0, 0.9, 100).astype(np.float32)
    found = findings.measure(
        twins, cosines, random, predicted, dataset, [], folder=Path(), threshold=threshold
    )
    return found, dataset


def test_pairs_are_ranked_counted_and_their_labels_compared(tmp_path: Path) -> None:
    found, dataset = _found()
    written = findings.as_metrics(found)
    assert (written["n_duplicates"], written["duplicates"]) == (4, 0.4)
    assert (written["same_label"], written["same_picture"]) == (0.75, 1.0)
    assert written["without"]["zero_shot"]["accuracy"] == pytest.approx(2 / 6)
    assert written["without"]["zero_shot"]["vs_all"]["difference"] == pytest.approx(2 / 6 - 0.6)
    gain = written["without"]["linear_probe"]["vs_zero_shot"]
    assert gain["difference"] == pytest.approx(4 / 6)
    assert "vs_zero_shot" not in written["without"]["zero_shot"]
    rows = findings.pair_rows(found, dataset)
    assert [row["test"] for row in rows] == ["test/0", "test/1", "test/2", "test/3"]
    assert (rows[3]["test_label"], rows[3]["train_label"]) == ("dog", "cat")
    shares = [row["share"] for row in findings.curve_rows(found)]
    assert shares == sorted(shares, reverse=True)
    assert dict(zip(findings.THRESHOLDS.tolist(), shares, strict=True))[0.98] == 0.2
    findings.write(tmp_path, found, dataset)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.csv", "metrics.json", "pairs.csv"]
    html = page.render(found, dataset, folder=Path(), shown=3, attributes=synthetic.ATTRIBUTES)
    assert html.count("<img ") == 2 * 3 + 2 * 1  # the closest, and those with different labels
    covers = "P values of MLP probe cover other test images, not retraining."
    assert covers not in html
    seeded = [replace(found.gains[0], name="mlp_probe")]
    again = replace(found, gains=seeded, gains_rest=seeded)
    assert covers in page.render(again, dataset, folder=Path(), shown=3, attributes=synthetic.ATTRIBUTES)


def test_a_pair_at_the_very_threshold_counts_everywhere() -> None:
    dataset, predicted = _prepared(), {name: np.arange(10) % 2 for name in METHODS}
    cosines = np.array([0.75, 0.75, 0.74, 0.76] + [0.5] * 6, dtype=np.float32)
    random = np.array([0.75, 0.75, 0.76, 0.7], dtype=np.float32)
    found = findings.measure(
        np.arange(10), cosines, random, predicted, dataset, [], folder=Path(), threshold=0.75
    )
    assert found.order.tolist() == [3, 0, 1]
    assert found.by_chance == pytest.approx(10 * 3 / 4)
    written = findings.as_metrics(found)
    assert (written["n_duplicates"], written["random_pairs"]) == (3, 0.75)
    assert written["without"]["zero_shot"]["n"] == 7
    same = replace(found, correlation=[findings.SAME_PICTURE, 0.95, 0.89])
    assert findings.as_metrics(same)["same_picture"] == pytest.approx(2 / 3)


def test_the_curve_counts_a_pair_at_its_points() -> None:
    found, _ = _found()
    at = findings.THRESHOLDS[[0, 10, 20]]  # as wide as the thresholds, so that they can be equal
    exact = replace(found, cosines=np.append(at, 0.1), background=np.append(at[:2], 0.1))
    rows = {row["threshold"]: row for row in findings.curve_rows(exact)}
    assert [rows[float(one)]["share"] for one in at] == [3 / 4, 2 / 4, 1 / 4]
    assert [rows[float(one)]["random_pairs"] for one in at] == pytest.approx([2 / 3, 1 / 3, 0])


def test_a_threshold_below_look_alikes_is_said_to_mean_nothing() -> None:
    found, _ = _found()
    assert found.by_chance == 0
    assert "raise it" not in " ".join(findings.verdicts(found))
    assert "Without those images" in " ".join(findings.verdicts(found))
    low, _ = _found(0.6)
    said = " ".join(findings.verdicts(low))
    assert low.by_chance == pytest.approx(
        10 * 0.34, abs=0.2
    )  # of ten train images a class, 0.6 to 0.9 of 0 to 0.9
    assert "does not tell twins from look-alikes; raise it" in said
    assert "Without those images" not in said


def test_no_twin_at_all_and_nothing_else_at_all(tmp_path: Path) -> None:
    found, dataset = _found(0.999)
    findings.write(tmp_path, found, dataset)
    assert not (tmp_path / "pairs.csv").exists()
    said = findings.verdicts(found)
    assert said[0] == "0 test images have a train image at a cosine of 0.999 or more, 0.00 % of 10."
    assert not any("Without those images" in sentence or "pair" in sentence for sentence in said[2:])
    assert (
        page.render(found, dataset, folder=Path(), shown=3, attributes=synthetic.ATTRIBUTES).count("<img")
        == 0
    )
    with pytest.raises(ConfigError, match="nothing is left"):
        _found(0.4)


def _in_train(dataset: Prepared, threshold: float = 0.95) -> within.Within:
    """Of 20 train images 0 and 4 are one file, 1 and 2 look alike, 5 is next to 1; others are far."""
    twins, cosines = np.arange(20)[::-1].copy(), np.full(20, 0.5, dtype=np.float32)
    for image, twin, cosine in ((0, 4, 1.0), (4, 0, 1.0), (1, 2, 0.97), (2, 1, 0.97), (5, 1, 0.96)):
        twins[image], cosines[image] = twin, cosine
    return within.measure("train", dataset.train, twins, cosines, folder=Path(), threshold=threshold)


def test_pairs_within_a_split_are_counted_once_ranked_written_and_shown(tmp_path: Path) -> None:
    dataset = _prepared()
    dataset.train.content[4] = dataset.train.content[0]
    own = _in_train(dataset)
    assert own.pairs.tolist() == [[0, 4], [1, 2], [1, 5]]
    assert within.as_metrics(own) == {
        "n": 20,
        "n_duplicates": 5,
        "duplicates": 0.25,
        "n_pairs": 3,
        "n_identical": 1,
        "n_other_label": 1,  # 1 is a dog, 2 a cat
        "same_label": pytest.approx(2 / 3),
        "same_picture": pytest.approx(1 / 3),
    }
    both = replace(_found()[0], within=[own])
    assert findings.as_metrics(both)["train"]["n_pairs"] == 3
    said = (
        "Within train: 5 of 20 images have such a twin there, in 3 pairs: the same byte for byte 1, with "
        "different labels 1."
    )
    assert said in findings.verdicts(both)
    findings.write(tmp_path, both, dataset)
    rows = list(csv.DictReader((tmp_path / "within.csv").read_text().splitlines()))
    assert [(row["image"], row["twin"], row["identical"]) for row in rows] == [
        ("train/0", "train/4", "1"),
        ("train/1", "train/2", "0"),
        ("train/1", "train/5", "0"),
    ]
    assert (rows[1]["label"], rows[1]["twin_label"], rows[1]["cosine"]) == ("dog", "cat", "0.97")
    html = page.render(both, dataset, folder=Path(), shown=2, attributes=synthetic.ATTRIBUTES)
    section = html[html.index('<h2 id="within-train">') : html.index('<h2 id="provenance">')]
    assert section.count("<img ") == 2 * 2 + 2 * 1  # the closest two, and the one with different labels


def test_a_split_without_twins_has_no_section(tmp_path: Path) -> None:
    dataset = _prepared()
    own = _in_train(dataset, threshold=1.01)
    assert within.as_metrics(own) == {
        **{"n": 20, "n_duplicates": 0, "duplicates": 0.0, "n_pairs": 0, "n_identical": 0, "n_other_label": 0}
    }
    assert within.sentence(own) == "Within train no image has such a twin."
    none = replace(_found()[0], within=[own])
    findings.write(tmp_path, none, dataset)
    assert not (tmp_path / "within.csv").exists()
    html = page.render(none, dataset, folder=Path(), shown=2, attributes=synthetic.ATTRIBUTES)
    assert "within-train" not in html


def test_copies_of_files_are_identical_by_their_digests() -> None:
    digests = np.array([b"a" * 64, b"b" * 64, b"a" * 64], dtype="S64")
    part = PreparedSplit(digests, np.array([0, 0, 1]), ["x/gone0", "x/gone1", "x/gone2"])
    twins, cosines = np.array([2, 0, 0]), np.array([1.0, 0.99, 1.0], dtype=np.float32)
    own = within.measure("test", part, twins, cosines, folder=Path("nowhere"), threshold=0.9)
    assert own.pairs.tolist() == [[0, 2], [0, 1]]
    assert own.identical.tolist() == [True, False]
    assert own.same_label.tolist() == [False, True]


@pytest.mark.pipeline
@pytest.mark.nightly  # two studies by day: few_shot and finetune
def test_the_study_runs_aside_and_its_share_recomputes(workspace: Workspace) -> None:
    workspace.edit(lambda settings: settings["near_duplicates"].update(threshold=0.99))
    workspace.repro()
    assert "near_duplicates" not in workspace.executed()
    workspace.start_study("near_duplicates")
    assert workspace.executed() == ["near_duplicates"]
    folder = workspace.folder
    written = json.loads((folder / "data/studies/near_duplicates/metrics.json").read_text())
    images = read_images(folder / "data/embeddings/images")
    best = (images.test.embeddings @ images.train.embeddings.T).max(axis=1)
    assert written["n_duplicates"] == int((best >= 0.99).sum()) > 0
    for name, own in (("train", images.train.embeddings), ("test", images.test.embeddings)):
        others = own @ own.T - 3 * np.eye(len(own), dtype=np.float32)
        assert written[name]["n_duplicates"] == int((others.max(axis=1) >= 0.99).sum()) > 0
    probe = read_predictions(folder / "data/predictions/linear_probe.h5")
    right = (probe.predicted == probe.labels)[best < 0.99]
    assert written["without"]["linear_probe"]["n_correct"] == int(right.sum())
    assert "Near-duplicates" in workspace.read("report/near_duplicates.html").decode()
    workspace.repro("studies/near_duplicates/dvc.yaml")
    assert workspace.executed() == []
