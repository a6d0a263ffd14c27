"""The stages of the methods, run on small files: what they refuse, what they record, what they read."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from clipcifar.core.errors import ConfigError, DataError
from clipcifar.evaluation import compare, headline
from clipcifar.evaluation.calibration import fit_temperature
from clipcifar.evaluation.names import METHODS
from clipcifar.methods.gda import fit as fit_gda
from clipcifar.methods.linear_probe import fit
from clipcifar.methods.trained import seeds
from clipcifar.methods.zero_shot import classifier as zero_shot_classifier
from clipcifar.report import verdicts
from clipcifar.store import container, heads, parts, rows, splits
from clipcifar.store.embeddings import read_texts
from clipcifar.store.images import read_images
from clipcifar.store.predictions import read_predictions, read_set_predictions
from stages import (
    gda,
    linear_probe,
    mlp_probe,
    projection,
    prompt_sets,
    prompt_weighting,
    rank_prompts,
    zero_shot,
)
from tests.search.test_outcome import write_search as write_embeddings
from tests.support.close import close
from tests.support.import_closure import ROOT
from tests.support.made import edit_images

_TRAINING = {
    "hidden": 4,
    "dropout": 0.1,
    "learning_rate": 0.01,
    "weight_decay": 0.0,
    "batch_size": 64,
    "max_epochs": 1,
    "patience": 1,
    "seeds": [0],
    "device": "cpu",
}
SETTINGS: dict[str, Any] = {
    "model": {"name": "tiny", "pretrained": None, "path": "data/none", "seed": 0, "allow_pickle": False},
    "prompts": {"active": "photo", "max_sentences": 50_000, "sets": {}},
    "gda": {"alphas": [0, 0.1, 1]},
    "linear_probe": {"c_grid": [0.1, 10], "max_iter": 500},
    "mlp_probe": _TRAINING,
    "projection": _TRAINING,
}
STAGES: dict[str, tuple[Callable[..., None], tuple[str, ...], tuple[str, ...]]] = {
    "zero_shot": (
        zero_shot.main,
        ("images", "texts", "splits.h5"),
        ("p.h5", "m.json", "details/m.json", "plots"),
    ),
    "prompt_sets": (
        prompt_sets.main,
        ("images", "texts", "splits.h5"),
        ("p.h5", "prompt_sets.json", "details/prompt_sets.json"),
    ),
    "prompt_weighting": (
        prompt_weighting.main,
        ("images", "prompts", "texts", "pool.h5", "splits.h5"),
        ("head.h5", "p.h5", "m.json", "details/m.json", "plots"),
    ),
    "gda": (
        gda.main,
        ("images", "texts", "splits.h5"),
        ("head.h5", "p.h5", "m.json", "details/m.json", "plots"),
    ),
    "linear_probe": (
        linear_probe.main,
        ("images", "splits.h5"),
        ("head.h5", "p.h5", "m.json", "details/m.json", "plots"),
    ),
    "mlp_probe": (
        mlp_probe.main,
        ("images", "splits.h5"),
        ("head.h5", "p.h5", "m.json", "details/m.json", "plots"),
    ),
    "projection": (
        projection.main,
        ("images", "texts", "splits.h5"),
        ("head.h5", "p.h5", "m.json", "details/m.json", "plots"),
    ),
}
WITH_TEXTS = [stage for stage, (_, inputs, _) in STAGES.items() if "texts" in inputs]
TRAINED = [stage for stage, (_, _, outputs) in STAGES.items() if "head.h5" in outputs]
WITH_SPLITS = [stage for stage, (_, inputs, _) in STAGES.items() if "splits.h5" in inputs]


def run(stage: str, folder: Path, settings: Any = SETTINGS) -> Path:
    """Run a stage on the files in `folder`; what it writes is under the folder returned."""
    main, inputs, outputs = STAGES[stage]
    main(settings, *(folder / name for name in inputs), *(folder / "out" / name for name in outputs))
    return folder / "out"


def changed(section: str, **values: Any) -> dict[str, Any]:
    return {**SETTINGS, section: {**SETTINGS[section], **values}}


def rewrite(path: Path, kind: str, **attributes: Any) -> None:
    """The same file with other attributes, its digests right: a sound file of something else."""
    file = container.read(path, kind=kind)
    own = {key: file.attributes[key] for key in file.attributes if key not in container._DIGESTS}
    container.write(path, kind=kind, arrays=file.arrays, attributes={**own, **attributes})


def refused(
    stage: str, folder: Path, error: type[DataError | ConfigError], settings: Any = SETTINGS
) -> DataError | ConfigError:
    with pytest.raises(error) as caught:
        run(stage, folder, settings)
    assert not (folder / "out").exists()
    return caught.value


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("field", ["name", "pretrained"])
def test_embeddings_of_another_model_are_refused_and_the_field_is_named(
    stage: str, field: str, tmp_path: Path
) -> None:
    write_embeddings(tmp_path)
    error = refused(stage, tmp_path, DataError, changed("model", **{field: "another"}))
    assert error.exit_code == 3
    assert {"name": "model 'tiny'", "pretrained": "pretrained ''"}[field] in error.what
    assert "another" in error.what
    run(stage, tmp_path)  # and nothing else was wrong


@pytest.mark.parametrize("stage", WITH_TEXTS)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weights_sha256", "1"),
        ("model", "another"),
        ("pretrained", "another"),
        ("preprocess", '{"size":32}'),
        ("class_names", '["dog","cat","eel"]'),
        ("logit_scale", 21.0),
    ],
)
def test_images_and_sentences_that_differ_in_any_field_are_refused(
    stage: str, field: str, value: str | float, tmp_path: Path
) -> None:
    write_embeddings(tmp_path)
    rewrite(tmp_path / "texts" / "photo.h5", "text embeddings", **{field: value})
    error = refused(stage, tmp_path, DataError)
    assert error.exit_code == 3
    assert f"{field} is" in error.what


@pytest.mark.parametrize("stage", WITH_TEXTS)
def test_sentences_from_another_device_or_batch_size_are_welcome(stage: str, tmp_path: Path) -> None:
    write_embeddings(tmp_path)
    rewrite(tmp_path / "texts" / "photo.h5", "text embeddings", device="cuda", batch_size=7, torch="9.9")
    assert (run(stage, tmp_path) / "p.h5").exists()


@pytest.mark.parametrize("stage", WITH_SPLITS)
def test_a_split_of_another_dataset_is_refused(stage: str, tmp_path: Path) -> None:
    write_embeddings(tmp_path)
    rewrite(tmp_path / "splits.h5", "splits", dataset_digest="2")
    assert "another dataset" in refused(stage, tmp_path, DataError).what


@pytest.mark.parametrize("stage", ["zero_shot", "gda", "projection"])
def test_an_active_set_without_embeddings_is_named(stage: str, tmp_path: Path) -> None:
    write_embeddings(tmp_path)
    error = refused(stage, tmp_path, DataError, changed("prompts", active="absent"))
    assert error.where.endswith("absent.h5")


@pytest.mark.parametrize("stage", ["gda", "linear_probe", "mlp_probe", "projection"])
def test_an_unknown_key_in_the_stages_own_section_is_refused(stage: str, tmp_path: Path) -> None:
    write_embeddings(tmp_path)
    error = refused(stage, tmp_path, ConfigError, changed(stage, momentum=0.9))
    assert error.exit_code == 2
    assert "momentum" in error.what


class Watched(dict[str, Any]):
    """Settings that note which sections are asked for."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        self.asked: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_reads_the_sections_that_dvc_yaml_says_and_no_other(stage: str, tmp_path: Path) -> None:
    """Or DVC would not know that an edit makes the stage stale."""
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]
    expected = {key.split(".")[0] for key in declared["params"]}
    if any("${prompts.active}" in dep for dep in declared["deps"]):
        expected.add("prompts")
    write_embeddings(tmp_path)
    settings = Watched({**SETTINGS, "dataset": {}, "split": {}, "embed": {}})
    run(stage, tmp_path, settings)
    assert settings.asked == expected


@pytest.mark.parametrize("stage", STAGES)
def test_of_images_in_parts_a_stage_says_what_it_says_of_one(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts and blocks end in the middle of a class, of a batch and of val."""
    whole, divided = tmp_path / "whole", tmp_path / "divided"
    write_embeddings(whole)
    monkeypatch.setattr(parts, "PART_ROWS", 37)
    monkeypatch.setattr(rows, "_BLOCK_ROWS", 20)
    write_embeddings(divided)
    assert len(list((divided / "images").glob("part-*.h5"))) == 9
    of_whole, of_divided = (run(stage, folder) for folder in (whole, divided))
    names = [path.relative_to(of_whole) for path in sorted(of_whole.rglob("*")) if path.is_file()]
    assert names == [path.relative_to(of_divided) for path in sorted(of_divided.rglob("*")) if path.is_file()]
    for name in names:
        one_part, several = of_whole / name, of_divided / name
        if name.suffix == ".h5":
            of_sets = "prompt set predictions" if stage == "prompt_sets" else "predictions"
            kind = "head" if name.stem == "head" else of_sets
            expected, arrays = (container.read(path, kind=kind).arrays for path in (one_part, several))
            assert list(expected) == list(arrays)
            for key, array in expected.items():
                if array.dtype.kind == "f":
                    assert arrays[key] == pytest.approx(array, abs=1e-5), key
                else:
                    assert arrays[key].tolist() == array.tolist(), key
        elif name.suffix == ".json":
            assert close(json.loads(several.read_text()), json.loads(one_part.read_text())), name


@pytest.mark.parametrize("stage", ["linear_probe", "mlp_probe", "projection"])
def test_of_more_images_than_max_rows_so_many_are_learned_from_and_it_is_said(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_embeddings(tmp_path)
    learned: list[int] = []
    if stage == "linear_probe":
        solve = linear_probe.linear_probe.solve
        monkeypatch.setattr(
            linear_probe.linear_probe,
            "solve",
            lambda images, *rest, **more: (learned.append(len(images)), solve(images, *rest, **more))[1],
        )
    else:
        train = seeds.train
        monkeypatch.setattr(
            seeds,
            "train",
            lambda build, data, *rest, **more: (
                learned.append(len(data.labels)),
                train(build, data, *rest, **more),
            )[1],
        )
    n = 240 if stage == "linear_probe" else 180
    for max_rows, count in ((1000, n), (60, 60), (None, n)):
        learned.clear()
        details = headline.read(run(stage, tmp_path, changed(stage, max_rows=max_rows)), "m")
        assert set(learned) == {count}
        assert details.get("learned_from") == ({"n": 60, "of": n} if count < n else None)
        shown = json.loads((tmp_path / "out" / "m.json").read_text())  # which `dvc metrics diff` compares
        assert ("learned_from" in shown) == (count < n)
        said = verdicts.of_draws({stage: details, "gda": {}})
        assert said == ([f"{METHODS[stage]} learned from 60 of {n} images."] if count < n else [])
        assert (f", learned from 60 of {n} images" in capsys.readouterr().out) == (count < n)


def test_a_fit_that_did_not_converge_is_recorded_left_out_and_said_aloud(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_embeddings(tmp_path)
    out = run("linear_probe", tmp_path, changed("linear_probe", c_grid=[1e-4, 1e4], max_iter=3))
    written = headline.read(out, "m")
    assert written["converged"] == {"n": 1, "n_not": 1, "refit": 1}
    assert heads.read(out / "head.h5")[1]["c"] == 1e-4
    assert "not converged in 3 iterations, left out of the choice: C = [10000.0]" in capsys.readouterr().out
    lines = (out / "plots" / "validation.csv").read_text().splitlines()
    rows = [line.split(",")[-3:] for line in lines]
    assert rows[0] == ["converged", "start_iterations", "iterations"]
    assert [row[0] for row in rows[1:]] == ["True", "False"]
    assert rows[2][1:] == ["3", "3"]  # of our own and of scikit-learn's, up to max_iter each


def test_no_converged_fit_is_an_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    write_embeddings(tmp_path)
    settings = changed("linear_probe", c_grid=[1e3, 1e4], max_iter=3)
    assert "max_iter" in refused("linear_probe", tmp_path, ConfigError, settings).fix


def test_a_converged_grid_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_embeddings(tmp_path)
    written = headline.read(run("linear_probe", tmp_path), "m")
    assert written["converged"] == {"n": 2, "n_not": 0, "refit": 1}
    printed = capsys.readouterr()
    assert "converge" not in printed.out
    iterations = written["iterations"]
    assert min(iterations["start"], iterations["scikit_learn"]) > 0
    how = f"{iterations['scikit_learn']} iterations of scikit-learn's after {iterations['start']} of our own"
    assert f"({how})" in printed.out
    assert "Warning" not in printed.err


def test_the_linear_probe_is_refitted_on_train_and_val_with_the_c_that_was_chosen(tmp_path: Path) -> None:
    write_embeddings(tmp_path)
    arrays, attributes = heads.read(run("linear_probe", tmp_path) / "head.h5")
    images = read_images(tmp_path / "images")
    train = splits.read_splits(tmp_path / "splits.h5", images.train.ids, dataset_digest="1").train
    options: dict[str, Any] = {"c": attributes["c"], "max_iter": 500, "class_names": images.class_names}
    everything, _ = fit(images.train.embeddings, images.train.labels, **options)
    part, _ = fit(images.train.embeddings[train], images.train.labels[train], **options)
    np.testing.assert_array_equal(arrays["coefficients"], everything.coefficients)
    np.testing.assert_array_equal(arrays["intercepts"], everything.intercepts)
    assert not np.allclose(arrays["coefficients"], part.coefficients)


@pytest.mark.parametrize("stage", TRAINED)
def test_other_test_images_leave_the_head_alone_and_other_train_labels_only_where_none_is_read(
    stage: str, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("plain", "test", "train")]
    for folder in folders:
        write_embeddings(folder)
    images = read_images(folders[0] / "images")
    edit_images(folders[1] / "images", {"test/embeddings": images.test.embeddings[::-1].copy()})
    edit_images(folders[2] / "images", {"train/labels": (images.train.labels + 1) % 3})
    plain, test, train = (
        {name: array.tobytes() for name, array in heads.read(run(stage, folder) / "head.h5")[0].items()}
        for folder in folders
    )
    assert plain == test
    assert (plain == train) == (stage == "prompt_weighting")  # which reads none


def test_the_weights_of_templates_are_of_train_images_and_not_of_val(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("plain", "val", "train")]
    for folder in folders:
        write_embeddings(folder)
    images = read_images(folders[0] / "images")
    rows = splits.read_splits(folders[0] / "splits.h5", images.train.ids, dataset_digest="1")
    for folder, part in zip(folders[1:], (rows.val, rows.train), strict=True):
        changed = images.train.embeddings[:].copy()
        changed[part] = changed[part[0]]
        edit_images(folder / "images", {"train/embeddings": changed})
    plain, of_val, of_train = (
        heads.read(run("prompt_weighting", folder) / "head.h5")[0]["coefficients"] for folder in folders
    )
    np.testing.assert_array_equal(plain, of_val)
    assert np.abs(plain - of_train).max() > 1e-3


def test_weighted_prompts_are_the_papers_over_the_templates_that_a_plain_average_has(tmp_path: Path) -> None:
    """From the sentences alone: softmax of the mean largest logit, less its mean over the train images."""
    write_embeddings(tmp_path)
    out = run("prompt_weighting", tmp_path)
    written, images = headline.read(out, "m"), read_images(tmp_path / "images")
    train = splits.read_splits(tmp_path / "splits.h5", images.train.ids, dataset_digest="1").train
    files = [tmp_path / "texts/photo.h5", tmp_path / "texts/other.h5", tmp_path / "pool.h5"]
    by_class = [
        np.concatenate([texts.embeddings[texts.class_index == label] for texts in map(read_texts, files)])
        for label in range(3)
    ]
    by_template = np.stack(by_class, axis=1).astype(np.float64)
    logits = 20 * np.einsum("nd,tcd->tnc", images.train.embeddings[train].astype(np.float64), by_template)
    scores = (logits - logits.mean(axis=1, keepdims=True)).max(axis=2).mean(axis=1)
    shares = np.exp(scores) / np.exp(scores).sum()
    rows = np.einsum("t,tcd->cd", shares, by_template)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(heads.read(out / "head.h5")[0]["coefficients"], 20 * rows, atol=1e-4)
    assert written["selected"]["n_templates"] == len(by_template) == 302
    assert written["selected"]["effective_templates"] == pytest.approx(1 / (shares**2).sum(), abs=0.01)
    with (out / "plots/weights.csv").open() as file:
        drawn = list(csv.DictReader(file))
    heaviest = np.sort(302 * shares)[::-1][:30]
    np.testing.assert_allclose([float(row["weight"]) for row in drawn], heaviest, atol=1e-4)
    assert len({row["template"] for row in drawn}) == 30


def test_weighted_prompts_have_the_weights_that_the_search_offers(tmp_path: Path) -> None:
    """The same to the last digit, so that a set which the search writes is this method's."""
    write_embeddings(tmp_path, kind="weighted")
    inputs, settings = STAGES["prompt_weighting"][1], {**SETTINGS, "search": {"by": "accuracy"}}
    outputs = ("head.h5", "ranking.json", "r.h5", "r.json", "details/r.json", "ranked")
    out = run("prompt_weighting", tmp_path)
    rank_prompts.main(settings, *(tmp_path / name for name in inputs), *(out / name for name in outputs))
    ranking = json.loads((out / "ranking.json").read_text())
    assert ranking["kind"] == "weighted"
    with (out / "plots/weights.csv").open() as file:
        drawn = [float(row["weight"]) for row in csv.DictReader(file)]
    assert drawn == [round(weight, 4) for weight in drawn]
    assert drawn == sorted(ranking["set"]["weights"], reverse=True)[:30]
    assert len(set(drawn)) > 20
    scores, searched = (read_predictions(out / name).scores for name in ("p.h5", "r.h5"))
    np.testing.assert_allclose(scores, searched, atol=1e-4)


def test_gda_is_refitted_with_the_alpha_and_the_temperature_that_train_alone_gave(tmp_path: Path) -> None:
    write_embeddings(tmp_path)
    out = run("gda", tmp_path, changed("gda", alphas=[10, 0, 0.3]))
    arrays, attributes = heads.read(out / "head.h5")
    images, texts = read_images(tmp_path / "images"), read_texts(tmp_path / "texts" / "photo.h5")
    rows = splits.read_splits(tmp_path / "splits.h5", images.train.ids, dataset_digest="1")
    (val, labels), weights = images.train.part(rows.val), zero_shot_classifier(texts)
    names, on_val = images.class_names, 20 * images.train.embeddings[rows.val] @ weights.T
    alone = fit_gda(*images.train.part(rows.train), class_names=names).scores(val)
    right = {alpha: ((on_val + alpha * alone).argmax(axis=1) == labels).mean() for alpha in (0, 0.3, 10)}
    alpha = attributes["alpha"]
    assert headline.read(out, "m")["selected"] == {"alpha": alpha}
    assert right[alpha] == max(right.values()) > min(right.values())
    everything = fit_gda(images.train.embeddings, images.train.labels, class_names=names)
    expected = 20 * weights + np.float32(alpha) * everything.coefficients
    np.testing.assert_allclose(arrays["coefficients"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(arrays["intercepts"], alpha * everything.intercepts, rtol=1e-5)
    temperature = fit_temperature(on_val + np.float32(alpha) * alone, labels)
    assert headline.read(out, "m")["calibrated"]["temperature"] == pytest.approx(temperature, abs=1e-4)
    with (out / "plots/validation.csv").open() as file:
        curve = {float(row["alpha"]): float(row["val_accuracy"]) for row in csv.DictReader(file)}
    assert curve == {key: pytest.approx(value, abs=1e-5) for key, value in right.items()}


def test_alpha_zero_alone_is_zero_shot(tmp_path: Path) -> None:
    write_embeddings(tmp_path)
    of_zero_shot = read_predictions(run("zero_shot", tmp_path) / "p.h5")
    of_gda = read_predictions(run("gda", tmp_path, changed("gda", alphas=[0])) / "p.h5")
    np.testing.assert_allclose(of_gda.scores, of_zero_shot.scores, rtol=1e-5, atol=1e-5)
    assert of_gda.attributes["temperature"] == pytest.approx(of_zero_shot.attributes["temperature"], rel=1e-5)


def test_every_other_set_is_compared_with_the_active_one_image_by_image(tmp_path: Path) -> None:
    write_embeddings(tmp_path)
    out = run("prompt_sets", tmp_path)
    written, sets = headline.read(out, "prompt_sets"), read_set_predictions(out / "p.h5")
    assert "vs_active" not in written["photo"]
    right = {name: said == sets.labels for name, said in sets.predicted.items()}
    found = compare.paired(right["photo"], right["other"])
    assert written["other"]["vs_active"] == {
        "difference": round(found.difference, 5),
        "low": round(found.low, 5),
        "high": round(found.high, 5),
        "p_holm": round(found.p_value, 5),  # of one comparison there is nothing to correct
    }
    turned = headline.read(run("prompt_sets", tmp_path, changed("prompts", active="other")), "prompt_sets")
    assert turned["photo"]["vs_active"]["difference"] == -written["other"]["vs_active"]["difference"]


def test_several_sets_are_corrected_for_one_another(tmp_path: Path) -> None:
    write_embeddings(tmp_path)
    for i in range(3):
        shutil.copyfile(tmp_path / "texts" / "other.h5", tmp_path / "texts" / f"copy{i}.h5")
    written = headline.read(run("prompt_sets", tmp_path), "prompt_sets")
    alone = compare.paired(
        *(
            read_set_predictions(tmp_path / "out" / "p.h5").predicted[name]
            == read_set_predictions(tmp_path / "out" / "p.h5").labels
            for name in ("photo", "other")
        )
    )
    assert 0 < alone.p_value < 0.2
    assert written["copy1"]["vs_active"]["p_holm"] == pytest.approx(4 * alone.p_value, abs=1e-5)


def test_an_active_set_that_was_not_embedded_is_named(tmp_path: Path) -> None:
    write_embeddings(tmp_path)
    error = refused("prompt_sets", tmp_path, DataError, changed("prompts", active="absent"))
    assert "absent" in error.what
