"""`clipcifar export`, and `--json` and `--csv`, on a finished run."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

import clipcifar
from tests.support import command_line
from tests.support.workspace import ROOT, Workspace

pytestmark = pytest.mark.pipeline
HEADS = ("prompt_weighting", "gda", "linear_probe", "mlp_probe", "projection")
METHODS = ("zero_shot", "rank_prompts", *HEADS)


@pytest.fixture
def run(finished: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The command line below the shared run's folder, which stays as it is."""
    monkeypatch.chdir(finished.folder / "studies")
    monkeypatch.setenv("CLIPCIFAR_CACHE", finished.environment["CLIPCIFAR_CACHE"])

    def run(*arguments: str) -> tuple[object, str, str]:
        return command_line.run(monkeypatch, *arguments), *capsys.readouterr()

    return run


@pytest.fixture
def exported(run: Any, tmp_path: Path) -> Any:
    def exported(what: str, suffix: str) -> Any:
        path = tmp_path / f"{what}{suffix}"
        code, said, beside = run("export", what, str(path))
        assert (code, beside) == (0, "")
        assert said.startswith(f"{path}: ")
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return dict(arrays)
        if suffix == ".parquet":
            return pandas.read_parquet(path)
        return pandas.read_csv(path, float_precision="round_trip")

    return exported


def spread(table: pandas.DataFrame) -> np.ndarray[Any, Any]:
    return table.filter(regex=r"^embedding_\d+$").to_numpy(np.float32)


def test_embeddings_are_the_projects_in_every_format(exported: Any, finished: Workspace) -> None:
    images = clipcifar.open(finished.folder).images()
    arrays, table, rows = (exported("embeddings", suffix) for suffix in (".npz", ".csv", ".parquet"))
    assert arrays["class_names"].tolist() == images.class_names
    assert arrays["label_index"].tolist() == images.labels.tolist()
    assert {"train", "val", "test"} == set(arrays["split"])
    for read in (arrays, table, rows):
        assert list(read["id"]) == images.ids
        assert list(read["split"]) == images.split.tolist()
        assert list(read["label"]) == [images.class_names[label] for label in images.labels]
    for embeddings in (arrays["embedding"], spread(table), np.stack(rows["embedding"])):
        np.testing.assert_array_equal(embeddings, images.embeddings)


def test_sentences_are_those_of_the_prompt_sets(exported: Any, finished: Workspace) -> None:
    project = clipcifar.open(finished.folder)
    class_names = project.class_names
    arrays, table = exported("sentences", ".npz"), exported("sentences", ".csv")
    assert set(table["set"]) == set(project.prompt_sets)
    for name in project.prompt_sets:
        texts, of_set = project.prompt_set(name), arrays["set"] == name
        assert arrays["sentence"][of_set].tolist() == texts.sentences
        np.testing.assert_array_equal(arrays["embedding"][of_set], texts.embeddings)
        np.testing.assert_array_equal(spread(table[table["set"] == name]), texts.embeddings)
        assert list(table["class"][of_set]) == [class_names[i] for i in texts.class_index]


def test_predictions_have_the_accuracies_of_the_metrics(exported: Any, finished: Workspace) -> None:
    arrays, table, rows = (exported("predictions", suffix) for suffix in (".npz", ".csv", ".parquet"))
    numbers = {name: json.loads(finished.read(f"metrics/{name}.json")) for name in METHODS}
    for read in (table, rows):
        assert list(read)[:3] == ["id", "label", "label_index"]
        assert [name for name in METHODS if f"{name}_predicted" in read] == list(METHODS)
        pandas.testing.assert_frame_equal(read, table, check_dtype=False, rtol=0, atol=0)
    for method in METHODS:
        right = table[f"{method}_predicted"] == table["label"]
        assert round(float(right.mean()), 5) == pytest.approx(numbers[method]["accuracy"], abs=1e-5)
        scaled = arrays[f"{method}_scores"] / arrays[f"{method}_temperature"]
        shares = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        best = np.sort(shares, axis=1)[:, ::-1]
        np.testing.assert_allclose(arrays[f"{method}_probability"], best[:, 0], rtol=1e-5)
        np.testing.assert_allclose(arrays[f"{method}_margin"], best[:, 0] - best[:, 1], atol=1e-6)


def test_the_documented_arithmetic_gives_the_scores(
    exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.S)
    exported("heads", ".npz"), exported("embeddings", ".npz")
    predictions = exported("predictions", ".npz")
    monkeypatch.chdir(tmp_path)
    made: dict[str, Any] = {}
    exec(compile(example, "docs/export.md", "exec"), made)
    assert set(made["scores"]) == {"zero_shot", *HEADS}
    for method, scores in made["scores"].items():
        np.testing.assert_allclose(scores, predictions[f"{method}_scores"], rtol=1e-4, atol=1e-4)
        assert made["names"][method].tolist() == predictions[f"{method}_predicted"].tolist()
        assert made["head"][f"{method}/temperature"] == predictions[f"{method}_temperature"]
    for opened in (made["head"], made["images"]):
        opened.close()


def test_equal_results_give_equal_bytes(exported: Any, tmp_path: Path) -> None:
    written = []
    for _ in range(2):
        exported("heads", ".npz")
        written.append((tmp_path / "heads.npz").read_bytes())
        (tmp_path / "heads.npz").unlink()
    assert written[0] == written[1]


def test_what_is_stale_is_refused_and_the_rest_is_not(
    at: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(at.folder)
    at.edit(lambda settings: settings["linear_probe"].update(c_grid=[3]))
    for what in ("predictions", "heads"):
        assert command_line.run(monkeypatch, "export", what, str(tmp_path / "x.npz")) == 2
        said = capsys.readouterr().err
        assert "linear_probe is stale, changed since it was made: linear_probe.c_grid" in said
        assert "dvc repro linear_probe" in said
        assert not (tmp_path / "x.npz").exists()
    for what in ("embeddings", "sentences"):
        assert command_line.run(monkeypatch, "export", what, str(tmp_path / f"{what}.npz")) == 0
    at.edit(lambda settings: settings["split"].update(seed=9))
    assert command_line.run(monkeypatch, "export", "embeddings", str(tmp_path / "y.npz")) == 2
    assert "data/splits.h5 is stale" in capsys.readouterr().err


def test_documents_agree_with_the_files_and_with_each_other(run: Any, finished: Workspace) -> None:
    def rows(*arguments: str) -> list[dict[str, str]]:
        code, said, beside = run(*arguments, "--csv")
        assert (code, beside) == (0, "")
        return list(csv.DictReader(io.StringIO(said, newline="")))

    def data(*arguments: str) -> Any:
        code, said, beside = run(*arguments, "--json")
        assert (code, beside) == (0, "")
        return json.loads(said)

    shown = data("show")["methods"]
    for row in rows("show"):
        accuracy = json.loads(finished.read(f"metrics/{row['method']}.json"))["accuracy"]
        assert float(row["accuracy"]) == shown[row["method"]]["accuracy"] == accuracy
        assert row["stale"] == str(shown[row["method"]]["stale"]) == "False"
    compared = data("compare", "photo", "digits")
    whole, *classes = [row for row in rows("compare", "photo", "digits") if row["of"] != "balanced"]
    assert float(whole["difference"]) == compared["overall"]["difference"]
    assert [row["class"] for row in classes] == [entry["name"] for entry in compared["per_class"]]
    assert [float(row["p_holm"]) for row in classes] == [entry["p_holm"] for entry in compared["per_class"]]
    searched = data("search")
    assert searched["n_candidates"] == len(searched["candidates"])
    assert [row["template"] for row in rows("search")] == [row["template"] for row in searched["candidates"]]
