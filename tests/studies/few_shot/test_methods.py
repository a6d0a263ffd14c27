"""The few-shot study: its draws, its scores, its stage on made-up embeddings, and the whole by a real DVC."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipcifar.core import params
from clipcifar.core.errors import ConfigError, DataError
from clipcifar.evaluation.compare import paired
from clipcifar.evaluation.crossed import Crossed, Spread, crossed
from clipcifar.evaluation.selection import Standing
from clipcifar.evaluation.signs import holm
from clipcifar.methods.linear import of_zero_shot
from clipcifar.methods.logistic import Problem
from clipcifar.methods.zero_shot import classifier
from clipcifar.store import container, heads, splits
from clipcifar.store.embeddings import read_texts
from clipcifar.store.images import read_images
from clipcifar.store.predictions import inherited
from clipcifar.studies.few_shot import draws
from clipcifar.studies.few_shot.draws import ALL, Draw, Study
from clipcifar.studies.few_shot.findings import measure, verdicts
from clipcifar.studies.few_shot.methods import METHODS, MIXING, Outcome
from clipcifar.studies.few_shot.params import FewShotParams
from clipcifar.studies.few_shot.points import Findings, Point
from clipcifar.studies.few_shot.sentences import first_better
from studies.few_shot import stage
from tests.support.made import NAMES, write_embeddings
from tests.support.workspace import Workspace

SMALL: dict[str, Any] = {
    "shots": [1, 4],
    "seeds": [0, 1, 2],
    "val_per_class": 2,
    "c_grid": [0.1, 10],
    "max_iter": 500,
    "text_weights": [0, 1],
    "sharpness": [1, 10],
    "cache_weights": [3, 30],
    "epochs": 2,
    "learning_rate": 0.001,
    "batch_size": 64,
    "finetuned_per_class": 8,
    "neighbours": [1, 3, 100],
    "gda_weights": [0.01, 1],
    "clap_length": 10,
}
SETTINGS: dict[str, Any] = {
    "model": {"name": "tiny", "pretrained": None, "path": "data/none", "seed": 0, "allow_pickle": False},
    "prompts": {"active": "photo", "max_sentences": 50_000, "sets": {}},
    "few_shot": SMALL,
}
FILES = ("choices.csv", "curves.csv", "metrics.json", "predictions.h5")


def write_weighted(folder: Path, path: Path) -> None:
    """The file of weighted prompts, which here are those of the set `other`."""
    images, texts = read_images(folder / "images"), read_texts(folder / "texts" / "other.h5")
    head = of_zero_shot(classifier(texts), logit_scale=images.logit_scale)
    heads.write(path, "prompt_weighting", head._asdict(), inherited(images.attributes))


def run(folder: Path, settings: dict[str, Any] = SETTINGS) -> Path:
    write_weighted(folder, folder / "weighted.h5")
    inputs = (folder / name for name in ("images", "texts", "weighted.h5", "splits.h5"))
    stage.main(settings, *inputs, folder / "out", folder / "few_shot.html")
    return folder / "out"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few-shot")
    write_embeddings(folder)
    run(folder)
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def with_params(**changes: Any) -> dict[str, Any]:
    return {**SETTINGS, "few_shot": {**SMALL, **changes}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": [0]}, "one draw"),
        ({"seeds": [0, 0]}, "twice in seeds"),
        ({"shots": [1, 1]}, "twice in shots"),
        ({"cache_weights": [0]}, "above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        params.read(with_params(**changes), "few_shot", FewShotParams)


def test_test_labels_choose_nothing_and_predict_nothing(done: Path, tmp_path: Path) -> None:
    write_embeddings(tmp_path, permute_test_labels=True)
    out = run(tmp_path)
    assert (out / "choices.csv").read_bytes() == (done / "out" / "choices.csv").read_bytes()
    kind = "few-shot predictions"
    ours, others = (container.read(f / "predictions.h5", kind=kind).arrays for f in (done / "out", out))
    assert all(np.array_equal(ours[name], others[name]) for name in ours if name != "labels")
    metrics = [json.loads((f / "metrics.json").read_text()) for f in (done / "out", out)]
    assert metrics[1]["zero_shot"]["accuracy"] < 0.55 < metrics[0]["zero_shot"]["accuracy"]


def test_two_runs_give_the_same_bytes(done: Path, tmp_path: Path) -> None:
    write_embeddings(tmp_path)
    out = run(tmp_path)
    for name in FILES:
        assert (out / name).read_bytes() == (done / "out" / name).read_bytes(), name
    assert (tmp_path / "few_shot.html").read_bytes() == (done / "few_shot.html").read_bytes()


def test_the_numbers_recompute_from_the_stored_predictions(done: Path) -> None:
    file = container.read(done / "out" / "predictions.h5", kind="few-shot predictions").arrays
    metrics = json.loads((done / "out" / "metrics.json").read_text())
    right = file["zero_shot"] == file["labels"]
    assert metrics["zero_shot"]["accuracy"] == pytest.approx(right.mean(), abs=1e-5)
    weighted = file["prompt_weighting"] == file["labels"]
    assert metrics["prompt_weighting"]["accuracy"] == pytest.approx(weighted.mean(), abs=1e-5)
    of_weighted = metrics["prompt_weighting"]["vs_zero_shot"]
    alone = paired(right, weighted)
    for key in ("difference", "low", "high"):
        assert of_weighted[key] == pytest.approx(getattr(alone, key), abs=1e-5)
    p_values, stored = [alone.p_value], [of_weighted["p_holm"]]
    for key, shots in (("k1", "1"), ("k4", "4"), ("all", "all")):
        for method in METHODS:
            correct = file[f"{shots}/{method}"] == file["labels"]
            found, of = metrics[key][method], correct.mean(axis=1)
            assert found["accuracy_mean"] == pytest.approx(of.mean(), abs=1e-5)
            if len(of) > 1:
                assert found["accuracy_std"] == pytest.approx(of.std(ddof=1), abs=1e-5)
            many = len(of) > 1
            versus = crossed(correct.astype(float) - right) if many else paired(right, correct[0])
            assert found["vs_zero_shot"]["difference"] == pytest.approx(versus.difference, abs=1e-5)
            p_values.append(versus.p_value)
            stored.append(found["vs_zero_shot"]["p_holm"])
    assert stored == pytest.approx(holm(p_values), abs=1e-5)
    assert (metrics["k4"]["n_train"], metrics["k4"]["n_val"], metrics["k4"]["n_draws"]) == (12, 6, 3)
    assert (metrics["k1"]["n_val"], metrics["all"]["n_draws"]) == (3, 1)  # min(k, 2) of three classes


def leaves(value: Any) -> list[Any]:
    return [leaf for item in value.values() for leaf in leaves(item)] if isinstance(value, dict) else [value]


def test_fits_that_were_left_out_are_counted_and_said_aloud(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert json.loads((done / "out" / "metrics.json").read_text())["n_not_converged"] == 0
    write_embeddings(tmp_path)
    capsys.readouterr()
    few = {**SMALL, "c_grid": [0.0001, 1000000], "max_iter": 4, "clap_length": 0.01}
    out = run(tmp_path, {**SETTINGS, "few_shot": few})
    choices = rows(out / "choices.csv")
    failed = sum(float(row["n_not_converged"] or 0) for row in choices)
    of_clap = sum(float(row["n_not_converged"]) for row in choices if row["method"] == "clap")
    assert failed > of_clap > 1
    assert json.loads((out / "metrics.json").read_text())["n_not_converged"] == failed
    lines = [
        f"Not converged in 4 iterations and left out: {failed - of_clap:.0f} fits.",
        f"Not converged in 4 iterations and used as they are, of CLAP: {of_clap:.0f} fits.",
    ]
    assert capsys.readouterr().out.splitlines()[:2] == lines
    assert all(line in (tmp_path / "few_shot.html").read_text() for line in lines)


def test_metrics_are_nested_numbers_without_the_prompt_sets_name(done: Path) -> None:
    found = json.loads((done / "out" / "metrics.json").read_text())
    assert all(type(leaf) in (int, float) and np.isfinite(leaf) for leaf in leaves(found))
    assert "photo" not in json.dumps(found)


def test_the_curves_hold_every_method_and_zero_shot_at_every_k(done: Path) -> None:
    found = rows(done / "out" / "curves.csv")
    assert {(row["shots"], row["method"]) for row in found} == {
        (shots, method)
        for shots in ("1", "4", "all")
        for method in (*METHODS, "zero_shot", "prompt_weighting")
    }
    assert len(found) == 30
    (four,) = {row["log2_images_per_class"] for row in found if row["shots"] == "4"}
    assert float(four) == 2


def test_with_many_images_and_noisy_text_the_methods_learn(done: Path) -> None:
    """Sanity of the whole: more images help, and all methods beat the text that was made wrong by noise."""
    metrics = json.loads((done / "out" / "metrics.json").read_text())
    for method in METHODS:
        assert metrics["all"][method]["accuracy_mean"] > metrics["k1"][method]["accuracy_mean"] - 0.02
    assert metrics["k4"]["linear_probe"]["accuracy_mean"] > metrics["k1"]["linear_probe"]["accuracy_mean"]
    assert metrics["all"]["linear_probe"]["accuracy_mean"] > metrics["zero_shot"]["accuracy"]


def test_the_page_says_every_verdict_and_bounds_val(done: Path) -> None:
    page = (done / "few_shot.html").read_text()
    for title in ("Nearest class mean", "Linear probe beside text", "Tip-Adapter-F"):
        assert f"<li>{title}: " in page
    assert "min(k, 2) val images per class" in page
    assert page.count("<script") == 1  # our own, for the table of all comparisons


def test_without_a_bound_all_of_val_chooses_and_the_page_says_so(tmp_path: Path) -> None:
    write_embeddings(tmp_path)
    out = run(tmp_path, with_params(val_per_class=None, shots=[1], seeds=[0, 1]))
    assert {row["n_val"] for row in rows(out / "choices.csv")} == {"60"}
    assert "Every draw chooses on all of val" in (tmp_path / "few_shot.html").read_text()


@pytest.mark.parametrize("name", ["shots", "seeds", "c_grid", "text_weights", "sharpness", "cache_weights"])
def test_a_value_that_is_repeated_in_a_list_is_refused_and_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"twice in {name}") as caught:
        params.read(
            {"few_shot": {**SMALL, name: [1, 3, 1.0 if name not in ("shots", "seeds") else 1]}},
            "few_shot",
            FewShotParams,
        )
    assert (caught.value.where, caught.value.fix) == (f"params.yaml: few_shot.{name}", "keep one")


def test_a_class_with_too_few_images_is_named_before_anything_is_written(tmp_path: Path) -> None:
    write_embeddings(tmp_path)
    with pytest.raises(DataError, match="a draw wants 61"):
        run(tmp_path, with_params(shots=[61]))
    assert not (tmp_path / "out").exists()


def test_the_draw_of_all_images_is_the_linear_probe_on_train(done: Path) -> None:
    images = read_images(done / "images")
    train = splits.read_splits(done / "splits.h5", images.train.ids, dataset_digest="1").train
    chosen = next(
        row
        for row in rows(done / "out" / "choices.csv")
        if (row["shots"], row["method"]) == ("all", "linear_probe")
    )
    problem = Problem(*images.train.part(train), num_classes=len(NAMES))
    found = problem.fit(float(chosen["c"]), max_iter=500)
    said = (images.test.embeddings @ found.coefficients.T + found.intercepts).argmax(axis=1)
    file = container.read(done / "out" / "predictions.h5", kind="few-shot predictions").arrays
    assert (file["all/linear_probe"][0] == said).mean() > 0.98  # fits along a path end a hair apart


def findings_of(points: list[Point]) -> Findings:
    return Findings(points, point("none", 0.0, 1.0, "prompt_weighting"), 50, 100, 10)


def point(shots: str, difference: float, p_holm: float, method: str = "tip_adapter") -> Point:
    versus = Crossed(difference, difference - 0.01, difference + 0.01, p_holm / 2, 5)
    return Point(shots, method, 10, 10, Spread(0.5, 0.1, 0.4, 0.6, 5), versus, p_holm, difference)


@pytest.mark.parametrize(
    ("p_holm", "outcomes"),
    [
        (0.049, ("better", "worse")),
        (0.05, ("no difference shown",) * 2),
        (0.09, ("no difference shown",) * 2),
    ],
)
def test_it_is_the_corrected_p_value_that_decides(p_holm: float, outcomes: tuple[str, str]) -> None:
    """Uncorrected, which is half of it here, every one of these would be shown."""
    found = [point("1", difference, p_holm) for difference in (0.1, -0.1)]
    assert all(one.versus.p_value < 0.05 for one in found)
    assert tuple(one.outcome for one in found) == outcomes
    assert (first_better(found[:1]) == "1") == (outcomes[0] == "better")


def test_from_which_k_on_it_is_better() -> None:
    worse, none, better = (-0.1, 0.001), (0.1, 0.2), (0.1, 0.001)

    def first(*found: tuple[float, float]) -> str | None:
        return first_better([point(str(2**i), *one) for i, one in enumerate(found)])

    assert first(worse, none, better, better) == "4"
    assert first(better, none, better) == "4"  # better once, but not from there on
    assert first(better, better) == "1"
    assert first(better, better, none) is None
    assert first(worse) is None


def test_a_verdict_names_where_it_is_better_worse_and_neither() -> None:
    points = [point("1", -0.2, 0.001), point("2", 0.01, 0.3), point("all", 0.03, 0.00001)]
    every = [replace(one, method=method) for method in METHODS for one in points]
    said = verdicts(findings_of(every))
    assert len(said) == len(METHODS) + 1
    assert said[list(METHODS).index("tip_adapter")] == (
        "Tip-Adapter: beats zero-shot with all images (+3.0 points [+2.0, +4.0] there, "
        "p < 0.0001 after Holm's correction); no difference shown at 2; worse at 1."
    )


def test_a_verdict_without_a_k_from_which_on_it_is_better() -> None:
    def said(*points: Point) -> str:
        every = [replace(one, method=method) for method in METHODS for one in points]
        return verdicts(findings_of(every))[0]

    assert "from 1 image per class on (" in said(point("1", 0.1, 0.001))
    assert "from 2 images per class on (" in said(point("1", 0.1, 0.2), point("2", 0.1, 0.001))
    assert said(point("1", 0.1, 0.2), point("2", -0.1, 0.001)) == (
        "Nearest class mean: nowhere shown to beat zero-shot; no difference shown at 1; worse at 2."
    )
    none, worse, better = (point("1", 0.1, 0.2), point("1", -0.1, 0.001), point("1", 0.1, 0.001))
    assert said(none) == "Nearest class mean: nowhere shown to differ from zero-shot."
    assert said(worse) == "Nearest class mean: worse than zero-shot at every number of images."
    assert said(better).endswith("after Holm's correction).")
    assert said(better, point("2", 0.1, 0.2), point("4", 0.1, 0.001)).endswith(
        "after Holm's correction); better at 1; no difference shown at 2."
    )
    assert said(point("1", 0.1, 0.001), point("2", -0.1, 0.2)) == (
        "Nearest class mean: beats zero-shot at some numbers of images per class, but not from one on; "
        "better at 1; no difference shown at 2."
    )


def test_a_fall_of_balanced_accuracy_is_named_unless_the_accuracy_tells_of_it() -> None:
    """Seen at 1 and 4; at 2 both fall alike, at 8 the accuracy is shown to be worse."""
    points = [
        replace(point("1", 0.1, 0.001), balanced_difference=-0.1),
        point("2", -0.02, 0.4),
        replace(point("4", 0.01, 0.4), balanced_difference=-0.03),
        replace(point("8", -0.2, 0.001), balanced_difference=-0.4),
    ]
    every = [replace(item, method=method) for method in METHODS for item in points]
    said = verdicts(findings_of(every))[0]
    assert said.endswith("; balanced accuracy falls at 1 (-10.0 points), 4 (-3.0 points).")


def test_the_balanced_difference_is_that_of_the_classes_means() -> None:
    labels = np.array([0, 0, 0, 0, 1])
    zero_shot = np.array([0, 0, 1, 1, 1], np.int32)
    outcome = Outcome(np.zeros(5, np.int32), Standing(1, 0), {})
    study = Study([Draw(1, 0, 2, 2, dict.fromkeys(METHODS, outcome))], zero_shot, zero_shot)
    found = measure(study, labels, num_classes=2).of("tip_adapter")[0]
    assert found.versus.difference == pytest.approx(0.2)  # from 3 of 5 to 4
    assert found.balanced_difference == pytest.approx(-0.25)  # from (2 / 4 + 1) / 2 to (1 + 0) / 2


def test_scores_pair_draws_and_images_with_zero_shot() -> None:
    labels = np.array([0, 1, 0, 1])
    said = {"zero_shot": np.array([0, 1, 1, 0], np.int32), "right": labels.astype(np.int32)}

    def one(shots: int, seed: int, predicted: np.ndarray[Any, Any]) -> Draw:
        outcome = Outcome(predicted, Standing(1, 0), {})
        return Draw(shots, seed, 2, 2, dict.fromkeys(METHODS, outcome))

    study = Study(
        [one(1, 0, said["right"]), one(1, 1, said["zero_shot"]), one(ALL, 0, said["right"])],
        said["zero_shot"],
        said["right"],
    )
    found = measure(study, labels, num_classes=2)
    assert found.zero_shot == 0.5
    first, last = found.of("tip_adapter")
    assert (first.accuracy.mean, first.versus.difference) == (0.75, 0.25)
    assert first.versus == crossed(np.array([[0.0, 0, 1, 1], [0, 0, 0, 0]]))
    assert (last.shots, last.accuracy.n, last.versus.difference) == ("all", 1, 0.5)
    assert last.versus.p_value == 0.5  # McNemar's, of two images won and none lost
    same = replace(study, draws=study.draws[1:2])
    none_differs = measure(same, labels, num_classes=2).of("tip_adapter")[0].versus
    assert none_differs.low < 0 < none_differs.high  # no discordant image is no certainty
    assert asdict(last.accuracy)["deviation"] == 0
    assert draws.label(ALL) == "all"
    copies = np.array([0, 0, 2, 3])
    grouped = measure(study, labels, num_classes=2, copies=copies).of("tip_adapter")[0].versus
    assert grouped == crossed(np.array([[0.0, 0, 1, 1], [0, 0, 0, 0]]), copies=copies) != first.versus


def test_the_second_level_is_that_of_the_file_of_weighted_prompts(done: Path) -> None:
    images = read_images(done / "images")
    rows_of = classifier(read_texts(done / "texts" / "other.h5"))
    accuracy = float(((images.test.embeddings @ rows_of.T).argmax(axis=1) == images.test.labels).mean())
    metrics = json.loads((done / "out" / "metrics.json").read_text())
    assert metrics["prompt_weighting"]["accuracy"] == pytest.approx(accuracy, abs=1e-5)
    assert accuracy != pytest.approx(metrics["zero_shot"]["accuracy"])
    page = (done / "few_shot.html").read_text()
    assert "<li>Zero-shot with weighted prompts, which need no label: " in page
    assert f"{accuracy:.4f}" in page


def test_a_verdict_on_weighted_prompts_says_better_worse_or_neither() -> None:
    def said(difference: float, p_holm: float) -> str:
        level = point("none", difference, p_holm, "prompt_weighting")
        return verdicts(Findings([point("1", 0.1, 0.2, method) for method in METHODS], level, 50, 100, 10))[
            -1
        ]

    title = "Zero-shot with weighted prompts, which need no label: "
    assert said(0.02, 0.01).startswith(f"{title}better than the active set (+2.0 points [+1.0, +3.0], ")
    assert said(-0.02, 0.01).startswith(f"{title}worse than the active set (")
    assert said(0.02, 0.3).startswith(f"{title}no difference from the active set shown (+2.0 points")


def test_it_is_counted_how_many_draws_chose_zero_shot_itself(done: Path) -> None:
    metrics = json.loads((done / "out" / "metrics.json").read_text())
    choices = rows(done / "out" / "choices.csv")
    file = container.read(done / "out" / "predictions.h5", kind="few-shot predictions").arrays
    for key, shots in (("k1", "1"), ("k4", "4"), ("all", "all")):
        for method in METHODS:
            own = [row for row in choices if (row["shots"], row["method"]) == (shots, method)]
            kept = [row["weight"] == "0.0" or row["c"] == "0.0" for row in own]
            assert metrics[key][method].get("n_zero_shot") == (sum(kept) if method in MIXING else None)
            for chose, predicted in zip(kept, file[f"{shots}/{method}"], strict=True):
                assert not chose or np.array_equal(predicted, file["zero_shot"])
    assert sum(metrics["k1"][method]["n_zero_shot"] for method in MIXING) > 0


def test_gda_is_the_discriminant_beside_zero_shot_with_the_weight_that_was_chosen(done: Path) -> None:
    """On all images and by hand: shared covariance, shrunk, and equal priors."""
    images = read_images(done / "images")
    train = splits.read_splits(done / "splits.h5", images.train.ids, dataset_digest="1").train
    embeddings, labels = images.train.part(train)
    x = embeddings.astype(np.float64)
    means = np.stack([x[labels == c].mean(axis=0) for c in range(3)])
    covariance = np.cov((x - means[labels]).T)
    covariance += np.trace(covariance) / (len(x) - 1) * np.eye(len(covariance))
    inverse = np.linalg.inv(covariance)
    chosen = next(
        float(row["weight"])
        for row in rows(done / "out" / "choices.csv")
        if (row["shots"], row["method"]) == ("all", "gda")
    )
    test = images.test.embeddings.astype(np.float64)
    text = images.logit_scale * test @ classifier(read_texts(done / "texts" / "photo.h5")).T
    discriminant = test @ inverse @ means.T - np.einsum("cd,de,ce->c", means, inverse, means) / 2
    file = container.read(done / "out" / "predictions.h5", kind="few-shot predictions").arrays
    said = (text + chosen * discriminant).argmax(axis=1)
    assert chosen > 0
    assert (file["all/gda"][0] == said).mean() > 0.98


def test_the_page_says_what_intervals_and_p_values_cover(done: Path) -> None:
    said = "<li>Intervals and p values cover other draws and other test images; with all images"
    assert (done / "few_shot.html").read_text().count(said) == 1


@pytest.mark.pipeline
def test_the_study_by_a_real_dvc(workspace: Workspace) -> None:
    workspace.edit(lambda settings: settings.update(few_shot=SMALL))
    workspace.repro()
    assert workspace.executed() == []  # it is off the default path, and its knobs are its own
    workspace.start_study("few_shot")
    assert workspace.executed() == ["few_shot"]
    folder = workspace.folder / "data" / "studies" / "few_shot"
    metrics = json.loads((folder / "metrics.json").read_text())
    zero_shot = json.loads(workspace.read("metrics/zero_shot.json"))
    assert metrics["zero_shot"]["n_correct"] == zero_shot["n_correct"]
    workspace.repro("studies/few_shot/dvc.yaml")
    assert workspace.executed() == []
    workspace.commit("study")
    changed = {**SMALL, "seeds": [3, 4]}
    workspace.edit(lambda settings: settings.update(few_shot=changed))
    workspace.repro("studies/few_shot/dvc.yaml")
    diff = workspace.command("dvc", "metrics", "diff", "--targets", "data/studies/few_shot/metrics.json")
    assert "k4.linear_probe.accuracy_mean" in diff.stdout
    plot = ["data/studies/few_shot/curves.csv", "-x", "log2_images_per_class", "-y", "accuracy"]
    workspace.command("dvc", "plots", "show", *plot, "--template", "methods")
    drawn = (workspace.folder / "dvc_plots" / "index.html").read_text()
    assert '"method": "tip_adapter_f"' in drawn


def test_fits_that_do_not_converge_are_said_aloud(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], done: Path
) -> None:
    write_embeddings(tmp_path)
    out = run(tmp_path, with_params(c_grid=[1e-4, 1e4], max_iter=3))
    said = capsys.readouterr().out
    probes = [row for row in rows(out / "choices.csv") if row["method"] != "clap"]
    failed = sum(int(row["n_not_converged"] or 0) for row in probes)
    assert failed > 0
    assert f"Not converged in 3 iterations and left out: {failed} fits." in said
    assert not any(row["n_not_converged"] not in ("", "0") for row in rows(done / "out" / "choices.csv"))
