"""Wrong labels: the confident joint by hand and by a loop, planted errors found, none where none are."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import cleanlab.count
import cleanlab.filter
import numpy as np
import pytest

from clipcifar.core.errors import DataError
from clipcifar.datasets.twins import Twins
from clipcifar.evaluation.names import METHODS
from clipcifar.store.predictions import read_predictions
from clipcifar.studies.label_errors import confident, findings, out_of_sample
from clipcifar.studies.label_errors.confident import (
    confident_class,
    confident_joint,
    disputes,
    label_issues,
    plant,
)
from studies.label_errors import stage
from tests.stages.test_methods import rewrite
from tests.support import study_pages, synthetic
from tests.support.workspace import Workspace

HAND = np.array(
    [
        [0.9, 0.1],  # labelled 0, sure of it
        [0.6, 0.4],
        [0.2, 0.8],  # labelled 0, looks like 1
        [0.3, 0.7],  # labelled 1
        [0.1, 0.9],
    ]
)
LABELS = np.array([0, 0, 0, 1, 1])


def test_a_hand_case() -> None:
    """Thresholds: class 0 (0.9 + 0.6 + 0.2) / 3 = 0.567, class 1 (0.7 + 0.9) / 2 = 0.8."""
    assert confident_class(HAND, LABELS).tolist() == [0, 0, 1, -1, 1]
    joint = confident_joint(np.array([0, 0, 1, -1, 1]), LABELS, num_classes=2)
    assert joint.tolist() == [[2, 1], [0, 2]]  # the one unsure image of label 1 counts with its label
    (found,) = disputes({"a": HAND}, LABELS)
    assert (found.row, found.given, found.suggested, found.agreeing, found.confident) == (2, 0, 1, 1, True)
    assert found.score == pytest.approx(0.6)


def _naive(mean: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The confident joint image by image, scaled to the label counts."""
    num_classes = mean.shape[1]
    thresholds = [mean[labels == j, j].mean() for j in range(num_classes)]
    counted = np.zeros((num_classes, num_classes))
    for row, label in zip(mean, labels, strict=True):
        reached = [j for j in range(num_classes) if row[j] >= thresholds[j]]
        if reached:
            counted[label, max(reached, key=lambda j: row[j])] += 1
    for i in range(num_classes):
        if not counted[i].sum():
            counted[i, i] = 1
        counted[i] *= (labels == i).sum() / counted[i].sum()
    return counted


@pytest.mark.parametrize("seed", range(5))
def test_the_joint_is_that_of_a_loop_over_images(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mean = rng.dirichlet(np.ones(4), 200)
    labels = rng.permutation(np.arange(200) % 4)
    joint = confident_joint(confident_class(mean, labels), labels, num_classes=4)
    assert joint == pytest.approx(_naive(mean, labels))
    assert joint.sum(axis=1) == pytest.approx(np.bincount(labels))


def test_label_issues_by_hand() -> None:
    """Thresholds as above: the third image is confidently 1, and the fourth, though unsure, is no issue."""
    assert label_issues(HAND, LABELS).tolist() == [False, False, True, False, False]
    # Thresholds 0.45 and 0.35. The first reaches 1 alone; the third its own, and 0 is likelier.
    mean = np.array([[0.4, 0.6], [0.5, 0.5], [0.55, 0.45], [0.75, 0.25]])
    assert label_issues(mean, np.array([0, 0, 1, 1])).tolist() == [True, False, True, True]
    # Of the second, 0 is more probable than its label by less than the tolerance.
    tied = np.array([[0.5, 0.5], [0.5000002, 0.4999998], [0.7, 0.3]])
    assert label_issues(tied, np.array([0, 1, 1])).tolist() == [False, False, True]


def _cases() -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Probabilities that know the labels more or less well, coarse ones with ties, and rare classes."""
    cases = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        num_classes, n = int(rng.integers(2, 12)), 300
        shares = rng.dirichlet(np.full(num_classes, 2.0))
        labels = np.append(np.arange(num_classes), rng.choice(num_classes, n - num_classes, p=shares))
        logits = rng.normal(size=(n, num_classes)) + rng.uniform(0, 3) * np.eye(num_classes)[labels]
        mean = np.exp(logits * rng.uniform(0.3, 3))
        mean /= mean.sum(axis=1, keepdims=True)
        if seed % 4 == 0:  # of few values: ties among classes
            mean = np.ceil(mean * 5) / np.ceil(mean * 5).sum(axis=1, keepdims=True)
        cases.append((mean, labels))
    return cases


def test_label_issues_are_cleanlabs() -> None:
    """The count and the images, against cleanlab itself; negative control: neither is trivial."""
    counts, of_joint = [], []
    for mean, labels in _cases():
        issues = label_issues(mean, labels)
        assert issues.sum() == cleanlab.count.num_label_issues(labels, mean)
        theirs = cleanlab.filter.find_label_issues(labels, mean, filter_by="confident_learning", n_jobs=1)
        assert (issues == theirs).all()
        joint = confident_joint(confident_class(mean, labels), labels, num_classes=mean.shape[1])
        counts.append(int(issues.sum()))
        of_joint.append(round(joint.sum() - joint.trace()))
    assert len(set(counts)) > 20
    assert sum(a < b for a, b in zip(counts, of_joint, strict=True)) > 20  # another number than the joint's


def test_the_joint_is_cleanlabs_but_for_its_rounding_and_its_diagonal() -> None:
    """Theirs is in whole images and holds each class on the diagonal once at least."""
    compared = 0
    for mean, labels in _cases():
        confident = confident_class(mean, labels)
        joint = confident_joint(confident, labels, num_classes=mean.shape[1])
        theirs = cleanlab.count.compute_confident_joint(labels, mean)
        several = (mean >= cleanlab.count.get_confident_thresholds(labels, mean)).sum(axis=1) > 1
        if not joint.diagonal().all() or (several & (mean.argmax(axis=1) != confident)).any():
            continue  # the paper's equation 1 and cleanlab differ
        assert np.abs(joint - theirs).max() < 2
        compared += 1
    assert compared > 5


def test_classes_renamed_are_the_same_findings_renamed() -> None:
    rng = np.random.default_rng(0)
    mean, order = rng.dirichlet(np.ones(3), 90), np.array([2, 0, 1])
    labels = np.arange(90) % 3
    joint = confident_joint(confident_class(mean, labels), labels, num_classes=3)
    renamed = confident_joint(
        confident_class(mean[:, np.argsort(order)], order[labels]), order[labels], num_classes=3
    )
    assert renamed[np.ix_(order, order)] == pytest.approx(joint)


def test_a_class_without_images_is_an_error() -> None:
    with pytest.raises(DataError, match="1 class has no image"):
        confident_class(HAND, np.zeros(5, dtype=np.int64))


def test_all_methods_must_dispute_and_the_least_believed_comes_first() -> None:
    agrees = np.tile([[1.0, 0.0]], (5, 1))
    assert [item.row for item in disputes({"a": HAND, "b": agrees}, LABELS)] == []
    a = np.array([[0.4, 0.35, 0.25], [0.1, 0.8, 0.1], [0.1, 0.2, 0.7], [0, 0, 1]])
    b = np.array([[0.3, 0.3, 0.4], [0.2, 0.2, 0.6], [0.0, 0.1, 0.9], [0, 0, 1]])
    found = disputes({"a": a, "b": b}, np.array([1, 0, 1, 2]))
    assert [item.row for item in found] == [2, 1, 0]
    assert [item.score for item in found] == pytest.approx([0.65, 0.35, 0.025])
    assert (found[0].suggested, found[0].agreeing) == (2, 2)
    assert (found[1].suggested, found[1].agreeing) == (1, 1)  # one says 1, the other 2; 1 has the higher mean
    assert (found[1].p_given, found[1].p_suggested) == pytest.approx((0.15, 0.5))


def test_another_class_is_suggested_where_the_methods_dispute_the_label_each_for_its_own() -> None:
    """Neither says 0, yet 0 has the highest mean: what is suggested is the best of the others."""
    a = np.array([[0.45, 0.5, 0.05], [0, 1, 0], [0, 0, 1]])
    b = np.array([[0.45, 0.07, 0.48], [0, 1, 0], [0, 0, 1]])
    (found,) = disputes({"a": a, "b": b}, np.arange(3))
    assert (found.row, found.given, found.suggested, found.agreeing) == (0, 0, 1, 1)
    assert (found.p_given, found.p_suggested) == pytest.approx((0.45, 0.285))
    assert found.score == pytest.approx(-0.165)


def test_a_disputed_image_of_no_class_for_sure_is_not_confidently_another() -> None:
    """Thresholds: class 0 (0.9 + 0.6 + 0.2 + 0.45) / 4 = 0.5375, class 1 0.8; the last reaches neither."""
    mean, labels = np.vstack([HAND, [[0.45, 0.55]]]), np.append(LABELS, 0)
    assert confident_class(mean, labels).tolist() == [0, 0, 1, -1, 1, -1]
    found = disputes({"a": mean}, labels)
    assert [(item.row, item.confident) for item in found] == [(2, True), (5, False)]


def test_planted_errors_are_counted_anywhere_and_among_as_many_first_ones() -> None:
    ranked = [confident.Dispute(row, 0, 1, 1, 0.1, 0.9, True) for row in (5, 1, 7, 2)]
    found = findings.of_planted(ranked, np.array([1, 2, 9]))  # second, last, and not in it
    assert (found.n, found.disputed, found.first) == (3, 2, 1)


def test_folds_are_even_within_a_class_and_do_not_depend_on_the_order() -> None:
    labels = np.arange(100) % 3
    ids = [f"train/{i}" for i in range(100)]
    fold = out_of_sample.folds(labels, ids, num_folds=4, seed=0)
    for label in range(3):
        counts = np.bincount(fold[labels == label], minlength=4)
        assert counts.max() - counts.min() <= 1
    shuffled = np.random.default_rng(0).permutation(100)
    again = out_of_sample.folds(labels[shuffled], [ids[i] for i in shuffled], num_folds=4, seed=0)
    assert (again == fold[shuffled]).all()
    assert (out_of_sample.folds(labels, ids, num_folds=4, seed=1) != fold).any()


OPTIONS: dict[str, Any] = {"c": 1.0, "max_iter": 500, "class_names": synthetic.CLASSES}


def test_the_label_of_an_image_does_not_reach_its_own_scores() -> None:
    """Flipping the labels of one fold leaves that fold's scores as they are, and changes the others'."""
    rows, labels = synthetic.task(150)
    fold = np.arange(150) // 3 % 5
    scores, failed = out_of_sample.probe_scores(rows, labels, fold, **OPTIONS)
    other = np.where(fold == 2, (labels + 1) % 3, labels)
    again, _ = out_of_sample.probe_scores(rows, other, fold, **OPTIONS)
    assert failed == 0
    assert (again[fold == 2] == scores[fold == 2]).all()
    assert not np.allclose(again[fold != 2], scores[fold != 2])


def _findings(noise: float, share: float) -> tuple[findings.SplitFindings, np.ndarray[Any, Any]]:
    images = synthetic.image_embeddings(n_train=600, noise=noise)
    labels, flipped = images.train.labels, np.zeros(0, dtype=np.int64)
    if share:
        labels, flipped = plant(labels, share=share, num_classes=3, seed=3)
    prompted = 20 * images.train.embeddings @ synthetic.prototypes().T
    (found,), _ = out_of_sample.opinions(
        images.train,
        [labels],
        prompted,
        temperatures={"zero_shot": 1.0, "linear_probe": 1.0},
        num_folds=5,
        seed=0,
        **OPTIONS,
    )
    split = type(images.train)(images.train.embeddings, labels, images.train.ids)
    return findings.of_split(found, split, num_classes=3), flipped


def test_flipped_labels_lead_the_ranking_and_are_counted() -> None:
    found, flipped = _findings(0.7, 0.05)
    assert found.issues[flipped].sum() >= 28
    assert found.issues.sum() == pytest.approx(30, abs=6)
    (_, train, *_, differ, _) = findings.verdicts(
        findings.Findings({"train": found}, findings.Planted(1, 1, 1), Twins([]), n_not_converged=0)
    )
    assert f"cleanlab's num_label_issues counts {found.issues.sum()} (" in train
    assert differ == findings.COUNTS
    rows = findings.class_rows({"train": found}, class_names=["cat", "dog", "eel"])
    assert sum(row["label_issues"] for row in rows) == found.issues.sum()
    planted = findings.of_planted(found.disputes, flipped)
    assert planted.n == 30
    assert planted.disputed >= 29  # recall
    assert planted.first >= 28  # precision among the first 30
    assert found.estimated == pytest.approx(30, abs=6)
    assert {item.row for item in found.disputes[:20]} <= set(flipped.tolist())


def test_clean_labels_are_hardly_disputed() -> None:
    """Negative control: nothing to find, in easy data and, but for real confusions, in hard data."""
    found, _ = _findings(0.7, 0.0)
    assert len(found.disputes) <= 3
    assert found.estimated <= 6


def test_random_labels_are_not_taken_for_signal() -> None:
    """Negative control: where labels mean nothing, two thirds are wrong, and so it says."""
    found, _ = _findings(0.7, 0.5)
    shares = np.array([len(found.disputes), found.estimated]) / len(found.labels)
    assert ((shares > 0.35) & (shares < 0.75)).all()


def test_planted_errors_are_the_share_asked_for_and_seeded() -> None:
    labels = np.arange(1000) % 10
    flipped, rows = plant(labels, share=0.03, num_classes=10, seed=0)
    assert len(rows) == 30
    assert np.flatnonzero(flipped != labels).tolist() == rows.tolist()
    again, _ = plant(labels, share=0.03, num_classes=10, seed=0)
    assert (again == flipped).all()
    assert (plant(labels, share=0.03, num_classes=10, seed=1)[0] != flipped).any()
    moved = (flipped[rows] - labels[rows]) % 10
    assert len(set(moved.tolist())) > 4  # every other class


def test_no_dispute_leaves_no_ranking(tmp_path: Path) -> None:
    split = findings.SplitFindings(["x"] * 5, LABELS, ["a"], [], np.diag([3.0, 2.0]), LABELS > 1)
    planted = findings.Planted(1, 1, 0)
    found = findings.Findings({"train": split}, planted, Twins([]), n_not_converged=0)
    findings.write(tmp_path, found, class_names=["cat", "dog"])
    assert not (tmp_path / "ranking.csv").exists()
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert (written["train"]["n_disputed"], written["train"]["estimated"]) == (0, 0.0)
    assert (written["train"]["n_label_issues"], written["train"]["label_issues"]) == (0, 0.0)
    assert written["planted"] == {"n": 1, "disputed": 1.0, "first": 0.0}


@pytest.mark.parametrize(("max_iter", "failed"), [(1, 6), (500, 0)])
def test_fits_that_did_not_converge_are_counted_and_said_aloud(
    max_iter: int, failed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three folds, once with the labels as they are and once with flipped ones."""
    study_pages.write_run(tmp_path, class_names=["cat", "dog", "eel"])
    probe = {**study_pages.SETTINGS["linear_probe"], "max_iter": max_iter}
    names = ("images", "texts", "heads/linear_probe.h5", "predictions", "dataset.h5", "out", "page.html")
    capsys.readouterr()
    stage.main(
        {**study_pages.SETTINGS, "linear_probe": probe}, tmp_path, *(tmp_path / name for name in names)
    )
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["n_not_converged"] == failed
    line = "Not converged in 1 iterations: 6 fits, used as they are. Raise linear_probe.max_iter."
    assert (line in capsys.readouterr().out.splitlines()) == bool(failed)
    assert (line in (tmp_path / "page.html").read_text()) == bool(failed)


def test_a_head_of_other_embeddings_chooses_no_c(tmp_path: Path) -> None:
    study_pages.write_run(tmp_path, class_names=["cat", "dog", "eel"])
    inputs = ("images", "texts", "heads/linear_probe.h5", "predictions", "dataset.h5", "out", "page.html")
    paths = [tmp_path, *(tmp_path / name for name in inputs)]
    rewrite(tmp_path / "heads" / "linear_probe.h5", "head", images_fingerprint="ab" * 32)
    with pytest.raises(DataError, match="trained on other embeddings") as caught:
        stage.main(study_pages.SETTINGS, *paths)
    assert (caught.value.exit_code, caught.value.where) == (3, str(paths[3]))
    shutil.copyfile(tmp_path / "heads" / "mlp_probe.h5", paths[3])  # of these embeddings, and without a C
    with pytest.raises(DataError, match="not a head of linear_probe"):
        stage.main(study_pages.SETTINGS, *paths)
    assert not (tmp_path / "out").exists()


@pytest.mark.pipeline
@pytest.mark.nightly  # two studies by day: few_shot and finetune
def test_the_study_runs_aside_finds_the_label_that_was_swapped_and_runs_once(workspace: Workspace) -> None:
    folder = workspace.folder
    workspace.repro()
    assert "label_errors" not in workspace.executed()
    workspace.start_study("label_errors")
    assert workspace.executed() == ["label_errors"]
    out = folder / "data/studies/label_errors"
    first = {path.name: path.read_bytes() for path in sorted(out.iterdir())}
    assert set(first) == {"metrics.json", "per_class.csv", "ranking.csv"}
    page = workspace.read("report/label_errors.html").decode()
    assert "Label errors" in page
    written = json.loads(first["metrics.json"])
    rows = list(csv.DictReader(first["ranking.csv"].decode().splitlines()))
    assert sum(row["split"] == "test" for row in rows) == written["test"]["n_disputed"]
    shown = sum(min(24, written[split]["n_disputed"]) for split in ("train", "test"))
    assert page.count("<img ") == shown > 0
    # recomputed: the test images that every stored method gets wrong
    said = [read_predictions(folder / f"data/predictions/{name}.h5") for name in METHODS]
    wrong = np.all([item.predicted != item.labels for item in said], axis=0)
    ids = {said[0].ids[row] for row in np.flatnonzero(wrong)}
    assert {row["id"] for row in rows if row["split"] == "test"} == ids
    workspace.repro("studies/label_errors/dvc.yaml")
    assert workspace.executed() == []
    workspace.edit(lambda settings: settings["label_errors"].update(seed=1))
    workspace.repro("studies/label_errors/dvc.yaml")
    assert workspace.executed() == ["label_errors"]
    assert json.loads((out / "metrics.json").read_text())["test"] == written["test"]  # test has no folds


def test_probabilities_are_softened_by_each_methods_temperature() -> None:
    scores = {"a": np.array([[2.0, 0.0]], dtype=np.float32)}
    cold, warm = (confident.probabilities(scores, {"a": t})["a"] for t in (1.0, 2.0))
    assert cold[0, 0] == pytest.approx(1 / (1 + np.exp(-2)))
    assert warm[0, 0] == pytest.approx(1 / (1 + np.exp(-1)))
