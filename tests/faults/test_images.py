"""Odd, bad and hostile image folders through the stages that a person runs."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from clipcifar.backbone.preprocess import Preprocess, model_input
from clipcifar.datasets import checking
from clipcifar.datasets.decode import decode
from clipcifar.store.dataset import read_dataset
from clipcifar.store.images import read_images
from stages import download, embed_images, fetch_model, prepare
from tests.datasets.test_decode import png_claiming
from tests.support import stage_runs
from tests.support.stage_runs import Ended
from tests.support.waiting import PATIENCE_S
from tests.support.workspace import Workspace, digits_params

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (24, 36, 3), dtype=np.uint8)
GRAY = COLOUR[..., 0]
ALPHA = np.where(np.arange(36) < 18, 0, 255).astype(np.uint8)[None].repeat(24, axis=0)
ON_WHITE = np.where(ALPHA[..., None] == 0, 255, COLOUR).astype(np.uint8)
FEW = Image.fromarray(COLOUR).quantize(8)
FEW_RGB = np.asarray(FEW.convert("RGB"))


def _gray(levels: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asarray(levels, dtype=np.uint8)[..., None].repeat(3, axis=2)


def _file(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def _rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees to look at it
    return _file(Image.fromarray(COLOUR), exif=exif)


def _transparent_palette() -> bytes:
    return _file(FEW, transparency=0)


def _cmyk() -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (24, 36, 4), dtype=np.uint8), "CMYK")


CMYK = _cmyk()
# Each kind of image, and the plain RGB pixels that the rules of clipcifar/datasets/decode.py make of it.
ODD: dict[str, tuple[str, bytes, NDArray[np.uint8]]] = {
    "L": ("png", _file(Image.fromarray(GRAY)), _gray(GRAY)),
    "LA": (
        "png",
        _file(Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(ALPHA)])),
        _gray(np.where(ALPHA == 0, 255, GRAY)),
    ),
    "1": ("png", _file(Image.fromarray(GRAY > 99)), _gray(np.where(GRAY > 99, 255, 0))),
    "P": ("png", _file(FEW), FEW_RGB),
    "P with transparency": (
        "png",
        _transparent_palette(),
        np.where(np.asarray(FEW)[..., None] == 0, 255, FEW_RGB).astype(np.uint8),
    ),
    "RGBA": ("png", _file(Image.fromarray(np.dstack([COLOUR, ALPHA]))), ON_WHITE),
    "CMYK": ("tif", _file(CMYK, "TIFF"), np.asarray(CMYK.convert("RGB"))),
    "16-bit": ("png", _file(Image.fromarray(GRAY.astype(np.uint16) * 257)), _gray(GRAY)),
    "float": ("tif", _file(Image.fromarray((GRAY / 255).astype(np.float32)), "TIFF"), _gray(GRAY)),
    "EXIF rotation": ("png", _rotated(), np.rot90(COLOUR, -1)),
    "animated GIF": (
        "gif",
        _file(FEW, "GIF", save_all=True, append_images=[Image.new("P", FEW.size)], duration=9),
        FEW_RGB,
    ),
}


def _plain(pixels: NDArray[np.uint8]) -> bytes:
    return _file(Image.fromarray(np.ascontiguousarray(pixels)))


def _folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


SOUND = {
    f"{split}/{name}/{i}.png": _plain(COLOUR) for split in ("train", "test") for name in "ab" for i in "012"
}


def _prepare(folder: Path, photos: Path, **dataset: Any) -> Ended:
    """`download` and, if it ends well, `prepare` on a folder of photographs."""
    changes = {"dataset": {"name": "imagefolder", "path": str(photos), **dataset}, "embed": {"workers": 0}}
    stage_runs.write_params(folder, changes)
    ended = stage_runs.run(download.main, "raw", folder=folder)
    if ended.code == 0:
        ended = stage_runs.run(
            prepare.main, "raw", "data/dataset.h5", "data/splits.h5", "data/classes.json", folder=folder
        )
    return ended


def test_every_odd_kind_of_image_is_embedded_as_the_plain_image_that_its_rule_makes_of_it(
    tmp_path: Path, tiny_clip: Path
) -> None:
    files = dict(SOUND)
    for i, (suffix, content, pixels) in enumerate(ODD.values()):
        files[f"train/a/{i:02}-odd.{suffix}"] = content
        files[f"train/a/{i:02}-plain.png"] = _plain(pixels)
    assert _prepare(tmp_path, _folder(tmp_path / "photos", files)).code == 0
    model = {"name": f"local-dir:{tiny_clip}", "pretrained": None, "path": str(tiny_clip)}
    dataset = {"name": "imagefolder", "path": str(tmp_path / "photos")}
    stage_runs.write_params(tmp_path, {"model": model, "dataset": dataset, "embed": {"workers": 0}})
    for main, paths in (
        (fetch_model.main, ("weights", "model.json")),
        (embed_images.main, ("raw", "data/dataset.h5", "weights", "model.json", "images")),
    ):
        ended = stage_runs.run(main, *paths, folder=tmp_path)
        assert ended.code == 0, ended.error
    train = read_images(tmp_path / "images").train
    row_of = {sample_id: train.embeddings[row] for row, sample_id in enumerate(train.ids)}
    for i, (kind, (suffix, _, _)) in enumerate(ODD.items()):
        odd, plain = row_of[f"train/a/{i:02}-odd.{suffix}"], row_of[f"train/a/{i:02}-plain.png"]
        np.testing.assert_allclose(odd, plain, atol=1e-6, err_msg=kind)
    assert not np.allclose(row_of["train/a/00-plain.png"], row_of["train/a/05-plain.png"], atol=1e-3)


@pytest.mark.parametrize("kind", ["LA", "P with transparency", "RGBA", "16-bit", "float", "EXIF rotation"])
def test_a_careless_reader_would_see_other_pixels(kind: str) -> None:
    """Negative control: the odd images are odd."""
    _, content, pixels = ODD[kind]
    with Image.open(io.BytesIO(content)) as image:
        careless = np.asarray(image.convert("RGB"))
    assert careless.shape != pixels.shape or (careless != pixels).mean() > 0.1


PREPROCESS = {
    "size": 16,
    "mean": (0, 0, 0),
    "std": (1, 1, 1),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def _as_open_clip(image: Image.Image) -> NDArray[np.float32]:
    """(3, 16, 16) levels in 0..255 of an opened image by open_clip's own transform."""
    transform = image_transform_v2(PreprocessCfg(**PREPROCESS), is_train=False)
    return np.asarray(255 * transform(image))


def _as_ours(content: bytes) -> NDArray[np.float32]:
    """The same of a file by ours."""
    images = torch.tensor(decode(content, "x")).permute(2, 0, 1)[None]
    return (255 * model_input(images, Preprocess.from_config({**PREPROCESS, "fill_color": 0}))[0]).numpy()


PLAIN = {
    "RGB": _file(Image.fromarray(COLOUR)),
    "L": ODD["L"][1],
    "JPEG": _file(Image.fromarray(COLOUR), "JPEG"),
}


@pytest.mark.parametrize("kind", sorted({*ODD, *PLAIN}))
def test_what_open_clip_reads_otherwise_is_what_the_readme_says(kind: str) -> None:
    """Colour and gray agree; of other kinds open_clip agrees once it is given what our rule makes of them.

    It lays nothing on white, resizes palettes, black-and-white and CMYK before they are RGB, clips 16-bit and
    float levels, and does not rotate.
    """
    content = PLAIN[kind] if kind in PLAIN else ODD[kind][1]
    with Image.open(io.BytesIO(content)) as image:
        apart = np.abs(_as_ours(content) - _as_open_clip(image))
    if kind in PLAIN:
        assert apart.max() <= 2.01  # the parity that tests/backbone/test_preprocess.py holds
    else:
        assert (apart > 2.01).mean() > 0.4
        same = np.abs(_as_ours(content) - _as_open_clip(Image.fromarray(ODD[kind][2])))
        assert same.max() <= 2.01


def _bad_files() -> dict[str, bytes]:
    photo = _file(Image.fromarray(COLOUR), "JPEG")
    return {
        "train/a/empty.jpg": b"",
        "train/a/cut.jpg": photo[: len(photo) // 2],
        "train/b/page.jpg": b"<!doctype html><title>404</title>",
        "train/b/bomb.png": png_claiming(20_000, 20_000),
        "test/a/sliver.png": png_claiming(100_000, 1),
        "test/b/cut.png": _plain(COLOUR)[:200],
        "test/b/zip.webp": b"PK\x03\x04",
    }


def test_all_bad_files_are_one_report_and_nothing_is_written(tmp_path: Path) -> None:
    bad = _bad_files()
    assert len(bad["train/b/bomb.png"]) < 1100
    photos = _folder(tmp_path / "photos", {**SOUND, **bad})
    ended = _prepare(tmp_path, photos)
    assert ended.code == 3
    assert f"{len(bad)} of {len(SOUND) + len(bad)} images cannot be used" in ended.error
    for path in bad:
        assert sum(f" {path}: " in line for line in ended.error.splitlines()) == 1, path
    assert not [path for path in SOUND if f" {path}: " in ended.error]
    assert f"where: {photos}" in ended.error
    assert "dataset.on_bad_image: skip" in ended.error
    assert not (tmp_path / "data").exists()


def test_skipped_files_are_counted_named_and_left_out(tmp_path: Path) -> None:
    bad = _bad_files()
    ended = _prepare(tmp_path, _folder(tmp_path / "photos", {**SOUND, **bad}), on_bad_image="skip")
    assert (ended.code, ended.error) == (0, "")
    assert f"skipped {len(bad)} images:" in ended.output
    assert all(f" {path}: " in ended.output for path in bad)
    found = read_dataset(tmp_path / "data/dataset.h5")
    assert sorted(found.train.ids + found.test.ids) == sorted(SOUND)
    assert found.left_out == {"not readable as an image": len(bad)}


def test_prepare_ends_in_one_line_that_counts_what_is_used_and_what_is_not(tmp_path: Path) -> None:
    photos = _folder(tmp_path / "photos", SOUND)
    counts = "imagefolder: 4 train, 2 val, 6 test images of 2 classes"
    assert _prepare(tmp_path, photos).output.splitlines()[-1] == f"{counts}; nothing left out"
    others = dict.fromkeys(("train/a/x.heic", "test/b/y.HEIC", "notes.txt", "train/.DS_Store"), b"x")
    _folder(photos, others)
    assert (
        _prepare(tmp_path, photos).output.splitlines()[-1] == f"{counts}; left out: 2 .heic, 1 .txt, 1 hidden"
    )
    assert read_dataset(tmp_path / "data/dataset.h5").left_out == {".heic": 2, ".txt": 1, "hidden": 1}


def test_what_lies_there_twice_is_said_by_name_and_counted_for_the_page(tmp_path: Path) -> None:
    names = [*SOUND, "val/a/0.png", "val/b/0.png"]  # a val of its own, so that train is all of train
    unlike = {name: _plain(COLOUR + np.uint8(i)) for i, name in enumerate(names)}
    twice = {"train/b/twin.png": unlike["train/a/0.png"], "test/a/twin.png": unlike["train/a/1.png"]}
    ended = _prepare(tmp_path, _folder(tmp_path / "photos", {**unlike, **twice}))
    assert ended.code == 0
    assert "train/a/0.png (a) is train/b/twin.png (b)" in ended.output
    assert "train/a/1.png is test/a/twin.png" in ended.output
    notes = read_dataset(tmp_path / "data/dataset.h5").notes
    assert [note.split(":")[0] for note in notes] == [
        "val images are those that the dataset has as such",
        "under two classes, 1 image",
        "both in train and in test, 1 image",
    ]


def test_a_flat_folder_and_test_alone_are_prepared_and_it_is_said_aloud(tmp_path: Path) -> None:
    flat = {
        name.removeprefix("train/"): content for name, content in SOUND.items() if name.startswith("train")
    }
    ended = _prepare(tmp_path, _folder(tmp_path / "flat", flat), test_fraction=0.4)
    assert "\nno train and test folders: 0.4 of each class was drawn for test" in ended.output
    assert "2 train, 2 val, 2 test images of 2 classes" in ended.output
    assert read_dataset(tmp_path / "data/dataset.h5").notes[0].startswith("no train and test folders")
    alone = {name: content for name, content in SOUND.items() if name.startswith("test")}
    ended = _prepare(tmp_path, _folder(tmp_path / "alone", alone))
    assert "\nno train images: zero-shot" in ended.output
    assert "0 train, 0 val, 6 test images of 2 classes" in ended.output


def test_names_of_files_and_classes_neither_steer_the_terminal_nor_add_lines(tmp_path: Path) -> None:
    names = ["train/a/\x1b]0;gone\x07.png", "train/b/\u202egnp.png", "test/a/x\nerror: none.png"]
    photos = _folder(tmp_path / "photos", {**SOUND, **dict.fromkeys(names, b"")})
    said = [r"train/a/\u001b]0;gone\u0007.png", r"train/b/\u202egnp.png", r"test/a/x\u000aerror: none.png"]
    stage_runs.write_params(tmp_path, {"dataset": {"name": "imagefolder", "path": str(photos)}})
    (tmp_path / "raw").mkdir()
    ended = stage_runs.process("prepare", "raw", *(f"data/{name}" for name in "xyz"), folder=tmp_path)
    assert ended.code == 3
    assert [line.strip().partition(".png: ")[0] for line in ended.error.splitlines() if ".png: " in line] == [
        name.removesuffix(".png") for name in said
    ]
    stage_runs.write_params(
        tmp_path, {"dataset": {"name": "imagefolder", "path": str(photos), "on_bad_image": "skip"}}
    )
    ended = stage_runs.process("prepare", "raw", *(f"data/{name}" for name in "xyz"), folder=tmp_path)
    assert ended.code == 0
    assert all(f"    {name}: " in ended.output for name in said)
    assert not {"\x1b", "\x07", "\u202e"} & {*ended.output, *ended.error}


def test_a_long_list_of_skipped_files_is_cut(tmp_path: Path) -> None:
    bad = {f"train/a/bad{i}.png": b"" for i in range(25)}
    ended = _prepare(tmp_path, _folder(tmp_path / "photos", {**SOUND, **bad}), on_bad_image="skip")
    assert "skipped 25 images:" in ended.output
    assert "and 5 more" in ended.output
    assert ended.output.count("bad") == 20


def test_a_file_larger_than_any_image_is_not_read(tmp_path: Path) -> None:
    photos = _folder(tmp_path / "photos", SOUND)
    with open(photos / "train/a/huge.jpg", "wb") as stream:
        stream.truncate(checking.MAX_BYTES + 1)  # takes no space on disk
    ended = _prepare(tmp_path, photos)
    assert ended.code == 3
    assert "train/a/huge.jpg: 1,000,000,001 bytes, more than 1,000,000,000" in ended.error


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    here = os.open(".", os.O_RDONLY)
    os.chdir(path.parent)  # the names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.fchdir(here)
        os.close(here)


def _self_link(path: Path) -> None:
    path.symlink_to(path)


def _dead_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere.png"))


def _link_to_a_pipe(path: Path) -> None:
    os.mkfifo(path.parent.parent.parent.parent / "pipe")
    path.symlink_to(path.parent.parent.parent.parent / "pipe")


NOT_UTF8 = os.fsdecode(b"caf\xe9.png")
UNREADABLE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "pipe": ("p.png", _fifo, "train/a/p.png: not a file: a pipe, a socket or a device"),
    "socket": ("s.png", _socket, "train/a/s.png: not a file: a pipe, a socket or a device"),
    "link to a pipe": ("l.png", _link_to_a_pipe, "train/a/l.png: not a file"),
    "dead link": ("d.png", _dead_link, "train/a/d.png: a symbolic link that leads nowhere: No such file"),
    "link to itself": (
        "c.png",
        _self_link,
        "train/a/c.png: a symbolic link that leads nowhere: Too many",
    ),
    "name not UTF-8": (NOT_UTF8, lambda p: p.write_bytes(_plain(COLOUR)), r"caf\udce9.png: its name is not"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_dvc_would_wait_for_or_stumble_on_is_refused_by_the_stage_before_it(
    kind: str, tmp_path: Path
) -> None:
    """`download` is the first stage; DVC opens every file of dataset.path when it comes to the second."""
    name, make, expected = UNREADABLE[kind]
    photos = _folder(tmp_path / "photos", SOUND)
    make(photos / "train/a" / name)
    ended = _prepare(tmp_path, photos)
    assert ended.code == 3
    assert "1 file cannot be read by DVC" in ended.error
    assert expected in ended.error
    ended.error.encode()  # fit for any terminal
    assert not (tmp_path / "raw").exists()


def test_links_out_and_pipes_are_refused_by_the_stage_itself(tmp_path: Path) -> None:
    """As a process of its own, with a limit on its time: nobody writes into the pipe."""
    photos = _folder(tmp_path / "photos", SOUND)
    assert _prepare(tmp_path, photos).code == 0
    before = read_dataset(tmp_path / "data/dataset.h5")
    outside = _folder(tmp_path / "outside", {"secret.png": _plain(COLOUR)})
    (photos / "train/a/out.png").symlink_to(outside / "secret.png")
    (photos / "train/c").symlink_to(outside, target_is_directory=True)
    os.mkfifo(photos / "train/a/pipe.png")
    paths = ("raw", "data/dataset.h5", "data/splits.h5", "data/classes.json")
    ended = stage_runs.process("prepare", *paths, folder=tmp_path)
    assert ended.code == 3
    for entry in ("train/a/out.png", "train/c", "train/a/pipe.png"):
        assert f"    {entry}: " in ended.error
    assert read_dataset(tmp_path / "data/dataset.h5").digest == before.digest


def test_a_pipe_does_not_keep_dvc_waiting(tmp_path: Path) -> None:
    """The real `dvc repro`; without the check it would never end."""
    photos = _folder(tmp_path / "photos", SOUND)
    os.mkfifo(photos / "test/b/pipe.png")
    params = {**digits_params(), "dataset": {"name": "imagefolder", "path": str(photos)}}
    workspace = Workspace.create(tmp_path / "w", params)
    done = subprocess.run(
        [Path(sys.executable).parent / "dvc", "repro", "prepare"],
        cwd=workspace.folder,
        env=workspace.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode != 0
    assert "test/b/pipe.png: not a file" in done.stderr
    assert workspace.executed() == ["download"]


@pytest.mark.parametrize(
    ("name", "make", "expected"),
    [
        ("cifar10", _fifo, "is not a file"),
        ("cifar10", lambda path: path.mkdir(), "is not a file"),
        ("imagefolder", _fifo, "imagefolder needs a folder"),
        ("imagefolder", lambda path: path.write_bytes(b"x"), "imagefolder needs a folder"),
        ("imagefolder", _self_link, "does not exist"),
        ("tarfolder", lambda path: path.write_bytes(b"x"), "tarfolder needs a folder"),
    ],
)
def test_a_dataset_path_of_the_wrong_kind_is_refused_by_its_key(
    name: str, make: Callable[[Path], object], expected: str, tmp_path: Path
) -> None:
    make(tmp_path / "it")
    ended = _prepare(tmp_path, tmp_path / "it", name=name)
    assert ended.code == 2
    assert expected in ended.error
    assert "where: params.yaml: dataset.path" in ended.error


def test_a_url_as_dataset_path_is_refused_and_its_password_not_repeated(tmp_path: Path) -> None:
    stage_runs.write_params(
        tmp_path, {"dataset": {"name": "tarfolder", "path": "https://me:secret@host/train-0.tar"}}
    )
    ended = stage_runs.run(download.main, "raw", folder=tmp_path)
    assert ended.code == 2
    assert "dataset.path is a URL" in ended.error
    assert "train.txt" in ended.error
    assert "secret" not in ended.error
