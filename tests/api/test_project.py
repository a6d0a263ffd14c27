"""The door for Python, against the files that the stages left."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import clipcifar
from clipcifar.core.errors import ConfigError, DataError
from clipcifar.core.files import read_json
from clipcifar.evaluation.signs import mcnemar_exact
from clipcifar.store.embeddings import read_texts
from clipcifar.store.images import read_images
from clipcifar.store.predictions import read_predictions
from clipcifar.store.splits import read_splits
from tests.support.import_closure import ROOT
from tests.support.workspace import Workspace


def in_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_asks_for_nothing_heavy() -> None:
    """Neither a library nor a module of its own comes before something is asked for."""
    said = in_python(
        """
        import sys
        before = set(sys.modules)
        import clipcifar
        new = set(sys.modules) - before
        print(sorted(name for name in new if name.split(".")[0] not in sys.stdlib_module_names))
        """
    )
    assert said.strip() == "['clipcifar']"


def test_embeddings_sentences_and_the_linear_probe_need_no_torch(project: clipcifar.Project) -> None:
    said = in_python(
        f"""
        import sys, clipcifar
        project = clipcifar.open({str(project.root)!r})
        rows = project.images("test").embeddings
        project.zero_shot("photo").predict_proba(rows), project.classifier("linear_probe").predict(rows)
        project.linear_probe().predict(rows), project.compare("photo", "digits").verdict
        print([name for name in ("torch", "open_clip", "dvc") if name in sys.modules])
        """
    )
    assert said.strip() == "[]"


def test_its_names_are_those_that_it_offers() -> None:
    assert {name: getattr(clipcifar, name).__name__ for name in clipcifar.__all__} == {
        "Classifier": "Classifier",
        "ClipcifarError": "ClipcifarError",
        "Project": "Project",
        "open": "open",
    }
    assert set(clipcifar.__all__) <= set(dir(clipcifar))
    with pytest.raises(AttributeError, match="has no attribute 'opne'"):
        clipcifar.opne  # type: ignore[attr-defined]  # noqa: B018


def test_a_service_can_log_the_version_that_answers() -> None:
    assert clipcifar.__version__ == importlib.metadata.version("clipcifar")


def test_a_type_checker_finds_a_name_that_is_not_there(tmp_path: Path) -> None:
    """A program of a user's own: what lies behind the package's front is not looked at, which is quick."""
    program = tmp_path / "program.py"
    program.write_text("import clipcifar\nclipcifar.open\nprint(clipcifar.__version__)\nclipcifar.opne\n")
    options = ["--config-file=", f"--cache-dir={tmp_path / 'cache'}", "--follow-imports=skip"]
    command = [sys.executable, "-m", "mypy", *options, clipcifar.__file__, str(program)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[:-1] == [
        f'{program}:4: error: Module has no attribute "opne"  [attr-defined]'
    ], done.stderr


def test_what_a_notebook_shows_of_an_answer_is_short(project: clipcifar.Project) -> None:
    images, scored, photo = project.images(), project.scored("zero_shot"), project.prompt_set("photo")
    names = [*images.ids[:3], *scored.ids[:3], *photo.sentences]
    shown = [repr(answer) for answer in (images, scored, photo)]
    assert [text for text in shown if any(repr(name) in text for name in names)] == []
    assert repr(project.classifier("linear_probe")).endswith("dim=32)")


def test_a_project_is_found_upward(project: clipcifar.Project, tmp_path: Path) -> None:
    assert clipcifar.open(project.root / "studies" / "few_shot").root == project.root
    with pytest.raises(ConfigError, match="there is no project here"):
        clipcifar.open(tmp_path)


def test_images_are_those_of_the_file_by_split(project: clipcifar.Project) -> None:
    """Every image once, with its own row, label, id and split."""
    file = read_images(project.root / "data/embeddings/images")
    rows = read_splits(project.root / "data/splits.h5", file.train.ids, dataset_digest=file.dataset_digest)
    everything = project.images()
    assert everything.ids == file.train.ids + file.test.ids
    assert (everything.embeddings == np.concatenate([file.train.embeddings, file.test.embeddings])).all()
    assert (np.flatnonzero(everything.split == "val") == rows.val).all()
    assert (np.flatnonzero(everything.split == "train") == rows.train).all()
    for part in ("train", "val", "test"):
        images, chosen = project.images(part), np.flatnonzero(everything.split == part)
        assert images.ids == [everything.ids[row] for row in chosen]
        assert (images.embeddings == everything.embeddings[chosen]).all()
        assert (images.labels == everything.labels[chosen]).all()
        assert set(images.split) == {part}
    assert project.class_names == file.class_names == everything.class_names


def test_a_prompt_set_and_what_was_measured_are_as_on_disk(project: clipcifar.Project) -> None:
    texts, file = project.prompt_set("digits"), read_texts(project.root / "data/embeddings/texts/digits.h5")
    assert texts.sentences == file.sentences
    assert (texts.embeddings == file.embeddings).all()
    assert project.prompt_sets == ["digits", "photo"]
    headline = read_json(project.root / "metrics/mlp_probe.json")
    numbers = project.metrics("mlp_probe")
    assert {key: numbers[key] for key in headline} == headline
    assert "per_class" in numbers


def test_provenance_says_which_model_and_data(project: clipcifar.Project) -> None:
    model = read_json(project.root / "data/model.json")
    of = project.provenance
    assert (of["model"], of["weights_sha256"]) == (model["model"], model["weights_sha256"])
    assert (of["dataset"], of["class_names"]) == ("digits", project.class_names)
    assert of["version_torch"].startswith("2.")


def test_a_comparison_is_that_of_the_stored_predictions(project: clipcifar.Project) -> None:
    """Recomputed by hand: who is right where, and the exact test of the images on which they differ."""
    a, b = (
        read_predictions(project.root / f"data/predictions/{name}.h5")
        for name in ("zero_shot", "linear_probe")
    )
    right_a, right_b = a.predicted == a.labels, b.predicted == b.labels
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    compared = project.compare("zero_shot", "linear_probe")
    assert (compared.overall.only_a, compared.overall.only_b) == (only_a, only_b)
    assert compared.overall.p_value == mcnemar_exact(only_a, only_b)
    assert compared.overall.difference == pytest.approx((only_b - only_a) / len(a.labels))
    word = "better" if only_b > only_a else "worse"
    assert compared.verdict.startswith(f"linear_probe is {word} than zero_shot: ")
    assert (
        project.compare("photo", "photo").verdict == "photo and photo are right on exactly the same images."
    )


def test_predictions_are_a_frame_with_calibrated_probabilities(project: clipcifar.Project) -> None:
    """A row's probability and margin, by hand from the stored scores."""
    stored = read_predictions(project.root / "data/predictions/mlp_probe.h5")
    frame = project.predictions("mlp_probe")
    assert list(frame) == ["id", "label", "predicted", "probability", "margin"]
    assert len(frame["id"]) == len(stored.ids)
    row = 7
    weights = np.exp(stored.scores[row].astype(np.float64) / float(stored.attributes["temperature"]))
    second, first = np.sort(weights / weights.sum())[-2:]
    told = frame.iloc[row]  # type: ignore[union-attr]
    assert (told["id"], told["label"]) == (stored.ids[row], project.class_names[stored.labels[row]])
    assert told["predicted"] == project.class_names[int(stored.scores[row].argmax())]
    assert (told["probability"], told["margin"]) == pytest.approx((first, first - second), abs=1e-6)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda p: p.images("validation"), "split 'validation'"),
        (lambda p: p.classifier("linear_prob"), "method 'linear_prob'\n  fix:   did you mean linear_probe"),
        (lambda p: p.metrics("zeroshot"), "method 'zeroshot'\n  fix:   did you mean zero_shot"),
        (lambda p: p.prompt_set("fotos"), "embedded prompt set 'fotos'"),
        (lambda p: p.zero_shot("phto"), "did you mean photo"),
        (lambda p: p.compare("photo", "digts"), "did you mean digits"),
        (lambda p: p.zero_shot("photo", labels=["a", "b"]), "not several of them"),
        (lambda p: p.zero_shot(labels=["a cat"]), "one label alone"),
        (lambda p: p.zero_shot(labels=["a cat", "a cat"]), "two classes are the same"),
        (lambda p: p.zero_shot(templates=["a photo"]), "{classname}"),
    ],
)
def test_a_wrong_name_is_told_with_what_there_is(project: clipcifar.Project, ask, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError) as caught:
        ask(project)
    assert words in str(caught.value)


@pytest.mark.pipeline
def test_what_is_stale_is_refused_and_what_is_not_is_given(at: Workspace) -> None:
    """As the commands do: after an edit of the active set, what rests on it, and nothing else."""
    project = clipcifar.open(at.folder)
    before = project.images("test").embeddings
    at.edit(lambda settings: settings["prompts"]["sets"]["photo"].update(templates=["one {classname}."]))
    for ask in (
        lambda: project.classifier("zero_shot"),
        lambda: project.metrics("zero_shot"),
        lambda: project.classifier("projection"),
        lambda: project.compare("photo", "digits"),
    ):
        with pytest.raises(ConfigError) as caught:
            ask()
        assert "stale" in caught.value.what
        assert caught.value.fix.startswith("run `dvc repro")
    assert (project.images("test").embeddings == before).all()
    assert len(project.classifier("linear_probe").predict(before)) == len(before)
    assert project.zero_shot("digits").temperature is not None


@pytest.mark.pipeline
def test_a_damaged_or_missing_file_is_told_by_name(at: Workspace) -> None:
    project = clipcifar.open(at.folder)
    path = at.folder / "data/heads/linear_probe.h5"
    harmed = bytearray(path.read_bytes())
    harmed[len(harmed) // 2] ^= 1
    path.unlink()
    path.write_bytes(harmed)
    with pytest.raises(DataError, match="linear_probe"):
        project.classifier("linear_probe")
    path.unlink()
    with pytest.raises(DataError) as caught:
        project.classifier("linear_probe")
    assert "dvc checkout" in caught.value.fix


@pytest.mark.pipeline
def test_what_was_read_once_is_read_again_when_it_was_written_again(at: Workspace) -> None:
    """A run beside an open notebook: the next answer is of the new file, an old classifier stays itself."""
    project = clipcifar.open(at.folder)
    old, probe = project.images(), project.classifier("linear_probe")
    at.edit(lambda settings: settings["dataset"].update(max_per_class=20))
    at.repro("linear_probe")
    new = project.images("test")
    assert len(new.ids) == 200 < (old.split == "test").sum()
    assert (_coefficients(project.classifier("linear_probe")) != _coefficients(probe)).any()
    assert (
        probe.scores(old.embeddings) == old.embeddings @ _coefficients(probe).T + _intercepts(probe)
    ).all()


def _coefficients(probe: clipcifar.Classifier) -> np.ndarray:
    return probe._logits.__self__.coefficients  # type: ignore[attr-defined,no-any-return]


def _intercepts(probe: clipcifar.Classifier) -> np.ndarray:
    return probe._logits.__self__.intercepts  # type: ignore[attr-defined,no-any-return]
