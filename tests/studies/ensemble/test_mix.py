"""The ensemble study: mixing, choosing, judging, its stage on made-up embeddings, the whole by a real DVC."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from clipcifar.core.errors import DataError
from clipcifar.evaluation import compare, signs
from clipcifar.evaluation.calibration import log_softmax
from clipcifar.evaluation.metrics import accuracy
from clipcifar.methods import linear_probe, zero_shot
from clipcifar.methods.linear import Linear
from clipcifar.store import container, heads, splits
from clipcifar.store.embeddings import read_texts
from clipcifar.store.images import read_images
from clipcifar.store.predictions import read_predictions
from clipcifar.studies.ensemble import mix as ensemble, page as ensemble_page
from clipcifar.studies.ensemble.findings import measure
from clipcifar.studies.ensemble.mix import Pair, Side, choose, interpolated, mixed_logits, mixed_probabilities
from clipcifar.studies.ensemble.sides import gather
from stages import linear_probe as linear_probe_stage, mlp_probe, projection
from studies.ensemble import stage
from tests.stages.test_methods import rewrite
from tests.support.made import NAMES, write_embeddings
from tests.support.synthetic import prototypes, task
from tests.support.workspace import Workspace

_TRAINING = {
    "hidden": 8,
    "dropout": 0.1,
    "learning_rate": 0.01,
    "weight_decay": 0.0,
    "batch_size": 64,
    "max_epochs": 3,
    "patience": 2,
    "seeds": [0, 1],
    "device": "cpu",
}
SETTINGS: dict[str, Any] = {
    "model": {"name": "tiny", "pretrained": None, "path": "data/none", "seed": 0, "allow_pickle": False},
    "prompts": {"active": "photo", "max_sentences": 50_000, "sets": {}},
    "linear_probe": {"c_grid": [0.1, 1, 10], "max_iter": 500},
    "mlp_probe": _TRAINING,
    "projection": _TRAINING,
    "ensemble": {"steps": 10},
}
MIXES = {
    "linear_probe": ("weights", "logits", "probabilities"),
    "mlp_probe": ("logits", "probabilities"),
    "projection": ("logits", "probabilities"),
}


def train_heads(folder: Path) -> None:
    """What the default pipeline leaves: a head and predictions of every trained method."""
    images, texts, split = folder / "images", folder / "texts", folder / "splits.h5"
    for method, main, inputs in (
        ("linear_probe", linear_probe_stage.main, (images, split)),
        ("mlp_probe", mlp_probe.main, (images, split)),
        ("projection", projection.main, (images, texts, split)),
    ):
        outputs = (folder / "heads" / f"{method}.h5", folder / "predictions" / f"{method}.h5")
        numbers = (folder / f"{method}.json", folder / "details" / f"{method}.json")
        main(SETTINGS, *inputs, *outputs, *numbers, folder / "plots" / method)


def run(folder: Path) -> Path:
    inputs = (folder / "images", folder / "texts", folder / "splits.h5", folder / "heads")
    stage.main(SETTINGS, *inputs, folder / "out", folder / "ensemble.html")
    return folder / "out"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ensemble")
    write_embeddings(folder)
    train_heads(folder)
    run(folder)
    return folder


def metrics_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out" / "metrics.json").read_text())
    return found


def scores(seed: int, n: int = 40) -> np.ndarray[Any, np.dtype[np.float32]]:
    return (3 * np.random.default_rng(seed).standard_normal((n, 3))).astype(np.float32)


def test_probabilities_are_averaged_by_hand() -> None:
    a, b = np.log(np.float32([[0.5, 0.5]])), np.log(np.float32([[0.1, 0.9]])) + 7
    np.testing.assert_allclose(np.exp(mixed_probabilities(a, b, 0.25)), [[0.4, 0.6]], atol=1e-6)


@given(st.floats(0, 1), st.floats(-200, 200))
def test_averaged_probabilities_are_a_distribution_whatever_the_logits(
    coefficient: float, shift: float
) -> None:
    found = mixed_probabilities(scores(0) * 100, scores(1) + np.float32(shift), coefficient)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.exp(found.astype(np.float64)).sum(axis=1), 1, atol=1e-4)


@pytest.mark.parametrize("how", ["weights", "logits", "probabilities"])
def test_at_its_ends_a_mix_says_what_they_say(how: ensemble.How) -> None:
    pair = Pair("m", how, Side(scores(0), scores(1), 2.0), Side(scores(2), scores(3), 0.5))
    for coefficient, side in ((0.0, pair.zero_shot), (1.0, pair.trained)):
        np.testing.assert_array_equal(pair.val(coefficient).argmax(axis=1), side.val.argmax(axis=1))
        np.testing.assert_array_equal(pair.test(coefficient).argmax(axis=1), side.test.argmax(axis=1))


def test_interpolated_weights_give_interpolated_logits() -> None:
    rows, labels = task(60)
    weights, scale = prototypes(), 20.0
    probe, _ = linear_probe.fit(rows, labels, c=1.0, max_iter=500, class_names=NAMES)
    linear = interpolated(weights, probe, logit_scale=scale, coefficient=0.3)
    of_zero_shot = zero_shot.logits(rows, weights, logit_scale=scale)
    expected = mixed_logits(of_zero_shot, probe.scores(rows), 0.3)
    np.testing.assert_allclose(linear.scores(rows), expected, atol=1e-4)
    assert np.abs(expected - of_zero_shot).max() > 1


def test_logits_after_temperature_are_the_weights_family_at_another_pace() -> None:
    zero, trained = Side(scores(0), scores(1), 2.0), Side(scores(2), scores(3), 0.5)
    logits, weights = Pair("m", "logits", zero, trained), Pair("m", "weights", zero, trained)
    coefficient = 0.3
    same = coefficient / 0.5 / (coefficient / 0.5 + (1 - coefficient) / 2.0)
    np.testing.assert_array_equal(logits.test(coefficient).argmax(axis=1), weights.test(same).argmax(axis=1))
    probabilities = Pair("m", "probabilities", zero, trained)
    assert (probabilities.test(0.5).argmax(axis=1) != logits.test(0.5).argmax(axis=1)).any()


def test_two_that_err_on_different_images_are_mixed_and_two_of_one_kind_are_not() -> None:
    """Each side knows one half of the images; mixed they know both."""
    labels = np.arange(60) % 3
    sure, blank = 4 * np.eye(3, dtype=np.float32)[labels], 0.5 * scores(5, 60)
    half = np.arange(60)[:, None] < 30
    a, b = np.where(half, sure, blank), np.where(half, blank, sure)
    found = choose(Pair("m", "logits", Side(a, a, 1.0), Side(b, b, 1.0)), labels, steps=10)
    assert 0 < found.coefficient < 1
    assert max(of_val.accuracy for _, of_val in found.curve) > max(accuracy(a, labels), accuracy(b, labels))
    alone = choose(Pair("m", "logits", Side(sure, sure, 1.0), Side(blank, blank, 1.0)), labels, steps=10)
    assert alone.coefficient == 0
    assert [one for one, _ in alone.curve] == pytest.approx([i / 10 for i in range(11)])


def test_the_choice_is_by_val_alone() -> None:
    labels = np.arange(40) % 3
    sides = [Side(scores(i), scores(i + 2), 1.0) for i in range(2)]
    other = [Side(side.val, scores(9), 1.0) for side in sides]
    assert choose(Pair("m", "logits", *sides), labels, steps=5) == choose(
        Pair("m", "logits", *other), labels, steps=5
    )


def test_test_labels_choose_nothing(done: Path, tmp_path: Path) -> None:
    write_embeddings(tmp_path, permute_test_labels=True)
    train_heads(tmp_path)
    run(tmp_path)
    ours, others = metrics_of(done), metrics_of(tmp_path)
    for method, hows in MIXES.items():
        for how in hows:
            assert ours[method][how]["selected"] == others[method][how]["selected"]
            temperatures = {found[method][how]["calibrated"]["temperature"] for found in (ours, others)}
            assert len(temperatures) == 1
            assert others[method][how]["accuracy"] < 0.55 < ours[method][how]["accuracy"]
    first, second = (heads.read(folder / "out" / "interpolated.h5")[0] for folder in (done, tmp_path))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_two_runs_give_the_same_bytes(done: Path, tmp_path: Path) -> None:
    write_embeddings(tmp_path)
    train_heads(tmp_path)
    run(tmp_path)
    for name in ("metrics.json", "mixing.csv", "interpolated.h5", "predictions.h5"):
        assert (tmp_path / "out" / name).read_bytes() == (done / "out" / name).read_bytes(), name
    assert (tmp_path / "ensemble.html").read_bytes() == (done / "ensemble.html").read_bytes()


def test_the_stored_heads_score_test_as_their_own_stages_did(done: Path) -> None:
    images, texts = read_images(done / "images"), read_texts(done / "texts" / "photo.h5")
    weights, of_texts = zero_shot.classifier(texts), texts.attributes["fingerprint"]
    rows = splits.read_splits(done / "splits.h5", images.train.ids, dataset_digest="1")
    options: dict[str, Any] = {"heads_folder": done / "heads", "texts_fingerprint": of_texts}
    found = gather(images, rows, weights, **options, max_iter=500)
    for method, side in found.trained.items():
        stored = read_predictions(done / "predictions" / f"{method}.h5")
        np.testing.assert_allclose(side.test, stored.scores, atol=1e-4)
        # and on val they agree with what those stages chose their temperature by
        assert side.temperature == pytest.approx(float(stored.attributes["temperature"]), rel=2e-3)


def test_the_probe_that_chooses_has_not_learnt_val(done: Path) -> None:
    """On val the refit looks better than it is."""
    images, texts = read_images(done / "images"), read_texts(done / "texts" / "photo.h5")
    rows = splits.read_splits(done / "splits.h5", images.train.ids, dataset_digest="1")
    found = gather(
        images,
        rows,
        zero_shot.classifier(texts),
        heads_folder=done / "heads",
        texts_fingerprint=texts.attributes["fingerprint"],
        max_iter=500,
    )
    val, _ = images.train.part(rows.val)
    arrays, attributes = heads.read(done / "heads" / "linear_probe.h5")
    refit, c = Linear(arrays["coefficients"], arrays["intercepts"]), float(attributes["c"])
    alone, _ = linear_probe.fit(*images.train.part(rows.train), c=c, max_iter=500, class_names=NAMES)
    np.testing.assert_allclose(found.trained["linear_probe"].val, alone.scores(val), atol=1e-4)
    assert np.abs(alone.scores(val) - refit.scores(val)).max() > 0.05
    np.testing.assert_array_equal(found.probe.coefficients, refit.coefficients)


def test_a_fit_that_did_not_converge_is_counted_and_said_aloud(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert metrics_of(done)["n_not_converged"] == 0
    assert "Not converged" not in (done / "ensemble.html").read_text()
    settings = {**SETTINGS, "linear_probe": {**SETTINGS["linear_probe"], "max_iter": 1}}
    inputs = (done / name for name in ("images", "texts", "splits.h5", "heads"))
    capsys.readouterr()
    stage.main(settings, *inputs, tmp_path / "out", tmp_path / "page.html")
    assert metrics_of(tmp_path)["n_not_converged"] == 1
    line = "Not converged in 1 iterations: 1 fit, used as it is. Raise linear_probe.max_iter."
    assert capsys.readouterr().out.splitlines()[0] == line
    assert line in (tmp_path / "page.html").read_text()


def test_the_numbers_recompute_from_the_stored_predictions(done: Path) -> None:
    file = container.read(done / "out" / "predictions.h5", kind="ensemble predictions").arrays
    images = read_images(done / "images")
    weights = zero_shot.classifier(read_texts(done / "texts" / "photo.h5"))
    ends = {"zero_shot": zero_shot.logits(images.test.embeddings, weights, logit_scale=20.0).argmax(axis=1)}
    for method in MIXES:
        ends[method] = read_predictions(done / "predictions" / f"{method}.h5").predicted
    found, p_values, stored = metrics_of(done), [], []
    for method, hows in MIXES.items():
        for how in hows:
            right = file[f"{method}/{how}"].argmax(axis=1) == file["labels"]
            one = found[method][how]
            assert one["n_correct"] == int(right.sum())
            for key, end in (("vs_zero_shot", "zero_shot"), ("vs_trained", method)):
                paired = compare.paired(ends[end] == file["labels"], right)
                assert one[key]["difference"] == pytest.approx(paired.difference, abs=1e-5)
                p_values.append(paired.p_value)
                stored.append(one[key]["p_holm"])
    assert stored == pytest.approx(signs.holm(p_values), abs=1e-5)
    assert found["mlp_probe"]["accuracy"] == pytest.approx(
        (ends["mlp_probe"] == file["labels"]).mean(), abs=1e-5
    )


def test_the_interpolated_head_is_the_mix_of_weights(done: Path) -> None:
    arrays, attributes = heads.read(done / "out" / "interpolated.h5")
    images = read_images(done / "images")
    found = Linear(arrays["coefficients"], arrays["intercepts"]).scores(images.test.embeddings)
    file = container.read(done / "out" / "predictions.h5", kind="ensemble predictions").arrays
    np.testing.assert_allclose(found, file["linear_probe/weights"], atol=1e-3)
    assert attributes["coefficient"] == metrics_of(done)["linear_probe"]["weights"]["selected"]["coefficient"]


def test_the_curve_goes_from_zero_shot_to_the_trained_method_and_marks_one_choice(done: Path) -> None:
    rows = list(csv.DictReader((done / "out" / "mixing.csv").read_text().splitlines()))
    found = metrics_of(done)
    for method, title in (("linear_probe", "linear probe"), ("projection", "projection heads")):
        curve = [row for row in rows if row["method"] == f"{title}, probabilities"]
        assert [float(row["coefficient"]) for row in curve] == pytest.approx([i / 10 for i in range(11)])
        assert float(curve[0]["test_accuracy"]) == pytest.approx(found["zero_shot"]["accuracy"], abs=1e-5)
        assert float(curve[-1]["test_accuracy"]) == pytest.approx(found[method]["accuracy"], abs=1e-5)
        (chosen,) = (row for row in curve if row["chosen"] == "True")
        assert float(chosen["coefficient"]) == found[method]["probabilities"]["selected"]["coefficient"]
        assert float(chosen["val_accuracy"]) == max(float(row["val_accuracy"]) for row in curve)


def test_a_mix_that_is_one_of_its_ends_differs_from_it_on_no_image() -> None:
    labels = np.arange(40) % 3
    pair = Pair("mlp_probe", "logits", Side(scores(0), scores(1), 1.0), Side(scores(2), scores(3), 1.0))
    choice = ensemble.Choice(1.0, 1.0, [])
    (found,) = measure([pair], [choice], labels, class_names=NAMES)
    assert (found.vs_trained.only_a, found.vs_trained.only_b, found.p_trained) == (0, 0, 1.0)
    assert found.vs_zero_shot.only_a + found.vs_zero_shot.only_b > 0
    np.testing.assert_allclose(log_softmax(found.scores), log_softmax(scores(3)), atol=1e-5)


@pytest.mark.parametrize("method", ["linear_probe", "mlp_probe", "projection"])
def test_heads_of_other_embeddings_are_refused(method: str, done: Path, tmp_path: Path) -> None:
    write_embeddings(tmp_path)
    (tmp_path / "heads").mkdir()
    for path in (done / "heads").iterdir():
        (tmp_path / "heads" / path.name).write_bytes(path.read_bytes())
    rewrite(tmp_path / "heads" / f"{method}.h5", "head", images_fingerprint="0" * 64)
    with pytest.raises(DataError, match="other embeddings") as caught:
        run(tmp_path)
    assert caught.value.where.endswith(f"{method}.h5")
    assert not (tmp_path / "out").exists()


def test_heads_that_began_with_another_prompt_set_are_refused(done: Path) -> None:
    inputs = (done / "images", done / "texts", done / "splits.h5", done / "heads")
    other = {**SETTINGS, "prompts": {"active": "other", "max_sentences": 50_000, "sets": {}}}
    with pytest.raises(DataError, match="another prompt set"):
        stage.main(other, *inputs, done / "none", done / "none.html")


def test_the_page_shows_no_p_value_as_nought() -> None:
    labels = np.arange(40) % 3
    pair = Pair("mlp_probe", "logits", Side(scores(0), scores(1), 1.0), Side(scores(2), scores(3), 1.0))
    (found,) = measure([pair], [ensemble.Choice(1.0, 1.0, [])], labels, class_names=NAMES)
    sure = replace(found, p_zero_shot=1e-9, p_trained=0.0004)
    ((*_, of_zero_shot, _, of_trained, _),) = ensemble_page._results([sure], "photo", 40, 40).tables[0].rows
    assert (of_zero_shot, of_trained) == ("< 0.0001", "0.0004")


def test_the_page_says_every_verdict_and_marks_the_test_curves(done: Path) -> None:
    page = (done / "ensemble.html").read_text()
    for title in ("Linear probe, weights", "MLP probe, logits", "Projection heads, probabilities"):
        assert f"<li>{title}: val chose" in page
    covers = "P values of MLP probe and projection heads cover other test images, not retraining."
    assert page.count(covers) == 1
    assert page.count("For showing only: nothing was chosen by it.") == 3
    assert page.count("a 95 % interval of ±") == 6
    assert "<script" not in page


@pytest.mark.pipeline
@pytest.mark.nightly  # two studies by day: few_shot and finetune
def test_the_study_by_a_real_dvc(workspace: Workspace) -> None:
    workspace.start_study("ensemble")
    assert workspace.executed() == ["ensemble"]
    found = json.loads(workspace.read("data/studies/ensemble/metrics.json"))
    for method in ("zero_shot", *MIXES):
        assert found[method]["accuracy"] == json.loads(workspace.read(f"metrics/{method}.json"))["accuracy"]
    workspace.repro("studies/ensemble/dvc.yaml")
    assert workspace.executed() == []
    workspace.edit(lambda settings: settings.update(ensemble={"steps": 4}))
    workspace.repro()
    assert workspace.executed() == []  # it is off the default path, and its knobs are its own
    workspace.commit("study")
    workspace.repro("studies/ensemble/dvc.yaml")
    assert workspace.executed() == ["ensemble"]
    rows = list(csv.DictReader(workspace.read("data/studies/ensemble/mixing.csv").decode().splitlines()))
    assert len(rows) == 7 * 5
    plot = ["data/studies/ensemble/mixing.csv", "-x", "coefficient", "-y", "val_accuracy"]
    workspace.command("dvc", "plots", "show", *plot, "--template", "methods")
    drawn = (workspace.folder / "dvc_plots" / "index.html").read_text()
    assert '"method": "MLP probe, logits"' in drawn
