from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clipcifar.api import sides
from clipcifar.core.errors import ConfigError, DataError
from clipcifar.core.files import Attribute
from clipcifar.evaluation import results
from clipcifar.evaluation.compare import compare
from clipcifar.evaluation.verdict import copies_said
from clipcifar.methods import zero_shot
from clipcifar.project import revisions
from clipcifar.store import places
from clipcifar.store.embeddings import Split, read_texts, write_texts
from clipcifar.store.fields import class_names_attribute
from clipcifar.store.images import read_images, write_images
from clipcifar.store.predictions import Predictions, read_predictions

NAMES = ["cat", "dog", "eel"]


def _unit(rng: np.random.Generator, n: int) -> np.ndarray:
    rows = rng.normal(size=(n, 8)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder with embeddings, one prompt set and the predictions of one method."""
    rng = np.random.default_rng(0)
    attributes: dict[str, Attribute] = {
        "model": "m",
        "pretrained": "",
        "weights_sha256": "0",
        "preprocess": "{}",
        "logit_scale": 50.0,
        "class_names": class_names_attribute(NAMES),
        "dataset": "d",
        "dataset_digest": "1",
        "max_per_class": 0,
    }
    labels = rng.integers(0, 3, 20)
    split = Split(_unit(rng, 20), labels, [f"test/{i}" for i in range(20)])
    write_images(tmp_path / places.IMAGES, train=split, test=split, attributes=attributes)
    write_texts(
        tmp_path / places.TEXTS / "photo.h5",
        embeddings=_unit(rng, 3), class_index=np.arange(3), sentences=["a", "b", "c"], attributes=attributes,
    )  # fmt: skip
    images = read_images(tmp_path / places.IMAGES)
    for method in ("zero_shot", "mlp_probe"):
        results.write(
            method,
            rng.normal(size=(20, 3)).astype(np.float32),
            images,
            temperature=1.0,
            predictions_path=tmp_path / places.PREDICTIONS / f"{method}.h5",
            metrics_path=tmp_path / "m.json",
            details_path=tmp_path / "details/m.json",
            plots_folder=tmp_path / "plots",
        )
    return tmp_path


def test_the_workspace_and_a_method_are_read_from_their_files(repository: Path) -> None:
    zero_shot_file = read_predictions(repository / places.PREDICTIONS / "zero_shot.h5")
    mlp_file = read_predictions(repository / places.PREDICTIONS / "mlp_probe.h5")
    found = sides.load("workspace", repository=repository, method="zero_shot")
    np.testing.assert_array_equal(found.scores, zero_shot_file.scores)
    for name in ("mlp_probe", "method:mlp_probe"):
        np.testing.assert_array_equal(
            sides.load(name, repository=repository, method="zero_shot").scores, mlp_file.scores
        )


def test_copies_go_from_the_embeddings_to_the_test_of_a_comparison(repository: Path) -> None:
    """Rows 0 to 4 are one image, of which the MLP probe is right about all five and zero-shot about none."""
    images = read_images(repository / places.IMAGES)
    labels, wrong = images.test.labels, (images.test.labels + 1) % 3
    copies = np.array([0, 0, 0, 0, 0, *range(5, 20)])
    twinned = replace(images, test=replace(images.test, copies=copies))
    said = {"mlp_probe": labels, "zero_shot": np.where(np.arange(20) < 6, wrong, labels)}
    for method, predicted in said.items():
        results.write(
            method,
            np.eye(3, dtype=np.float32)[predicted],
            twinned,
            temperature=1.0,
            predictions_path=repository / places.PREDICTIONS / f"{method}.h5",
            metrics_path=repository / "m.json",
            details_path=repository / "details/m.json",
            plots_folder=repository / "plots",
        )
    a, b = (
        sides.load(name, repository=repository, method="zero_shot") for name in ("zero_shot", "mlp_probe")
    )
    pair = sides.align(a, b)
    assert pair.copies is not None
    compared = compare(pair.predicted_a, pair.predicted_b, labels, class_names=NAMES, copies=pair.copies)
    assert (compared.overall.only_b, compared.overall.n_copies) == (6, 4)
    assert compared.overall.p_value == pytest.approx(0.5)  # two groups; six images would be 2 / 64
    assert "4 images are exact copies of others among the 20" in copies_said(compared.overall)
    # In another order, and where the first side is of a version that knew of none.
    order = np.arange(20)[::-1]
    moved = Predictions(b.scores[order], b.labels[order], [b.ids[row] for row in order], b.attributes, None)
    back = sides.align(replace(a, copies=None), moved)
    assert back.copies is None
    again = sides.align(moved, a)
    assert again.copies is not None
    assert compare(
        again.predicted_b, again.predicted_a, again.labels, class_names=NAMES, copies=again.copies
    ).overall.p_value == pytest.approx(0.5)


def test_a_prompt_set_is_scored_from_the_cache(repository: Path) -> None:
    images = read_images(repository / places.IMAGES)
    texts = read_texts(repository / places.TEXTS / "photo.h5")
    weights = zero_shot.class_weights(texts.embeddings, texts.class_index, class_names=NAMES)
    for name in ("photo", "set:photo"):
        found = sides.load(name, repository=repository, method="linear_probe")
        np.testing.assert_array_equal(
            found.scores, zero_shot.logits(images.test.embeddings, weights, logit_scale=50.0)
        )


def commit(repository: Path) -> None:
    own = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    subprocess.run(["git", *own, "commit", "--quiet", "--message", "start"], cwd=repository, check=True)


def test_before_a_first_commit_it_is_said_how_to_make_one_and_what_needs_none(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fix_of(name: str) -> str:
        with pytest.raises(ConfigError, match="git has no commit of this project") as caught:
            sides.load(name, repository=repository, method="zero_shot")
        assert (caught.value.where, "\n" in caught.value.fix) == (str(repository), False)
        return caught.value.fix

    (repository / ".dvc").mkdir()
    (repository / ".dvc" / "config").touch()
    first, rest = fix_of("HEAD").split("; ")
    assert first.startswith("`git init`, then after a run `git add --all && git commit -m baseline`")
    assert (
        rest
        == "without a commit, compare two of the prompt sets and methods here: photo, zero_shot, mlp_probe"
    )
    assert fix_of("phto").startswith("did you mean photo? Else `git init`")
    subprocess.run(["git", "init", "--quiet"], cwd=repository, check=True)
    assert fix_of("HEAD").startswith("after a run `git add --all && git commit -m baseline` makes one")
    monkeypatch.setenv("PATH", "")
    assert fix_of("HEAD").startswith("install git: ")
    for path in repository.glob("data/*/*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert fix_of("HEAD").startswith("nothing was run here yet: run `dvc repro`; then ")


def test_a_commit_without_a_run_says_how_to_record_this_one(repository: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=repository, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=repository, check=True)
    commit(repository)
    with pytest.raises(ConfigError, match="no run that made") as caught:
        sides.load("HEAD", repository=repository, method="zero_shot")
    assert "or commit a finished run now: `git add --all && git commit -m baseline`" in caught.value.fix


def test_unknown_names_are_refused(repository: Path) -> None:
    with pytest.raises(ConfigError, match="unknown method"):
        sides.load("method:nope", repository=repository, method="zero_shot")
    with pytest.raises(ConfigError, match="no embedded prompt set 'nope'"):
        sides.load("set:nope", repository=repository, method="zero_shot")
    with pytest.raises(ConfigError, match="has no name"):
        sides.load("", repository=repository, method="zero_shot")
    subprocess.run(["git", "init", "--quiet"], cwd=repository, check=True)
    with pytest.raises(ConfigError, match="not inside of a DVC repository"):
        sides.load("v1.2", repository=repository, method="zero_shot")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=repository, check=True)
    commit(repository)
    with pytest.raises(ConfigError, match="nope"):
        revisions.predictions_at(repository, "nope", "data/predictions/zero_shot.h5")
    with pytest.raises(ConfigError) as caught:
        sides.load("phto", repository=repository, method="zero_shot")
    assert "prompt sets and methods here: photo, zero_shot" in caught.value.fix
    assert caught.value.fix.startswith("did you mean photo? Else name one that `git log`")
    with pytest.raises(ConfigError) as far:
        sides.load("v1.2", repository=repository, method="zero_shot")
    assert "did you mean" not in far.value.fix


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("workspace", ("workspace", "workspace")),
        ("photo", ("set", "photo")),
        ("set:photo", ("set", "photo")),
        ("rev:photo", ("rev", "photo")),
        ("zero_shot", ("method", "zero_shot")),
        ("HEAD~1", ("rev", "HEAD~1")),
        ("feature:x", ("rev", "feature:x")),
        ("../texts/photo", ("rev", "../texts/photo")),
    ],
)
def test_what_a_name_means(repository: Path, name: str, kind: tuple[str, str]) -> None:
    assert sides.kind_of(name, repository) == kind


def _predictions(ids: list[str], guesses: list[int], labels: list[int]) -> Predictions:
    scores = np.eye(3, dtype=np.float32)[guesses]
    return Predictions(scores, np.array(labels), ids, {"class_names": class_names_attribute(NAMES)})


def test_sides_are_joined_by_id() -> None:
    a = _predictions(["x", "y", "z"], [0, 1, 2], [0, 1, 1])
    b = _predictions(["z", "x", "y"], [1, 0, 2], [1, 0, 1])
    pair = sides.align(a, b)
    assert pair.predicted_a.tolist() == [0, 1, 2]
    assert pair.predicted_b.tolist() == [0, 2, 1]
    assert pair.labels.tolist() == [0, 1, 1]


def test_what_seeds_say_is_joined_by_id_too() -> None:
    a = replace(_predictions(["x", "y"], [0, 1], [0, 1]), by_seed=np.array([[0, 1], [2, 0], [1, 1]]))
    b = replace(_predictions(["y", "x"], [2, 0], [1, 0]), by_seed=np.array([[2, 0], [1, 2]]))
    pair = sides.align(a, b)
    assert pair.seeds_a is not None
    assert pair.seeds_b is not None
    assert pair.seeds_a.tolist() == [[0, 1], [2, 0], [1, 1]]
    assert pair.seeds_b.tolist() == [[0, 2], [2, 1]]


@pytest.mark.parametrize(
    ("method", "known"), [("mlp_probe", [[0, 1]]), ("projection", [[0, 1]]), ("linear_probe", None)]
)
def test_a_file_of_before_seeds_were_kept_has_the_seed_that_it_reports(
    method: str, known: list[list[int]] | None
) -> None:
    plain = _predictions(["x", "y"], [0, 1], [0, 1])
    before = replace(plain, attributes={**plain.attributes, "method": method})
    pair = sides.align(before, plain)
    assert (None if pair.seeds_a is None else pair.seeds_a.tolist()) == known
    assert pair.seeds_b is None


def test_other_images_labels_or_classes_are_refused() -> None:
    a = _predictions(["x", "y"], [0, 1], [0, 1])
    with pytest.raises(DataError, match="different images"):
        sides.align(a, _predictions(["x", "w"], [0, 1], [0, 1]))
    with pytest.raises(DataError, match="different labels"):
        sides.align(a, _predictions(["x", "y"], [0, 1], [0, 2]))
    other = Predictions(a.scores, a.labels, a.ids, {"class_names": class_names_attribute(["a", "b", "c"])})
    with pytest.raises(DataError, match="classes"):
        sides.align(a, other)
