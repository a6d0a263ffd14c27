"""The door asked in every wrong way: odd arguments, half a project, many threads, other readers."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Barrier
from typing import Any

import h5py
import numpy as np
import pandas
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import clipcifar
from clipcifar.api.opened import Opened, warn_caller
from clipcifar.core.errors import ConfigError, DataError
from tests.support.workspace import TEXT_SIDE, Workspace

Ask = Callable[[Any], object]
PART = "data/embeddings/images/part-00000.h5"
LETTERS = "expected a list of"  # a single text would be taken for its letters


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda p: p.images(5), "expected text, the name of the split; found int"),
        (lambda p: p.images(["test"]), "found list"),
        (lambda p: p.images(""), "there is no split ''"),
        (lambda p: p.prompt_set(None), "found NoneType\n  fix:   use one of: digits, photo"),
        (lambda p: p.prompt_set("../texts/photo"), "there is no embedded prompt set '../texts/photo'"),
        (lambda p: p.metrics(5), "the name of the method; found int"),
        (lambda p: p.scored("../predictions/zero_shot"), "there is no method"),
        (
            lambda p: p.scored("photo"),
            "'photo' is a prompt set, and no method\n  fix:   project.zero_shot('photo')",
        ),
        (lambda p: p.metrics("photo"), "'photo' is a prompt set, and no method"),
        (lambda p: p.classifier("photo"), "'photo' is a prompt set, and no method"),
        (lambda p: p.classifier("prompt_sets"), "there is no method 'prompt_sets'"),
        (lambda p: p.zero_shot(""), "there is no embedded prompt set ''"),
        (lambda p: p.zero_shot(0), "the name of the embedded prompt set; found int"),
        (lambda p: p.zero_shot(["a {classname}."]), "found list"),
        (lambda p: p.zero_shot(templates="a {classname}."), f"{LETTERS} templates, found str"),
        (lambda p: p.zero_shot(templates=5), "expected a list of templates, found int"),
        (lambda p: p.zero_shot(templates=[]), "at least one entry"),
        (
            lambda p: p.zero_shot(templates=["a {classname}.", 5]),
            "found int\n  where: template 1",
        ),
        (lambda p: p.zero_shot(labels="cat"), f"{LETTERS} labels, found str"),
        (lambda p: p.zero_shot(labels=[]), "give two or more"),
        (lambda p: p.zero_shot(labels=["cat", " "]), "a label is empty"),
        (lambda p: p.zero_shot(labels=["cat", "cat"]), "say something else of one of the two"),
        (lambda p: p.zero_shot(labels=["cat", "a\ud800"]), "not UTF-8"),
        (lambda p: p.zero_shot(labels=["cat", "a " * 500]), "where: the sentences"),
        (lambda p: p.embed_sentences("a cat"), f"{LETTERS} sentences, found str"),
        (lambda p: p.embed_sentences([None]), "expected text, found NoneType"),
        (lambda p: p.find(5), "expected text, found int\n  where: the query"),
        (lambda p: p.find("a\ud800"), "not UTF-8"),
        (lambda p: p.find("a cat", top=0), "top is 0, expected a whole number from 1"),
        (lambda p: p.find("a cat", top=2.5), "top is 2.5"),
        (lambda p: p.find("a cat", top="3"), "top is '3'"),
        (lambda p: p.find("a cat", class_name=3), "found int\n  where: class_name"),
        (lambda p: p.compare("photo", None), "found NoneType\n  where: side 1"),
        (lambda p: p.compare("photo", "--output=x"), "no commit, branch, tag or experiment"),
        (lambda p: p.compare("photo", "a\0b"), "no commit, branch, tag or experiment"),
    ],
)
def test_a_wrong_argument_is_told_in_words(project: clipcifar.Project, ask: Ask, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ask(project)
    assert words in str(caught.value)


def png() -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    return stream.getvalue()


def closed_image() -> Image.Image:
    image = Image.open(io.BytesIO(png()))
    image.close()
    return image


NO_IMAGES: dict[str, tuple[Callable[[], object], str]] = {
    "nothing": (lambda: None, "not an image: NoneType"),
    "a list of nothing": (lambda: [None], "not an image: NoneType"),
    "a folder": (lambda: "/", "a folder"),
    "half a file's bytes": (lambda: png()[:2000], "cannot be decoded"),
    "half a file, opened by PIL": (lambda: Image.open(io.BytesIO(png()[:2000])), "cannot be decoded"),
    "a closed image": (closed_image, "cannot be decoded: Operation on closed image"),
    "an open file": (lambda: io.BytesIO(png()), "not an image: BytesIO"),
    "levels as floats": (lambda: np.zeros((8, 8, 3), np.float32), "is (H, W, 3) uint8"),
    "transparency in an array": (lambda: np.zeros((8, 8, 4), np.uint8), "is (H, W, 3) uint8"),
    "no pixels": (lambda: np.zeros((0, 8, 3), np.uint8), "is (H, W, 3) uint8"),
    "no dimension": (lambda: np.uint8(3), "is (H, W, 3) uint8"),
    "channels first": (lambda: torch.zeros(3, 8, 8), "is (H, W, 3) uint8"),
    "rows as lists": (lambda: [[0.6, 0.8]], "embeddings are an (N, D) array"),
}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_image_is_told_with_its_place(project: clipcifar.Project, name: str) -> None:
    made, words = NO_IMAGES[name]
    with pytest.raises(DataError) as caught:
        project.embed_images(made())  # type: ignore[arg-type]
    assert words in str(caught.value)
    assert caught.value.where


@pytest.mark.parametrize("mode", ["I", "I;16B", "PA", "RGBX", "LAB", "HSV", "La", "RGBa"])
def test_a_pil_image_in_a_mode_that_no_file_has_is_read(project: clipcifar.Project, mode: str) -> None:
    rows = project.embed_images(Image.new(mode, (9, 9)))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-4)


def test_the_bytes_of_a_file_are_the_file(project: clipcifar.Project, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png())
    of_file = project.embed_images(tmp_path / "x.png")
    assert (project.embed_images(png()) == of_file).all()
    assert (project.embed_images([png()]) == of_file).all()


def test_whatever_numpy_sees_as_an_array_is_one(project: clipcifar.Project, tmp_path: Path) -> None:
    """Rows as a notebook has them: of h5py, torch, a table; paths as a column of a table."""
    probe, rows = project.classifier("linear_probe"), project.images().embeddings[:3]
    expected = probe.predict(rows)
    with h5py.File(project.root / PART) as file:
        assert probe.predict(file["embeddings"])[:3] == expected
    wide = rows.astype(np.float64)
    for same in (wide, wide[::-1][::-1], np.asfortranarray(rows), torch.tensor(rows), pandas.DataFrame(rows)):
        assert probe.predict(same) == expected  # type: ignore[arg-type]
    (tmp_path / "x.png").write_bytes(png())
    column = pandas.Series([str(tmp_path / "x.png")] * 2)
    one_by_one = project.embed_images([*column])
    for paths in (column, column.to_numpy(), np.array(column.tolist())):
        assert (project.embed_images(paths) == one_by_one).all()


def test_nothing_asked_is_nothing_answered(project: clipcifar.Project) -> None:
    dim = project.images("val").embeddings.shape[1]
    assert project.embed_sentences([]).shape == project.embed_images([]).shape == (0, dim)
    for method in ("zero_shot", "prompt_weighting", "gda", "linear_probe", "mlp_probe", "projection"):
        classifier = project.classifier(method)
        for nothing in ([], np.zeros((0, dim), np.float32), np.zeros((0, 8, 8, 3), np.uint8)):
            assert classifier.predict(nothing) == []
            assert classifier.predict_proba(nothing).shape == (0, 10)


def test_a_folder_that_is_not_there_is_told(project: clipcifar.Project, tmp_path: Path) -> None:
    for folder in (tmp_path / "gone", project.root / "data" / "gone", "a\0b", "~no-such-account/x"):
        with pytest.raises(ConfigError, match="there is no such folder"):
            clipcifar.open(folder)


def test_the_current_folder_matters_to_opening_alone(
    project: clipcifar.Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative name is of when it was opened; later the folder may be another one, or none."""
    monkeypatch.chdir(project.root.parent)
    relative = clipcifar.open(project.root.name)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigError, match="there is no such folder"):
        clipcifar.open()
    assert relative.root == project.root
    ask_everything(relative)


def ask_everything(project: clipcifar.Project) -> list[object]:
    """What a session asks for, with results that can be compared."""
    rows = project.images("test").embeddings
    pixels = np.full((2, 8, 8, 3), 90, np.uint8)
    new = [f"sentence {i} of {os.urandom(4).hex()}" for i in range(3)]
    return [
        project.metrics("zero_shot")["accuracy"],
        project.zero_shot(labels=["a drawing of one", "a drawing of two"]).predict(rows),
        project.zero_shot(templates=["the number {classname}"]).predict(pixels),
        project.classifier("mlp_probe").predict_proba(pixels).tolist(),
        project.linear_probe().predict(rows).tolist(),
        project.compare("photo", "digits").verdict,
        project.embed_sentences(new).shape,
        [hit.id for hit in project.find("a drawing of zero", top=3)],
    ]


@pytest.mark.parametrize(
    "ask",
    [
        lambda p: p.images(),
        lambda p: p.prompt_set("photo"),
        lambda p: p.zero_shot("photo"),
        lambda p: p.zero_shot(templates=["the number {classname}"]),
        lambda p: p.classifier("linear_probe"),
        lambda p: p.find("a drawing of zero", top=np.int64(3)),
        lambda p: p.find(image=np.zeros((8, 8, 3), np.uint8), split="test"),
    ],
)
def test_an_answer_rests_on_one_reading_of_the_images(
    project: clipcifar.Project, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two readings a run may have written others, of another model."""
    read, images = [], Opened.images
    monkeypatch.setattr(Opened, "images", lambda opened: read.append(opened) or images(opened))
    ask(project)
    assert len(read) == 1


@pytest.mark.parametrize("wrong", [{"top": 0}, {"split": "tset"}, {"class_name": "zreo"}])
def test_what_cannot_be_looked_for_is_told_before_a_tower_is_loaded(
    project: clipcifar.Project, wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(Opened, "backbone", load)
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ConfigError):
        project.find(image=image, **wrong)
    with pytest.raises(AssertionError):  # negative control
        project.find(image=image)


def test_threads_share_a_project(
    project: clipcifar.Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four at once, without a memo, with nothing loaded: the towers come once, answers are equal."""
    from clipcifar.backbone.towers import Backbone

    monkeypatch.setenv("CLIPCIFAR_CACHE", str(tmp_path))
    loaded, load = [], Backbone.load
    monkeypatch.setattr(Backbone, "load", lambda *given, **how: loaded.append(given) or load(*given, **how))
    fresh, start = clipcifar.open(project.root), Barrier(4)

    def ask(_: int) -> list[object]:
        start.wait()
        return ask_everything(fresh)

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(ask, range(4)))
    assert all(answer == answers[0] for answer in answers)
    assert answers[0] == ask_everything(clipcifar.open(project.root))
    assert len(loaded) == 2  # by the threads and by the other project


def test_it_leaves_the_project_as_it_was(project: clipcifar.Project) -> None:
    def files() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in sorted(project.root.rglob("*"))}

    before = files()
    ask_everything(project)
    assert files() == before


def harm(path: Path) -> None:
    """Flip a bit, in a file that DVC may have linked into its cache."""
    harmed = bytearray(path.read_bytes())
    harmed[len(harmed) // 2] ^= 1
    path.unlink()
    path.write_bytes(harmed)


@pytest.mark.pipeline
def test_two_projects_know_nothing_of_each_other(project: clipcifar.Project, at: Workspace) -> None:
    other = clipcifar.open(at.folder)
    rows = project.images("test").embeddings
    at.edit(lambda settings: settings["prompts"]["sets"]["photo"].update(templates=["one {classname}."]))
    at.repro("zero_shot")
    assert other.zero_shot().predict(rows) != project.zero_shot().predict(rows)
    assert other.prompt_set("photo").sentences[0] == "one zero."
    assert project.prompt_set("photo").sentences[0] == "a photo of a zero."
    harm(at.folder / "data/heads/linear_probe.h5")
    with pytest.raises(DataError):
        other.classifier("linear_probe")
    assert project.classifier("linear_probe").predict(rows[1:2]) == ["eight"]


@pytest.mark.pipeline
def test_a_clone_without_data_says_what_to_run(finished: Workspace, tmp_path: Path) -> None:
    """Git has the numbers; all else has to be made or fetched, and each question says so."""
    subprocess.run(["git", "clone", "--quiet", finished.folder, tmp_path / "clone"], check=True)
    clone = clipcifar.open(tmp_path / "clone")
    assert (clone.methods, clone.prompt_sets) == ([], [])
    assert clone.metrics("zero_shot")["n"] == 397
    asks: list[Ask] = [
        lambda p: p.class_names,
        lambda p: p.images(),
        lambda p: p.provenance,
        lambda p: p.prompt_set("photo"),
        lambda p: p.zero_shot(),
        lambda p: p.zero_shot(templates=["{classname}"]),
        lambda p: p.zero_shot(labels=["a", "b"]),
        lambda p: p.predictions("linear_probe"),
        lambda p: p.classifier("projection"),
        lambda p: p.linear_probe(),
        lambda p: p.compare("photo", "digits"),
        lambda p: p.embed_images(np.zeros((8, 8, 3), np.uint8)),
        lambda p: p.find("a cat"),
        lambda p: p.load(),
    ]
    for ask in asks:
        with pytest.raises(DataError) as caught:
            ask(clone)
        assert "run `dvc repro" in caught.value.fix
    with pytest.raises(ConfigError, match="no embedded prompt set 'nonsense'"):
        clone.prompt_set("nonsense")


@pytest.mark.pipeline
def test_damage_and_loss_name_what_mends_them_once(at: Workspace) -> None:
    project = clipcifar.open(at.folder)
    harm(at.folder / PART)
    for ask in (
        lambda: project.images(),
        lambda: project.zero_shot(templates=["{classname}"]),
        lambda: project.find("a cat"),
    ):
        with pytest.raises(DataError) as caught:
            ask()
        assert caught.value.fix == "run `dvc checkout data/embeddings/images`"
    at.command("dvc", "checkout", "--force", "data/embeddings/images")
    shutil.rmtree(at.folder / "data/weights")
    with pytest.raises(DataError, match="the weights are missing") as caught:
        project.embed_images(np.zeros((8, 8, 3), np.uint8))
    assert caught.value.fix.count("dvc checkout") == 1
    settings = (at.folder / "params.yaml").read_text()
    (at.folder / "params.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        project.images()
    (at.folder / "params.yaml").write_text(settings)
    assert len(project.images("test").ids) == 397


@pytest.mark.pipeline
def test_a_set_for_another_dataset_is_told_as_that(at: Workspace) -> None:
    of_cats = {"template_mode": "per_class", "dataset": "cifar10", "sentences": {"cat": ["a cat."]}}
    at.edit(lambda settings: settings["prompts"]["sets"].update(cats=of_cats))
    for ask in (lambda p: p.prompt_set("cats"), lambda p: p.compare("photo", "set:cats")):
        with pytest.raises(DataError, match="'cats' is for cifar10, and the dataset is digits") as caught:
            ask(clipcifar.open(at.folder))
        assert caught.value.fix == "use one of: digits, photo"


@pytest.mark.pipeline
def test_a_warning_names_the_line_that_asked(at: Workspace) -> None:
    """Of results that only code has changed since; the line is this file's, not one of the package."""
    with (at.folder / "clipcifar/methods/zero_shot.py").open("a") as file:
        file.write("# changed\n")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clipcifar.open(at.folder).scored("zero_shot")
        clipcifar.open(at.folder).compare("zero_shot", "linear_probe")
    assert {warning.filename for warning in caught} == {__file__}
    assert all("stale" in str(warning.message) for warning in caught)
    assert len(caught) >= 2


def test_code_without_a_name_is_warned_too() -> None:
    """As `exec` runs it in a namespace of its own."""
    with pytest.warns(UserWarning, match="stale"):
        exec("warn_caller('stale')", {"warn_caller": warn_caller})


@pytest.mark.pipeline
def test_what_is_loaded_answers_while_a_run_deletes_and_writes(at: Workspace) -> None:
    """A service at its worst moment: nothing that it was loaded from is there any more."""
    project = clipcifar.open(at.folder)
    project.load()
    classifiers = [project.classifier(name) for name in ("zero_shot", "linear_probe", "mlp_probe")]
    pixels = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), dtype=np.uint8)
    before = [classifier.scores(pixels).tolist() for classifier in classifiers]
    shutil.rmtree(at.folder / "data")
    assert [classifier.scores(pixels).tolist() for classifier in classifiers] == before
    with pytest.raises(DataError):
        project.classifier("linear_probe")


@contextmanager
def held_elsewhere(path: Path, mode: str) -> Iterator[None]:
    """Another process, as a notebook's kernel, that has a file open by h5py."""
    code = "import sys, h5py; file = h5py.File(*sys.argv[1:]); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(path), mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield
        process.communicate()


@pytest.mark.pipeline
def test_a_notebooks_own_h5py_and_the_door_do_not_collide(at: Workspace) -> None:
    """Either may come first, in this process or another; h5py by name could not write then."""
    path, project = at.folder / PART, clipcifar.open(at.folder)
    rows, classifier = project.images("test").embeddings, project.zero_shot("photo")
    with h5py.File(path) as file:
        assert_read_anew(at.folder, rows)
        assert (file["embeddings"][-len(rows) :] == rows).all()
        with pytest.raises(OSError, match="already open"):
            h5py.File(path, "r+")
    with held_elsewhere(path, "r"):
        assert_read_anew(at.folder, rows)
        with pytest.raises(OSError, match="unable to lock file"):
            h5py.File(path, "r+")
    with h5py.File(path, "r+") as file:  # after the door has read it: it holds no file
        assert (file["embeddings"][-len(rows) :] == rows).all()
        assert classifier.predict(rows[1:2]) == ["eight"]


@pytest.mark.pipeline
def test_a_file_open_for_writing_is_another_until_it_is_closed(at: Workspace) -> None:
    """HDF5 writes into the file that it is open, and takes that back: nobody knows what comes between."""
    path, rows = at.folder / PART, clipcifar.open(at.folder).images("test").embeddings
    with h5py.File(path, "r+"), pytest.raises(DataError, match="is not what the recorded run"):
        assert_read_anew(at.folder, rows)
    with held_elsewhere(path, "r+"), pytest.raises(DataError, match="is not what the recorded run"):
        assert_read_anew(at.folder, rows)
    assert_read_anew(at.folder, rows)


def assert_read_anew(folder: Path, expected: NDArray[np.float32]) -> None:
    project = clipcifar.open(folder)
    assert (project.images("test").embeddings == expected).all()
    assert project.zero_shot("photo").predict(expected[1:2]) == ["eight"]


@pytest.mark.pipeline
def test_dvc_repro_runs_while_a_notebook_holds_and_asks(at: Workspace) -> None:
    """Its handles keep what they had; it is answered or refused in words meanwhile, and then anew."""
    project, outputs = clipcifar.open(at.folder), sorted(at.folder.glob("data/**/*.h5"))
    old, rows = project.zero_shot(), project.images("test").embeddings
    written = at.folder / "data/predictions/zero_shot.h5"
    asks: list[Ask] = [
        lambda p: p.scored("zero_shot").scores,
        lambda p: p.zero_shot().scores(rows),
        lambda p: p.images("test").embeddings,
        lambda p: p.metrics("zero_shot"),
    ]
    refused = 0
    with ExitStack() as held, ThreadPoolExecutor(1) as beside:
        handles = {path: held.enter_context(h5py.File(path)) for path in outputs}
        before = handles[written]["scores"][()]
        at.edit(lambda settings: settings["prompts"]["sets"]["photo"].update(templates=["one {classname}."]))
        run = beside.submit(at.repro, "zero_shot", "projection")
        while not run.done():
            for ask in asks:
                try:
                    ask(project)
                except clipcifar.ClipcifarError:
                    refused += 1
        run.result()
        assert refused
        assert set(at.executed()) <= TEXT_SIDE
        assert "zero_shot" in at.executed()
        assert (handles[written]["scores"][()] == before).all()
        now = project.scored("zero_shot").scores
        assert not (now == before).all()
        assert (project.zero_shot().scores(rows) == now).all()
        assert (old.scores(rows) == before).all()
    with h5py.File(written) as file:
        assert (file["scores"][()] == now).all()
