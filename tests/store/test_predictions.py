from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from clipcifar.core.errors import DataError
from clipcifar.core.files import Attribute
from clipcifar.evaluation import headline, metrics, results
from clipcifar.store import container
from clipcifar.store.embeddings import ImageEmbeddings, Split
from clipcifar.store.fields import class_names_attribute
from clipcifar.store.predictions import read_predictions, seeds_array, write_answers

CLASSES = ["cat", "dog", "=frog"]
N = 9
ATTRIBUTES: dict[str, Attribute] = {
    "model": "ViT-B-32",
    "pretrained": "laion2b",
    "weights_sha256": "ab" * 32,
    "dataset": "toy",
    "dataset_digest": "cd" * 32,
    "max_per_class": 5,
    "class_names": class_names_attribute(CLASSES),
    "fingerprint": "ef" * 32,
    "batch_size": 64,
}
TEST = Split(
    np.tile(np.eye(3, 4, dtype=np.float32), (3, 1)),
    np.array([0, 1, 2, 0, 1, 2, 0, 1, 1]),
    [f"test/{i}" for i in range(N)],
)
IMAGES = ImageEmbeddings(train=TEST, test=TEST, attributes=ATTRIBUTES)
SCORES = np.random.default_rng(0).standard_normal((N, 3)).astype(np.float32)


def write(folder: Path, scores: NDArray[Any] = SCORES, **changes: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "predictions_path": folder / "p.h5",
        "metrics_path": folder / "m.json",
        "details_path": folder / "details/m.json",
        "plots_folder": folder / "plots",
        "temperature": 2.0,
    }
    return results.write("a_method", scores, changes.pop("images", IMAGES), **{**options, **changes})


def recomputed(path: Path) -> dict[str, Any]:
    """The common metrics from the stored predictions alone."""
    found = read_predictions(path)
    class_names = json.loads(str(found.attributes["class_names"]))
    summary = metrics.summarise(found.scores, found.labels, class_names=class_names)
    temperature = float(found.attributes["temperature"])
    calibrated = metrics.calibrated(found.scores, found.labels, temperature=temperature)
    return metrics.rounded({**summary, "calibrated": calibrated})


@given(
    hnp.arrays(np.float32, (N, 3), elements=st.floats(-100, 100, width=32))
    | hnp.arrays(np.float64, (N, 3), elements=st.sampled_from([0.0, 1.0, 1.0 + 1e-12, 0.3]))
)
@settings(max_examples=30)
def test_the_metrics_recompute_exactly_from_the_stored_predictions(
    tmp_path_factory: pytest.TempPathFactory, scores: NDArray[Any]
) -> None:
    folder = tmp_path_factory.mktemp("results")
    written = write(folder, scores)
    stored = headline.read(folder, "m")
    assert stored == written
    common = recomputed(folder / "p.h5")
    assert {key: stored[key] for key in common} == common


def test_the_metrics_are_those_of_a_naive_count(tmp_path: Path) -> None:
    written = write(tmp_path)
    guesses = [max(range(3), key=lambda c: SCORES[i, c]) for i in range(N)]
    right = [guess == label for guess, label in zip(guesses, TEST.labels.tolist(), strict=True)]
    assert (written["n"], written["n_correct"]) == (N, sum(right))
    assert written["accuracy"] == round(sum(right) / N, 5)
    for label, name in enumerate(CLASSES):
        of_class = [hit for hit, actual in zip(right, TEST.labels, strict=True) if actual == label]
        assert written["per_class"][name] == round(sum(of_class) / len(of_class), 5)


def test_predictions_come_back_bit_for_bit_with_their_ids_and_origin(tmp_path: Path) -> None:
    write(tmp_path, extra_attributes={"C": 0.5})
    found = read_predictions(tmp_path / "p.h5")
    assert found.scores.tobytes() == SCORES.tobytes()
    np.testing.assert_array_equal(found.labels, TEST.labels)
    assert found.ids == TEST.ids
    assert found.attributes["method"] == "a_method"
    assert found.attributes["C"] == 0.5
    assert found.attributes["images_fingerprint"] == ATTRIBUTES["fingerprint"]
    assert "batch_size" not in found.attributes
    for key in ("model", "pretrained", "weights_sha256", "dataset", "dataset_digest", "class_names"):
        assert found.attributes[key] == ATTRIBUTES[key]


def test_the_origin_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    write(tmp_path / "a")
    other = replace(IMAGES, attributes=ATTRIBUTES | {"fingerprint": "00" * 32})
    write(tmp_path / "b", images=other)
    one, two = (read_predictions(tmp_path / name / "p.h5").attributes for name in "ab")
    assert one["fingerprint"] != two["fingerprint"]


def test_a_method_may_add_metrics_but_the_subset_is_always_said(tmp_path: Path) -> None:
    written = write(tmp_path, extra_metrics={"val": {"accuracy": 0.123456789}})
    assert written["val"] == {"accuracy": 0.12346}
    assert written["max_per_class"] == 5


def test_no_list_and_no_nan_is_written(tmp_path: Path) -> None:
    def leaves(value: Any) -> list[Any]:
        return (
            [leaf for part in value.values() for leaf in leaves(part)] if isinstance(value, dict) else [value]
        )

    write(tmp_path)
    for value in leaves(headline.read(tmp_path, "m")):
        assert isinstance(value, int | float)
        assert np.isfinite(value)


def test_equal_results_give_equal_files(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b")
    names = ["p.h5", "m.json", "details/m.json", "plots/per_class.csv", "plots/confusion.csv"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    written = sorted(path.relative_to(tmp_path / "a").as_posix() for path in (tmp_path / "a").rglob("*.*"))
    assert written == sorted(names)


def test_the_plots_tell_what_the_metrics_tell(tmp_path: Path) -> None:
    written = write(tmp_path)
    with open(tmp_path / "plots" / "confusion.csv", newline="") as stream:
        confusion = list(csv.DictReader(stream))
    shown = ["cat", "dog", "'=frog"]  # a cell that starts with = would run in a spreadsheet
    assert Counter((row["actual"], row["predicted"]) for row in confusion) == Counter(
        (shown[label], shown[guess]) for label, guess in zip(TEST.labels, SCORES.argmax(axis=1), strict=True)
    )
    assert sum(row["actual"] == row["predicted"] for row in confusion) == written["n_correct"]
    with open(tmp_path / "plots" / "per_class.csv", newline="") as stream:
        per_class = {row["class"]: float(row["accuracy"]) for row in csv.DictReader(stream)}
    assert per_class == dict(zip(shown, written["per_class"].values(), strict=True))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (SCORES[:-1], "scores"),
        (SCORES[:, :2], "scores"),
        (np.where(np.eye(N, 3, dtype=bool), np.nan, SCORES), "not finite"),
        (np.full((N, 3), 1e300), "not finite"),  # infinite once it is float32
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_scores_that_do_not_fit_are_refused_and_nothing_is_written(
    scores: NDArray[Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        write(tmp_path, scores)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["scores", "labels", "ids"])
def test_a_predictions_file_that_lacks_an_array_is_refused(name: str, tmp_path: Path) -> None:
    arrays = {"scores": SCORES, "labels": TEST.labels, "ids": container.encode_strings(TEST.ids)}
    del arrays[name]
    container.write(tmp_path / "p.h5", kind="predictions", arrays=arrays, attributes=ATTRIBUTES)
    with pytest.raises(DataError, match=f"not predictions: .*{name}") as caught:
        read_predictions(tmp_path / "p.h5")
    assert (caught.value.exit_code, caught.value.where) == (3, str(tmp_path / "p.h5"))


PREDICTED = SCORES.argmax(axis=1)
BY_SEED = np.stack([(PREDICTED + 1) % 3, PREDICTED, TEST.labels])


def test_what_each_seed_says_comes_back_and_is_stored_in_a_byte_each(tmp_path: Path) -> None:
    write(tmp_path, by_seed=BY_SEED)
    known = read_predictions(tmp_path / "p.h5").by_seed
    assert known is not None
    assert known.dtype == np.int64
    np.testing.assert_array_equal(known, BY_SEED)
    assert container.read(tmp_path / "p.h5", kind="predictions").arrays["by_seed"].dtype == np.uint8
    assert seeds_array(BY_SEED, num_classes=256).dtype == np.uint8
    assert seeds_array(BY_SEED, num_classes=257).dtype == np.uint16


def test_a_file_without_seeds_has_none(tmp_path: Path) -> None:
    """A method that has none writes the file that it wrote before seeds were kept, to the bit."""
    write(tmp_path)
    assert read_predictions(tmp_path / "p.h5").by_seed is None
    assert sorted(container.read(tmp_path / "p.h5", kind="predictions").arrays) == ["ids", "labels", "scores"]


@pytest.mark.parametrize(
    ("by_seed", "message"),
    [
        (BY_SEED.astype(np.int64), "found int64"),
        (BY_SEED.astype(np.float32), "found float32"),
        (BY_SEED[1].astype(np.uint8), "uint8 \\(9,\\)"),
        (BY_SEED[:, :-1].astype(np.uint8), "9 int64 class indices"),
        (np.where(BY_SEED == 2, 3, BY_SEED).astype(np.uint8), "outside 0 to 2"),
        (np.full((2, N), 2**64 - 1, dtype=np.uint64), "outside 0 to 2"),
        (BY_SEED[[0, 2]].astype(np.uint8), "none of the seeds"),
        (np.zeros((0, N), dtype=np.uint8), "none of the seeds"),
    ],
)
def test_seeds_that_do_not_fit_are_refused(by_seed: NDArray[Any], message: str, tmp_path: Path) -> None:
    arrays = {"scores": SCORES, "labels": TEST.labels, "ids": container.encode_strings(TEST.ids)}
    own = {**ATTRIBUTES, "images_fingerprint": "ef" * 32}
    path = tmp_path / "p.h5"
    container.write(path, kind="predictions", arrays={**arrays, "by_seed": by_seed}, attributes=own)
    with pytest.raises(DataError, match=f"not predictions: .*{message}") as caught:
        read_predictions(path)
    assert caught.value.where == str(path)


def test_without_val_images_there_is_no_temperature_and_no_number_that_would_need_one(tmp_path: Path) -> None:
    with_val, without = (
        write(tmp_path / "with", SCORES),
        write(tmp_path / "without", SCORES, temperature=None),
    )
    assert without == {**{key: with_val[key] for key in with_val if key != "calibrated"}, "n_val": 0}
    assert "temperature" not in read_predictions(tmp_path / "without" / "p.h5").attributes
    kept = json.loads((tmp_path / "without" / "details" / "m.json").read_text())["dvc plots"]
    both = json.loads((tmp_path / "with" / "details" / "m.json").read_text())["dvc plots"]
    assert kept == [row for row in both if row["calibration"] == "raw"]
    assert len(kept) < len(both)


@pytest.mark.parametrize("temperature", [0.0, -1.0, "2"])
def test_a_temperature_that_is_none_is_refused(temperature: float | str, tmp_path: Path) -> None:
    write(tmp_path, SCORES)
    file = container.read(tmp_path / "p.h5", kind="predictions")
    own = {key: value for key, value in file.attributes.items() if key not in container._DIGESTS}
    container.write(
        tmp_path / "p.h5",
        kind="predictions",
        arrays=file.arrays,
        attributes={**own, "temperature": temperature},
    )
    with pytest.raises(DataError, match="temperature"):
        read_predictions(tmp_path / "p.h5")


def test_another_kind_of_file_is_not_read_as_predictions(tmp_path: Path) -> None:
    container.write(tmp_path / "p.h5", kind="head", arrays={}, attributes={})
    with pytest.raises(DataError, match="expected predictions, schema 1; found head"):
        read_predictions(tmp_path / "p.h5")


def test_answers_are_written_beside_the_images_that_were_asked_about(tmp_path: Path) -> None:
    rows = np.array([4, 0, 8])
    said = {"a/b": np.array([1, 0, 2])}
    write_answers(tmp_path / "p.h5", said, IMAGES, kind="answers", rows=rows, attributes={"source": "made"})
    file = container.read(tmp_path / "p.h5", kind="answers")
    np.testing.assert_array_equal(file.arrays["a/b"], said["a/b"])
    assert container.decode_strings(file.arrays["ids"]) == ["test/4", "test/0", "test/8"]
    assert file.arrays["labels"].tolist() == [1, 0, 1]
    assert file.attributes["images_fingerprint"] == IMAGES.attributes["fingerprint"]
    assert file.attributes["source"] == "made"
    write_answers(tmp_path / "all.h5", {}, IMAGES, kind="answers")
    assert (
        container.decode_strings(container.read(tmp_path / "all.h5", kind="answers").arrays["ids"])
        == TEST.ids
    )
