"""`clipcifar find` on finished runs: against every cosine by hand, and with images of the dataset itself."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import clipcifar
from clipcifar.prompts.save import overlay
from clipcifar.store.dataset import read_dataset
from clipcifar.store.embeddings import read_texts
from clipcifar.store.images import read_images
from tests.report.test_page import Tags
from tests.support import command_line
from tests.support.once import made_once
from tests.support.workspace import Workspace, digits_params

pytestmark = pytest.mark.pipeline
SEVEN = "a photo of a seven."  # of the active set
HOSTILE = "=<b>1|\"'&,${x}"  # a class name, and with it a folder's
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from clipcifar.cli.main import main; main()"


@pytest.fixture(scope="module")
def digits(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Read only, but for pages and the memo."""
    return Workspace(made_once(tmp_path_factory, "find", lambda made: finished.copy(made / "w")) / "w")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A folder of photographs of two classes, embedded; its images lie in `photos` beside it."""
    return Workspace(made_once(tmp_path_factory, "find-photos", _embed_photographs) / "w")


def _embed_photographs(made: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(12):
        path = (
            made
            / "photos"
            / (HOSTILE if number % 2 else "dogs")
            / f"{number} <i>.{('png', 'jpg')[number % 3 == 0]}"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        few = Image.fromarray(rng.integers(0, 255, (4, 6, 3), dtype=np.uint8))
        few.resize((90 + number, 60), Image.Resampling.BICUBIC).save(path)
    workspace = Workspace.create(made / "w", {})
    dataset = {"dataset": {"name": "imagefolder", "path": str(made / "photos"), "test_fraction": 0.5}}
    workspace.edit(lambda settings: settings["prompts"].update(sets={}))
    workspace.edit(lambda settings: overlay(settings, {**digits_params(), **dataset}))
    workspace.repro("embed_images")


class Run:
    """The command line in a run's folder: exit code, what is printed, and what is said beside it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        monkeypatch.delenv("CLIPCIFAR_TRACEBACK", raising=False)

    def __call__(self, at: Workspace, *arguments: str, folder: Path | None = None) -> tuple[Any, str, str]:
        self._monkeypatch.chdir(folder or at.folder)
        self._monkeypatch.setenv("CLIPCIFAR_CACHE", at.environment["CLIPCIFAR_CACHE"])
        return command_line.run(self._monkeypatch, "find", *arguments), *self._capsys.readouterr()

    def json(self, at: Workspace, *arguments: str) -> Any:
        code, said, beside = self(at, *arguments, "--json")
        assert (code, beside) == (0, "")
        return json.loads(said)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(monkeypatch, capsys)


def by_hand(at: Workspace, sentence: str) -> Iterator[tuple[float, str]]:
    """Cosine and id of every image, the nearest first."""
    texts = read_texts(at.folder / "data/embeddings/active/photo.h5")
    query = texts.embeddings[texts.sentences.index(sentence)].astype(np.float64)
    images = read_images(at.folder / "data/embeddings/images")
    cosines = [
        (float(row.astype(np.float64) @ query), sample_id)
        for part in (images.train, images.test)
        for row, sample_id in zip(part.embeddings, part.ids, strict=True)
    ]
    yield from sorted(cosines, key=lambda pair: -pair[0])


def test_a_sentence_finds_what_every_cosine_by_hand_finds(digits: Workspace, run: Run) -> None:
    hits = run.json(digits, SEVEN, "--top", "50")["hits"]
    wanted = list(by_hand(digits, SEVEN))[:50]
    assert [hit["id"] for hit in hits] == [sample_id for _, sample_id in wanted]
    assert [hit["cosine"] for hit in hits] == pytest.approx([cosine for cosine, _ in wanted], abs=1e-6)
    assert [hit["rank"] for hit in hits] == list(range(1, 51))
    assert sum(hit["label"] == "seven" for hit in hits) > 40
    other = run.json(digits, "a photo of a zero.", "--top", "50")["hits"]  # negative control
    assert sum(hit["label"] == "seven" for hit in other) < 5


def test_the_table_the_csv_and_python_say_the_same(digits: Workspace, run: Run) -> None:
    code, table, beside = run(digits, SEVEN, "--top", "3")
    assert (code, beside) == (0, "")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if "|" in line]
    assert cells[0] == ["rank", "cosine", "split", "label", "id"]
    _, text, _ = run(digits, SEVEN, "--top", "3", "--csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    hits = clipcifar.open(digits.folder).find(SEVEN, top=3)
    for hit, shown, row in zip(hits, cells[2:], rows, strict=True):
        assert shown == [str(hit.rank), f"{hit.cosine:.4f}", hit.split, hit.label, hit.id]
        assert row == {
            "rank": shown[0],
            "cosine": repr(hit.cosine),
            "split": hit.split,
            "label": hit.label,
            "id": hit.id,
        }


def test_where_to_look_is_what_is_looked_at(digits: Workspace, run: Run) -> None:
    everywhere = run.json(digits, SEVEN, "--top", "5000")["hits"]
    assert {hit["split"] for hit in everywhere} == {"train", "val", "test"}
    assert len(everywhere) == len([*by_hand(digits, SEVEN)])
    for option, key, value in (("--split", "split", "val"), ("--class", "label", "two")):
        part = run.json(digits, SEVEN, "--top", "5000", option, value)["hits"]
        assert [hit["id"] for hit in part] == [hit["id"] for hit in everywhere if hit[key] == value]


@pytest.mark.parametrize("part", ["train", "test"])
def test_an_image_of_the_dataset_finds_itself(part: str, digits: Workspace, run: Run, tmp_path: Path) -> None:
    prepared = getattr(read_dataset(digits.folder / "data/dataset.h5"), part)
    for row in (3, 77):
        Image.fromarray(prepared.content[row]).save(tmp_path / "image.png")
        first = run.json(digits, "--image", str(tmp_path / "image.png"))["hits"][0]
        assert first["id"] == prepared.ids[row]
        assert first["cosine"] >= 0.9999
    inverted = Image.fromarray(255 - prepared.content[3])  # negative control
    inverted.save(tmp_path / "image.png")
    assert run.json(digits, "--image", str(tmp_path / "image.png"))["hits"][0]["cosine"] < 0.9999


def test_a_photograph_of_the_folder_finds_itself(photos: Workspace, run: Run) -> None:
    root = photos.folder.with_name("photos")
    for path in sorted(root.glob("*/*"))[::4]:
        first = run.json(photos, "--image", str(path))["hits"][0]
        assert (first["id"], first["label"]) == (path.relative_to(root).as_posix(), path.parent.name)
        assert first["cosine"] >= 0.9999


def test_paths_are_those_of_the_folder_where_the_user_is(photos: Workspace, run: Run) -> None:
    folder = photos.folder / "docs"
    folder.mkdir()
    (photo,) = photos.folder.with_name("photos").glob("*/4 *")
    mine = os.fsdecode(b"mine \xe9")  # which is not UTF-8
    (folder / mine).write_bytes(photo.read_bytes())
    code, said, _ = run(photos, "--image", mine, "--top", "1", "--sheet", "mine.html", folder=folder)
    assert (code, photo.name in said) == (0, True)
    assert said.endswith("\n\ncontact sheet: mine.html\n")
    assert r"mine \udce9" in Tags((folder / "mine.html").read_text()).text
    code, said, beside = run(photos, "a dog", "--csv", "--sheet", "mine.html", folder=folder)
    assert (code, beside) == (0, "note: contact sheet: mine.html\n")
    assert len(said.splitlines()) == 13
    assert run(photos, "a dog", folder=folder)[1].endswith("\n\ncontact sheet: ../report/find.html\n")


def test_the_page_shows_every_image_and_the_command_makes_it_again(digits: Workspace, run: Run) -> None:
    code, said, _ = run(digits, "a <b>seven</b>", "--top", "4", "--split", "test")
    assert code == 0
    assert said.endswith("\n\ncontact sheet: report/find.html\n")
    html = digits.read("report/find.html").decode()
    page = Tags(html)
    assert (page.found["b", ()], page.found["script", ()]) == (0, 0)
    assert html.count('src="data:image/png;base64,') == 4
    hits = run.json(digits, "a <b>seven</b>", "--top", "4", "--split", "test")["hits"]
    for hit in hits:
        assert {hit["id"], f"{hit['rank']}. {hit['label']}", f"cosine {hit['cosine']:.4f}, test"} <= set(
            page.text
        )
    command = next(text for text in page.text if text.startswith("clipcifar find"))
    assert run(digits, *shlex.split(command)[2:])[1] == said
    assert digits.read("report/find.html").decode() == html


def test_names_of_classes_and_files_are_shown_as_they_are(photos: Workspace, run: Run) -> None:
    asked = ["a dog", "--class", HOSTILE, "--top", "2"]
    hits = run.json(photos, *asked)["hits"]
    assert {hit["label"] for hit in hits} == {HOSTILE}
    code, said, _ = run(photos, *asked)
    assert code == 0
    assert said.splitlines()[2].count(HOSTILE.replace("|", r"\|")) == 2  # the class, and in the id its folder
    page = Tags(photos.read("report/find.html").decode())
    assert not {tag for tag, _ in page.found} & {"b", "i", "script"}
    assert f"1. {HOSTILE}" in page.text
    rows = list(csv.DictReader(io.StringIO(run(photos, *asked, "--csv")[1])))
    assert [(row["label"], row["id"]) for row in rows] == [(HOSTILE, hit["id"]) for hit in hits]


def test_a_picture_that_is_gone_leaves_its_place(
    photos: Workspace, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where data/raw was deleted; of a folder of one's own, other files are stale embeddings."""
    monkeypatch.setattr("clipcifar.datasets.params.photograph_folder", lambda dataset, raw: Path("gone"))
    code, said, beside = run(photos, "a dog", "--top", "3")
    assert (code, said.count("jpg") + said.count("png")) == (0, 3)
    assert "pictures that the contact sheet lacks: 3" in beside
    page = Tags(photos.read("report/find.html").decode())
    assert page.text.count("picture gone") == 3
    assert page.found.total() > 20
    assert "img" not in {tag for tag, _ in page.found}


@pytest.mark.parametrize(
    ("asked", "code", "what"),
    [
        (["cat " * 100], 2, "has 102 tokens, the model reads 32\n  where: the query\n"),
        ([" "], 2, "the query is empty"),
        ([], 2, "there is nothing to look for"),
        (["a cat", "--image", "params.yaml"], 2, "a sentence and an image were given"),
        (["a cat", "--class", "sevn"], 2, "unknown class 'sevn'\n  fix:   did you mean seven?"),
        (["a cat", "--top", "0"], 2, "from 1"),
        (["a cat", "--sheet", "params.yaml"], 2, "the contact sheet is a web page"),
        (["--image", "params.yaml"], 3, "not an image of a known format"),
        (["--image", "nothing.png"], 3, "cannot be read: No such file"),
        (["--image", "data"], 3, "a folder, no image"),
    ],
)
def test_what_cannot_be_asked(asked: list[str], code: int, what: str, digits: Workspace, run: Run) -> None:
    ended, said, beside = run(digits, *asked)
    assert (ended, said) == (code, "")
    assert what in beside
    assert "Traceback" not in beside


def test_where_nothing_is_embedded_the_stage_that_suffices_is_named(
    finished: Workspace, tmp_path: Path, run: Run
) -> None:
    at = finished.copy(tmp_path / "w")
    lock = yaml.safe_load(at.read("dvc.lock"))
    lock["stages"] = {"fetch_model": lock["stages"]["fetch_model"]}
    (at.folder / "dvc.lock").write_text(yaml.safe_dump(lock))
    shutil.rmtree(at.folder / "data/embeddings/images")
    (at.folder / "data/splits.h5").unlink()
    code, _, beside = run(at, SEVEN)
    assert code == 3
    assert beside.endswith("fix:   run `dvc repro embed_images`\n")


def test_stale_embeddings_are_refused(at: Workspace, run: Run) -> None:
    at.edit(lambda settings: settings["model"].update(pretrained="openai"))
    code, said, beside = run(at, SEVEN)
    assert (code, said) == (2, "")
    assert "data/embeddings/images is stale, changed since it was made: model.pretrained" in beside
    assert not (at.folder / "report/find.html").exists()


def test_a_sentence_that_was_asked_before_waits_for_no_torch(digits: Workspace) -> None:
    def asked(sentence: str) -> Any:
        return digits.command(sys.executable, "-c", WITHOUT_TORCH, "find", sentence, check=False)

    fresh = "a seven that nobody has asked for"
    assert "import of torch halted" in asked(fresh).stderr  # negative control
    shown = digits.command("clipcifar", "find", fresh).stdout
    done = asked(fresh)
    assert (done.returncode, done.stdout) == (0, shown), done.stderr
