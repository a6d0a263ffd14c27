"""The study `models`: the list in params.yaml, the numbers, the tables and the page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipcifar.core.errors import ConfigError, DataError
from clipcifar.methods import linear_probe
from clipcifar.methods.linear_probe import LinearProbeParams
from clipcifar.store.dataset import read_dataset, write_dataset
from clipcifar.store.embeddings import Split
from clipcifar.store.model import ModelParams
from clipcifar.studies.models import findings, page, table
from clipcifar.studies.models.params import OWN, ModelsParams, listed, named
from clipcifar.studies.models.study import Outcome, Study, evaluate
from clipcifar.weights import resolve
from studies.models import stage
from tests.stages.test_methods import rewrite
from tests.support import study_pages, synthetic
from tests.support.backbones import DEMO, local, shifted
from tests.support.workspace import Workspace

PROBE = LinearProbeParams((1.0, 30.0), 500)


# The list


def test_an_entry_says_what_differs_from_the_own_model() -> None:
    own = ModelParams("ViT-B-32", "laion2b_s34b_b79k", "data/none", 3, True)
    section = ModelsParams({"b-1_x": {"name": "RN50", "pretrained": None, "path": "/w/x.safetensors"}})
    assert listed(section, own) == {"b-1_x": ModelParams("RN50", None, "/w/x.safetensors", 3, True)}


GOOD = {"name": "RN50", "pretrained": None, "path": "data/none"}


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({}, "no model"),
        ({"own": GOOD}, "cannot be a label"),
        ({"a.b": GOOD}, "cannot be a label"),
        ({"a b": GOOD}, "cannot be a label"),
        ({"$(touch x)": GOOD}, "cannot be a label"),
        ({3: GOOD}, "cannot be a label"),
        ({"a": "RN50"}, "not a mapping"),
        ({"a": {**GOOD, "nme": 1}}, "unknown key 'nme'"),
        ({"a": {"name": "RN50", "path": "x"}}, "'pretrained' is missing"),
        ({"a": {**GOOD, "name": 50}}, "expected text"),
    ],
)
def test_a_wrong_entry_is_refused_and_named(others: dict[Any, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        listed(ModelsParams(others), local(DEMO))
    assert caught.value.where.startswith("params.yaml: models.others")


def test_an_error_of_a_listed_model_is_not_said_of_the_own_one() -> None:
    with pytest.raises(ConfigError) as caught, named("b16"):
        raise ConfigError("no such tag", where="params.yaml: model.pretrained", fix="f")
    assert (caught.value.what, caught.value.where) == ("b16: no such tag", "params.yaml: models.others.b16")
    with pytest.raises(DataError) as damaged, named("b16"):
        raise DataError("damaged", where="/w/file")
    assert damaged.value.where == "/w/file"
    with pytest.raises(ConfigError) as shared, named("b16"):
        raise ConfigError("no card", where="params.yaml: embed.device")
    assert shared.value.where == "params.yaml: embed.device"


@pytest.mark.parametrize(
    "asked",
    [
        {"name": f"local-dir:{DEMO}", "path": "/elsewhere"},
        {"name": "hf-hub:a/b", "path": "/elsewhere"},
        {"name": "ViT-B-32", "pretrained": "laion2b"},
        {"name": "ViT-B-32", "pretrained": None, "path": "/elsewhere"},
    ],
)
def test_a_fix_speaks_of_the_entry_and_not_of_the_projects_own_model(
    asked: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught, named("b16"):
        resolve.fetch_model(replace(local(DEMO), **asked), tmp_path / "w")
    assert re.search(r"models\.others\.b16\.(name|path|pretrained)", caught.value.fix)
    assert not re.search(r"\bmodel\.(name|path|pretrained)", str(caught.value))


def test_what_entries_share_stays_in_the_section_of_the_own_model() -> None:
    with pytest.raises(ConfigError) as caught, named("b16"):
        raise ConfigError("a pickle", fix="set model.allow_pickle: true; data/model.json")
    assert caught.value.fix == "set model.allow_pickle: true; data/model.json"


# The numbers


def _outcome(seed: int = 1, *, permute_test: bool = False) -> Outcome:
    images = synthetic.image_embeddings(seed=seed)
    if permute_test:
        labels = np.random.default_rng(0).permutation(images.test.labels)
        images = synthetic.with_test(images, labels=labels)
    return evaluate(images, synthetic.prototypes(), synthetic.train_val(images), probe=PROBE)


def test_both_methods_are_the_projects_own() -> None:
    images = synthetic.image_embeddings()
    rows, found = synthetic.train_val(images), _outcome()
    naive = (images.test.embeddings @ synthetic.prototypes().T).argmax(axis=1)
    np.testing.assert_array_equal(found.predicted["zero_shot"], naive)
    assert found.metrics["zero_shot"]["test"]["accuracy"] == pytest.approx(
        (naive == images.test.labels).mean()
    )
    by_c = {}
    for c in PROBE.c_grid:
        probe, _ = linear_probe.fit(
            *images.train.part(rows.train), c=c, max_iter=500, class_names=synthetic.CLASSES
        )
        val, labels = images.train.part(rows.val)
        by_c[c] = float((probe.scores(val).argmax(axis=1) == labels).mean())
    best = max(by_c, key=lambda c: (by_c[c], -c))
    assert found.metrics["linear_probe"]["selected"]["c"] == best
    assert found.metrics["linear_probe"]["val"]["accuracy"] == by_c[best]
    assert found.metrics["linear_probe"]["converged"] == {"n": 2, "n_not": 0, "refit": 1}


def test_the_chosen_probe_is_fitted_again_on_train_and_val_together() -> None:
    images, found = synthetic.image_embeddings(), _outcome()
    rows, c = synthetic.train_val(images), found.metrics["linear_probe"]["selected"]["c"]
    said = {}
    for name, part in (("both", np.concatenate(rows)), ("train alone", rows.train)):
        probe, _ = linear_probe.fit(
            *images.train.part(part), c=c, max_iter=500, class_names=synthetic.CLASSES
        )
        said[name] = probe.scores(images.test.embeddings).argmax(axis=1)
    assert len(rows.train) + len(rows.val) == len(images.train.labels)
    assert (said["both"] != said["train alone"]).any()  # so that test tells which of them it was
    np.testing.assert_array_equal(found.predicted["linear_probe"], said["both"])
    accuracy = float((said["both"] == images.test.labels).mean())
    assert found.metrics["linear_probe"]["test"]["accuracy"] == pytest.approx(accuracy)


def test_test_labels_choose_nothing() -> None:
    found, permuted = _outcome(), _outcome(permute_test=True)
    for method in findings.TITLES:
        np.testing.assert_array_equal(found.predicted[method], permuted.predicted[method])
    assert found.metrics["linear_probe"]["selected"] == permuted.metrics["linear_probe"]["selected"]
    assert found.metrics["linear_probe"]["val"] == permuted.metrics["linear_probe"]["val"]
    assert found.metrics["zero_shot"]["train"] == permuted.metrics["zero_shot"]["train"]
    assert found.metrics["zero_shot"]["test"] != permuted.metrics["zero_shot"]["test"]


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (["other"], "no other is both faster here and better on the test images than other."),
        ([OWN, "other"], "none is both faster here and better on the test images than another."),
    ],
)
def test_what_pays_is_told_without_a_list_of_all(
    kept: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = synthetic.image_embeddings()
    outcomes = {
        label: evaluate(images, synthetic.prototypes(), None, probe=PROBE) for label in (OWN, "other")
    }
    measured = findings.measure(
        outcomes, dict.fromkeys(outcomes, SIZE), images.test.labels, class_names=images.class_names
    )
    monkeypatch.setattr(findings.table, "chosen_on", lambda *_, **__: "test")
    monkeypatch.setattr(findings.table, "undominated", lambda *_, **__: kept)
    assert findings.verdicts(measured, {})[-1] == f"Zero-shot: {said}"


def test_on_test_alone_zero_shot_is_all_and_nothing_is_chosen_on_test_without_a_word() -> None:
    images, whole = synthetic.image_embeddings(), _outcome()
    none = Split(images.train.embeddings[:0], images.train.labels[:0], [])
    images = replace(images, train=none)
    other = synthetic.unit(synthetic.prototypes() + 0.3 * synthetic.prototypes()[[1, 2, 0]])
    outcomes = {
        OWN: evaluate(images, synthetic.prototypes(), None, probe=PROBE),
        "other": evaluate(images, other, None, probe=PROBE),
    }
    measured = findings.measure(
        outcomes, dict.fromkeys(outcomes, SIZE), images.test.labels, class_names=images.class_names
    )
    found = findings.as_metrics(measured)
    naive = (images.test.embeddings @ other.T).argmax(axis=1)
    test = found["other"]["zero_shot"]["test"]
    assert test["accuracy"] == pytest.approx((naive == images.test.labels).mean(), abs=1e-5)
    assert found[OWN] == {
        "zero_shot": {"test": findings.metrics.rounded(whole.metrics["zero_shot"])["test"]},
        "size": SIZE,
    }
    timing = {**TIMING, "images_per_s": {OWN: 12.5, "other": 1.0}}
    said = " ".join(findings.verdicts(measured, timing["images_per_s"]))
    best = max(found, key=lambda label: found[label]["zero_shot"]["test"]["accuracy"])
    accuracy = 100 * found[best]["zero_shot"]["test"]["accuracy"]
    assert "there are no train images to choose by" in said
    assert f"On test {best} has the most, {accuracy:.1f} %." in said
    assert "robe" not in said
    assert [row["method"] for row in findings.rows_for_plots(found)] == ["zero_shot", "zero_shot"]
    text = table.as_text(found, timing)
    rows = [line.split("|") for line in text.splitlines() if line.startswith(f"| {best} ")]
    assert [row[2].strip() for row in rows[:1]] == ["–"]
    assert "probe" not in text
    html = page.render(
        measured, timing, descriptions={OWN: "a", "other": "b"}, active="photo", attributes=images.attributes
    )
    assert "There are no train images to choose by" in html
    assert "linear probe" not in html.lower()


SIZE = {
    "n_parameters": 2,
    "n_image_parameters": 1,
    "n_bytes": 9,
    "input_height": 8,
    "input_width": 8,
    "dimension": 4,
}


def _metrics() -> dict[str, Any]:
    images, own = synthetic.image_embeddings(), _outcome()
    worse = {m: np.where(np.arange(90) < 40, (p + 1) % 3, p) for m, p in own.predicted.items()}
    other = Outcome({m: {**own.metrics[m]} for m in own.metrics}, worse)
    outcomes = {OWN: own, "same": own, "worse": other}
    return findings.as_metrics(
        findings.measure(
            outcomes, dict.fromkeys(outcomes, SIZE), images.test.labels, class_names=images.class_names
        )
    )


def test_differences_are_paired_with_the_own_model_and_corrected() -> None:
    found = _metrics()
    labels = synthetic.image_embeddings().test.labels
    own = _outcome().predicted["zero_shot"]
    changed = np.where(np.arange(90) < 40, (own + 1) % 3, own)
    expected = float((changed == labels).mean() - (own == labels).mean())
    assert "vs_own" not in found[OWN]["zero_shot"]
    half = round(1.959964 * np.sqrt(2) / 92, 5)  # Bonett and Price, of 90 images and nothing discordant
    same = {"difference": 0.0, "low": -half, "high": half, "p_holm": 1.0}
    assert found["same"]["zero_shot"]["vs_own"] == same
    assert found["worse"]["zero_shot"]["vs_own"]["difference"] == pytest.approx(expected, abs=1e-5)
    assert found["worse"]["zero_shot"]["vs_own"]["p_holm"] < 1e-4


def test_metrics_are_what_dvc_can_show() -> None:
    def check(value: Any) -> None:
        if isinstance(value, dict):
            assert all("." not in key for key in value)
            for inner in value.values():
                check(inner)
        else:
            assert isinstance(value, int | float)

    check(_metrics())
    rows = findings.rows_for_plots(_metrics())
    assert [(row["model"], row["method"]) for row in rows[:2]] == [(OWN, "zero_shot"), (OWN, "linear_probe")]


# What it combines


@pytest.mark.parametrize("other", ["dataset", "splits"])
def test_a_dataset_or_split_of_other_images_is_refused(
    other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_pages.write_run(tmp_path, class_names=["cat", "dog", "eel"])
    if other == "splits":
        rewrite(tmp_path / "splits.h5", "splits", dataset_digest="ab")
    else:
        found = read_dataset(tmp_path / "dataset.h5")
        found.train.labels[:2] = found.train.labels[1::-1]
        about: dict[str, Any] = {"class_names": found.class_names, "name": "made", "max_per_class": 0}
        write_dataset(tmp_path / "dataset.h5", found.train, found.test, **about)
    entry = {"name": f"local-dir:{DEMO}", "pretrained": None, "path": str(DEMO)}
    embed = {"device": "cpu", "precision": "fp32", "batch_size": 16, "workers": 0, "storage": "float32"}
    settings = {**study_pages.SETTINGS, "models": {"others": {"demo": entry}}, "embed": embed}
    monkeypatch.setattr(stage, "resolved", lambda _: pytest.fail("a model was fetched"))
    names = ("dataset.h5", "splits.h5", "prompts", "weights", "model.json", "images", "out", "page.html")
    with pytest.raises(DataError, match="dataset_digest is '") as caught:
        stage.main(settings, tmp_path, *(tmp_path / name for name in names))
    assert caught.value.exit_code == 3
    assert not (tmp_path / "out").exists()


def test_every_entry_is_resolved_before_any_embeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typo in the last would else be told after hours of work for the others."""
    study_pages.write_run(tmp_path, class_names=["cat", "dog", "eel"])
    entry = {"name": f"local-dir:{DEMO}", "pretrained": None, "path": str(DEMO)}
    others = {"good": entry, "typo": {**entry, "name": "ViT-B-23", "path": "data/none"}}
    embed = {"device": "cpu", "precision": "fp32", "batch_size": 16, "workers": 0, "storage": "float32"}
    settings = {**study_pages.SETTINGS, "models": {"others": others}, "embed": embed}
    (tmp_path / "prompts").mkdir()
    said = {key: [] for key in ("class_index", "sentences", "template_index", "templates", "origins")}
    (tmp_path / "prompts" / "photo.json").write_text(json.dumps({"name": "photo", **said}))
    (tmp_path / "model.json").write_text("{}")
    monkeypatch.setenv("CLIPCIFAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(stage, "embedded", lambda *_, **__: pytest.fail("images were embedded"))
    monkeypatch.setattr(Study, "add", lambda *_: pytest.fail("a backbone was judged"))
    names = ("dataset.h5", "splits.h5", "prompts", "weights", "model.json", "images", "out", "page.html")
    with pytest.raises(ConfigError, match="typo: open_clip has no architecture"):
        stage.main(settings, tmp_path, *(tmp_path / name for name in names))


# The tables and the page


def _scored(values: dict[str, float]) -> dict[str, Any]:
    return {label: {"zero_shot": {"train": {"accuracy": value}}} for label, value in values.items()}


def test_a_backbone_that_is_beaten_in_both_is_not_offered() -> None:
    found = _scored({"slow good": 0.9, "fast bad": 0.5, "slow bad": 0.5, "middle": 0.7, "twin": 0.7})
    speeds = {"slow good": 1.0, "fast bad": 9.0, "slow bad": 2.0, "middle": 5.0, "twin": 5.0}
    offered = table.undominated(found, speeds, method="zero_shot")
    assert offered == ["slow good", "fast bad", "middle", "twin"]
    assert table.best(found, method="zero_shot") == "slow good"


TIMING = {
    "device": "cpu",
    "precision": "fp32",
    "batch_size": 16,
    "images_per_s": {OWN: 12.5, "same": 1234.0, "worse": 3.0},
}


def test_the_tables_are_sorted_by_what_one_chooses_by() -> None:
    found = _metrics()
    found["worse"]["zero_shot"]["train"]["accuracy"] = 0.0
    text = table.as_text(found, TIMING)
    rows = [line for line in text.splitlines() if line.startswith("| ") and "model" not in line]
    labels = [line.split("|")[1].strip() for line in rows]
    assert labels[2] == "worse"
    assert labels[-3:] == ["same", OWN, "worse"]  # the fastest first
    assert "1,234" in text


def test_the_page_shows_every_backbone_and_runs_nothing_of_its_names() -> None:
    images, own = synthetic.image_embeddings(), _outcome()
    outcomes = {OWN: own, "same": own, "worse": own}
    html = page.render(
        findings.measure(
            outcomes, dict.fromkeys(outcomes, SIZE), images.test.labels, class_names=images.class_names
        ),
        TIMING,
        descriptions={OWN: "local-dir:<script>alert(1)</script>", "same": "a", "worse": "b"},
        active="photo",
        attributes=images.attributes,
    )
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    for part in ("same and own are right on exactly the same images", "1,234", "clipcifar models"):
        assert part in html


# The pipeline


@pytest.mark.pipeline
@pytest.mark.nightly  # two studies by day: few_shot and finetune
def test_the_study_runs_by_itself_and_once(workspace: Workspace, tmp_path: Path, tiny_clip: Path) -> None:
    near = shifted(DEMO, tmp_path / "near", seed=3)
    others = {
        label: {"name": f"local-dir:{folder}", "pretrained": None, "path": str(folder)}
        for label, folder in (("near", near), ("random", tiny_clip))
    }
    workspace.edit(lambda settings: settings["models"].update(others=others))
    workspace.repro()
    assert workspace.executed() == []
    workspace.start_study("models")
    assert workspace.executed() == ["models"]
    folder = workspace.folder / "data" / "studies" / "models"
    found = json.loads((folder / "metrics.json").read_text())
    assert list(found) == [OWN, "near", "random"]
    for method in findings.TITLES:  # the own model's numbers are those of the pipeline
        own = json.loads(workspace.read(f"metrics/{method}.json"))
        assert found[OWN][method]["test"]["accuracy"] == own["accuracy"]
    assert found[OWN]["zero_shot"]["test"]["accuracy"] > found["random"]["zero_shot"]["test"]["accuracy"]
    assert found["random"]["zero_shot"]["vs_own"]["p_holm"] < 0.001
    shown = workspace.command("clipcifar", "models").stdout
    assert f"{found['near']['linear_probe']['test']['accuracy']:.4f}" in shown
    assert "stale" not in shown
    workspace.edit(lambda settings: settings["linear_probe"].update(max_iter=1000))
    marked = workspace.command("clipcifar", "models").stdout
    line = "the study `models` is stale, changed since it was made: linear_probe.max_iter"
    assert marked == f"{line}; run `clipcifar study models`\n\n{shown}"
    workspace.edit(lambda settings: settings["linear_probe"].update(max_iter=2000))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    workspace.repro("studies/models/dvc.yaml")
    assert workspace.executed() == []
    cache = Path(workspace.environment["CLIPCIFAR_CACHE"])
    times = {path: path.stat().st_mtime_ns for path in (cache / "embeddings").iterdir()}
    assert len(times) == 2
    done = workspace.repro("--force", "--single-item", "studies/models/dvc.yaml:models")
    assert workspace.executed() == ["models"], done.stdout
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert {path: path.stat().st_mtime_ns for path in (cache / "embeddings").iterdir()} == times
