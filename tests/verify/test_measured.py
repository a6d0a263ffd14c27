"""A run's numbers counted again from small files of one run, and files that are of two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipcifar.core import files
from clipcifar.core.errors import DataError
from clipcifar.evaluation import metrics, results
from clipcifar.evaluation.names import TRAINED
from clipcifar.store import container
from clipcifar.store.embeddings import read_texts, write_texts
from clipcifar.store.images import read_images
from clipcifar.store.predictions import read_predictions, write_set_predictions
from clipcifar.verify import measured
from tests.stages.test_methods import rewrite
from tests.support.made import NAMES, write_embeddings

SETS = ("photo", "other")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """predictions/, metrics/ and texts/ of a run with made-up scores; projection learnt beside photo."""
    write_embeddings(tmp_path)
    images, rng = read_images(tmp_path / "images"), np.random.default_rng(0)
    shape = (len(images.test.labels), len(NAMES))
    for method in TRAINED:
        photo = read_texts(tmp_path / "texts" / "photo.h5").attributes["fingerprint"]
        results.write(
            method,
            rng.normal(size=shape).astype(np.float32),
            images,
            temperature=1.0,
            predictions_path=tmp_path / "predictions" / f"{method}.h5",
            metrics_path=tmp_path / "metrics" / f"{method}.json",
            details_path=tmp_path / "metrics" / "details" / f"{method}.json",
            plots_folder=tmp_path / "plots" / method,
            extra_attributes={"texts_fingerprint": photo} if method == "projection" else {},
        )
    of_sets = {name: rng.normal(size=shape).astype(np.float32) for name in SETS}
    write_set_predictions(tmp_path / "predictions" / "prompt_sets.h5", of_sets, images)
    results.write_sets(
        tmp_path / "metrics" / "prompt_sets.json",
        tmp_path / "metrics" / "details" / "prompt_sets.json",
        {
            name: {"test": metrics.summarise(scores, images.test.labels, class_names=NAMES)}
            for name, scores in of_sets.items()
        },
    )
    return tmp_path


def read(folder: Path) -> measured.Run:
    return measured.read(folder / "predictions", folder / "metrics", folder / "texts")


def test_a_run_is_counted_from_its_predictions(run: Path) -> None:
    found = read(run)
    assert (found.projected, found.class_names, found.dataset) == ("photo", NAMES, "made")
    assert (set(found.methods), set(found.sets)) == (set(TRAINED), set(SETS))
    for name, counted in found.methods.items():
        file = read_predictions(run / "predictions" / f"{name}.h5")
        right = file.scores.argmax(axis=1) == file.labels
        assert counted.total == (90, int(right.sum()))
        assert counted.n_correct.tolist() == [int(right[file.labels == c].sum()) for c in range(3)]
    assert found.sentences["photo"] == measured.said_by([0, 1, 2], [f"photo {name}" for name in NAMES])


def test_weighted_sentences_are_no_published_set(run: Path) -> None:
    """The same sentences, otherwise weighted, are another classifier."""
    texts = read_texts(run / "texts" / "photo.h5")
    write_texts(
        run / "texts" / "photo.h5",
        embeddings=texts.embeddings,
        class_index=texts.class_index,
        sentences=texts.sentences,
        attributes={key: value for key, value in texts.attributes.items() if key not in container._DIGESTS},
        weights=np.array([1.0, 1.0, 2.0]),
    )
    found = read(run)
    assert not found.sentences["photo"]
    assert found.sentences["other"]


@pytest.mark.parametrize("name", ["linear_probe", "mlp_probe", "projection", "prompt_sets"])
def test_predictions_of_other_embeddings_are_not_of_this_run(run: Path, name: str) -> None:
    """Whichever file it is: the first of them is what the others are held to."""
    path = run / "predictions" / f"{name}.h5"
    kind = "prompt set predictions" if name == "prompt_sets" else "predictions"
    rewrite(path, kind, images_fingerprint="0" * 64)
    with pytest.raises(DataError, match="computed from other embeddings") as caught:
        read(run)
    first = run / "predictions" / "mlp_probe.h5"  # held to the one before it, which is of other ones
    assert caught.value.where == str(first if name == "linear_probe" else path)


def more(key: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda entry: {**entry, key: entry[key] + 1}


@pytest.mark.parametrize(
    "change", [more("n"), more("n_correct"), lambda entry: {}], ids=["n", "right", "none"]
)
@pytest.mark.parametrize("name", [*TRAINED, *SETS])
def test_metrics_that_are_not_those_of_the_predictions_are_refused(
    run: Path, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    path = run / "metrics" / ("prompt_sets.json" if name in SETS else f"{name}.json")
    changed = path.parent / "details" / path.name if name in SETS else path
    written = files.read_json(changed)
    if name in SETS:
        written[name] = {"test": change(written[name]["test"])}
    else:
        written = change(written)
    files.write_json(changed, written)
    with pytest.raises(DataError, match=f"does not say of {name} what the predictions do") as caught:
        read(run)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("name", [*TRAINED, *SETS])
def test_an_accuracy_that_is_not_that_of_the_counts_is_refused(run: Path, name: str) -> None:
    path = run / "metrics" / ("prompt_sets.json" if name in SETS else f"{name}.json")
    written = files.read_json(path)
    (written[name] if name in SETS else written)["accuracy"] += 0.01
    files.write_json(path, written)
    with pytest.raises(DataError, match=f"does not say of {name} what the predictions do"):
        read(run)


def test_prompt_sets_and_projection_belong_to_the_embedded_sentences(run: Path) -> None:
    rewrite(run / "predictions" / "projection.h5", "predictions", texts_fingerprint="0" * 64)
    with pytest.raises(DataError, match="its prompt set is not among the embedded ones"):
        read(run)
    (run / "texts" / "other.h5").unlink()
    with pytest.raises(DataError, match="its prompt sets are not those"):
        read(run)
