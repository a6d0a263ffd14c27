"""`clipcifar export` on hand-made results: names that are awkward, and files that cannot be."""

from __future__ import annotations

import csv
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import shtab

from clipcifar.cli import export
from clipcifar.cli.main import COMMANDS
from clipcifar.core import params
from clipcifar.core.files import Attribute
from clipcifar.project import freshness
from clipcifar.store import container, heads
from clipcifar.store.embeddings import ImageEmbeddings, Split, read_texts, write_texts
from clipcifar.store.fields import class_names_attribute
from clipcifar.store.images import read_images, write_images
from clipcifar.store.places import IMAGES, PREDICTIONS, TEXTS
from clipcifar.store.predictions import inherited, write_answers
from clipcifar.store.splits import TrainVal, write_splits
from tests.support.command_line import run

NAMES = ["cat, wild", 'e"el"', "卡车\n\x1b[2J\r"]
IDS = ["test/a,b.jpg", 'test/"q".jpg', "test/ü\n.jpg"]
TRAIN_IDS = [f"train/{i}" for i in range(6)]
SENTENCES = ["a cat, wild.", 'an "e"', " 卡车 "]
Asked = tuple[object, str, str]
SCORES = np.log(np.array([[6, 3, 1], [1, 8, 1], [1, 2, 7]], dtype=np.float32))


def _write(method: str, images: ImageEmbeddings, **attributes: Attribute) -> None:
    write_answers(
        Path(PREDICTIONS) / f"{method}.h5", {"scores": SCORES}, images, kind="predictions",
        attributes={"method": method, **attributes},
    )  # fmt: skip


@pytest.fixture
def images(project: Path, monkeypatch: pytest.MonkeyPatch) -> ImageEmbeddings:
    """The results of two methods on three images; what is stale is asked on a real run."""
    monkeypatch.setattr(freshness, "refuse_stale", lambda *_: [])
    settings = params.load(project / "params.yaml")
    attributes: dict[str, Attribute] = {
        "model": settings["model"]["name"],
        "pretrained": settings["model"]["pretrained"],
        "weights_sha256": "0",
        "preprocess": "{}",
        "logit_scale": 50.0,
        "class_names": class_names_attribute(NAMES),
        "dataset": "d",
        "dataset_digest": "1",
        "max_per_class": 0,
    }
    rows = np.eye(3, 4, dtype=np.float32)
    train = Split(np.tile(rows, (2, 1)), np.arange(6) % 3, TRAIN_IDS)
    test = Split(rows, np.arange(3), IDS)
    write_images(Path(IMAGES), train=train, test=test, attributes=attributes)
    write_splits(
        Path("data/splits.h5"), TRAIN_IDS, TrainVal(np.arange(4), np.arange(4, 6)),
        attributes={"dataset_digest": "1"},
    )  # fmt: skip
    active = settings["prompts"]["active"]
    for name in (active, "more"):
        write_texts(
            Path(TEXTS) / f"{name}.h5",
            embeddings=rows, class_index=np.arange(3), sentences=SENTENCES, attributes=attributes,
        )  # fmt: skip
    embedded = read_images(Path(IMAGES))
    _write("zero_shot", embedded, temperature=0.5)
    _write("linear_probe", embedded, temperature=1.0)
    probe = {"coefficients": rows, "intercepts": np.zeros(3, np.float32)}
    heads.write(Path("data/heads/linear_probe.h5"), "linear_probe", probe, inherited(embedded.attributes))
    return embedded


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Asked]:
    def ask(*arguments: str) -> Asked:
        return run(monkeypatch, "export", *arguments), *capsys.readouterr()

    return ask


def read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, strict=True))


def test_names_come_back_from_every_format(images: ImageEmbeddings, ask: Callable[..., Asked]) -> None:
    for suffix in (".csv", ".npz", ".parquet"):
        assert ask("predictions", f"p{suffix}") == (0, f"p{suffix}: 3 rows\n", "")
        assert ask("sentences", f"s{suffix}") == (0, f"s{suffix}: 6 rows\n", "")
    rows = read_rows(Path("p.csv"))
    table = pandas.read_parquet("p.parquet")
    with np.load("p.npz", allow_pickle=False) as arrays, np.load("s.npz", allow_pickle=False) as said:
        for read in ({name: [row[name] for row in rows] for name in rows[0]}, table, arrays):
            assert list(read["id"]) == IDS
            assert list(read["label"]) == list(read["zero_shot_predicted"]) == NAMES
        assert arrays["class_names"].tolist() == NAMES
        assert said["sentence"].tolist() == SENTENCES * 2
        assert said["weight"].tolist() == [1.0] * 6
    assert [row["sentence"] for row in read_rows(Path("s.csv"))] == SENTENCES * 2
    assert list(pandas.read_parquet("s.parquet")["class"]) == NAMES * 2


def test_weighted_sentences_are_exported_with_their_weights(
    images: ImageEmbeddings, ask: Callable[..., Asked]
) -> None:
    path = Path(TEXTS) / "more.h5"
    texts = read_texts(path)
    write_texts(
        path,
        embeddings=texts.embeddings, class_index=texts.class_index, sentences=texts.sentences,
        attributes={key: value for key, value in texts.attributes.items() if key not in container._DIGESTS},
        weights=np.array([0.5, 1.0, 2.5]),
    )  # fmt: skip
    assert ask("sentences", "s.csv") == (0, "s.csv: 6 rows\n", "")
    weights = {(row["set"], row["class"]): float(row["weight"]) for row in read_rows(Path("s.csv"))}
    assert [weights["more", name] for name in NAMES] == [0.5, 1.0, 2.5]
    assert {weight for (name, _), weight in weights.items() if name != "more"} == {1.0}


def test_probabilities_by_hand(images: ImageEmbeddings, ask: Callable[..., Asked]) -> None:
    ask("predictions", "p.csv")
    first = read_rows(Path("p.csv"))[0]
    assert list(first) == [
        *("id", "label", "label_index"),
        *(f"{m}_{n}" for m in ("zero_shot", "linear_probe") for n in ("predicted", "probability", "margin")),
    ]
    assert float(first["linear_probe_probability"]) == pytest.approx(0.6)
    assert float(first["linear_probe_margin"]) == pytest.approx(0.3)
    assert float(first["zero_shot_probability"]) == pytest.approx(36 / 46)  # at a temperature of 1/2


def test_embeddings_are_spread_over_the_columns_of_a_csv(
    images: ImageEmbeddings, ask: Callable[..., Asked]
) -> None:
    ask("embeddings", "e.csv")
    rows = read_rows(Path("e.csv"))
    assert [row["id"] for row in rows] == [*TRAIN_IDS, *IDS]
    assert [row["split"] for row in rows] == ["train"] * 4 + ["val"] * 2 + ["test"] * 3
    assert [float(rows[-2][f"embedding_{i}"]) for i in range(4)] == [0, 1, 0, 0]
    assert rows[-1]["label_index"] == "2"


def test_heads_are_named_by_method(images: ImageEmbeddings, ask: Callable[..., Asked]) -> None:
    code, said, beside = ask("heads", "h.npz")
    assert (code, beside) == (0, "")
    with np.load("h.npz", allow_pickle=False) as arrays:
        assert said == f"h.npz: {len(arrays)} arrays\n"
        assert {name for name in arrays if "/" in name} == {
            *(f"zero_shot/{name}" for name in ("weights", "logit_scale", "temperature")),
            *(f"linear_probe/{name}" for name in ("coefficients", "intercepts", "temperature")),
        }
        np.testing.assert_array_equal(arrays["zero_shot/weights"], np.eye(3, 4))
        assert (arrays["zero_shot/logit_scale"], arrays["zero_shot/temperature"]) == (50, 0.5)
        assert arrays["class_names"].tolist() == NAMES


def test_without_val_images_zero_shot_alone_is_of_this_dataset(
    images: ImageEmbeddings, ask: Callable[..., Asked]
) -> None:
    _write("zero_shot", images)
    assert ask("predictions", "p.npz")[0] == ask("heads", "h.npz")[0] == 0
    with np.load("p.npz") as answers, np.load("h.npz") as arrays:
        assert answers["zero_shot_temperature"] == arrays["zero_shot/temperature"] == 1
        assert answers["zero_shot_probability"] == pytest.approx([0.6, 0.8, 0.7])
        assert not any("linear_probe" in name for name in (*answers, *arrays))


def test_methods_of_other_images_are_no_table(images: ImageEmbeddings, ask: Callable[..., Asked]) -> None:
    other = Split(images.test.embeddings, images.test.labels, ["x", *IDS[1:]])
    _write("linear_probe", ImageEmbeddings(images.train, other, images.attributes), temperature=1.0)
    code, _, beside = ask("predictions", "p.csv")
    assert (code, "linear_probe and zero_shot are of other images" in beside) == (3, True)
    assert not Path("p.csv").exists()


def test_a_file_is_written_over_only_where_that_is_asked_for(
    images: ImageEmbeddings, ask: Callable[..., Asked]
) -> None:
    path = Path("mine.csv")
    path.write_text("mine")
    code, _, beside = ask("predictions", "mine.csv")
    assert code == 2
    assert "error: mine.csv exists\n" in beside
    assert "add --force" in beside
    assert path.read_text() == "mine"
    assert ask("predictions", "mine.csv", "--force")[0] == 0
    assert len(read_rows(path)) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("predictions", "gone/p.csv"), "there is no folder gone"),
        (("predictions", "data.csv"), "data.csv is a folder"),
        (("predictions", "data.csv", "--force"), "data.csv is a folder"),
        (("predictions", "p"), "predictions cannot be written as a file without suffix"),
        (("predictions", "p.xlsx"), "name a file that ends in .npz or .csv or .parquet"),
        (("heads", "h.csv"), "heads cannot be written as .csv"),
        (("everything", "h.csv"), "invalid choice: 'everything'"),
    ],
)
def test_what_cannot_be_a_file_is_refused_before_anything_is_read(
    project: Path, ask: Callable[..., Asked], arguments: tuple[str, ...], said: str
) -> None:
    Path("data.csv").mkdir()
    code, out, beside = ask(*arguments)
    assert (code, out) == (2, "")
    assert said in beside


def test_without_pyarrow_one_line_says_how_to_get_it(
    project: Path, ask: Callable[..., Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # which makes an import fail
    code, _, beside = ask("predictions", "p.parquet")
    assert code == 2
    assert beside == (
        "error: Parquet is written by pyarrow: run `pip install pyarrow`, or name a .csv or .npz\n"
    )


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    images: ImageEmbeddings, ask: Callable[..., Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("p.csv").write_text("old")
    before = sorted(Path().iterdir())

    def break_off(stream: Any, _: object) -> None:
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(export._WRITERS, ".csv", break_off)
    code, _, beside = ask("predictions", "p.csv", "--force")
    assert (code, "No space left" in beside) == (4, True)
    assert Path("p.csv").read_text() == "old"
    assert sorted(Path().iterdir()) == before


def test_the_file_lies_where_the_user_is(images: ImageEmbeddings, ask: Callable[..., Asked]) -> None:
    """Asked from a folder below."""
    with pytest.MonkeyPatch.context() as there:
        there.chdir("data")
        assert ask("predictions", "p.CSV")[0] == 0
        assert ask("predictions", "../q.csv")[0] == 0
    assert sorted(path.as_posix() for path in Path().rglob("*.[cC]*")) == ["data/p.CSV", "q.csv"]


@pytest.mark.parametrize("what", list(export.WHAT))
def test_where_nothing_was_run_the_error_says_what_to_run(
    project: Path, ask: Callable[..., Asked], what: str
) -> None:
    code, _, beside = ask(what, "x.npz")
    assert code == 3
    assert "run `dvc repro" in beside
    assert not Path("x.npz").exists()


def test_damaged_predictions_are_named(images: ImageEmbeddings, ask: Callable[..., Asked]) -> None:
    path = Path(PREDICTIONS) / "linear_probe.h5"
    content = bytearray(path.read_bytes())
    content[content.index(SCORES.tobytes())] ^= 1
    path.write_bytes(bytes(content))
    code, _, beside = ask("predictions", "x.npz")
    assert (code, str(path) in beside) == (3, True)


@pytest.mark.parametrize(
    ("command", "argument"), [("export", "file"), ("predict", "paths"), ("find", "image"), ("find", "sheet")]
)
def test_a_shell_completes_what_names_a_file(command: str, argument: str) -> None:
    parser = ArgumentParser()
    COMMANDS[command].arguments(parser)
    (action,) = (action for action in parser._actions if action.dest == argument)
    assert action.complete == {shell: shtab.FILE[shell] for shell in ("bash", "zsh", "tcsh")}  # type: ignore[attr-defined]
