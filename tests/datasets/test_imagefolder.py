from __future__ import annotations

import hashlib
import os
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from clipcifar.core.errors import DataError, EnvironmentFault
from clipcifar.datasets import imagefolder, plain_files
from clipcifar.datasets.imagefolder import ImageFolder, list_folder


def add(root: Path, *paths: str) -> None:
    for path in paths:
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        colour = tuple(hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest()[:3])
        Image.new("RGB", (4, 4), colour).save(target, "PNG")


SMALL = ("train/cat/1.png", "train/cat/2.png", "train/dog/1.png", "test/cat/1.png", "test/dog/1.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    add(tmp_path / "photos", *SMALL)
    return tmp_path / "photos"


def listed(root: Path) -> ImageFolder:
    return list_folder(root, on_bad_image="error")


def refused(root: Path, match: str) -> DataError:
    with pytest.raises(DataError, match=match) as caught:
        listed(root)
    assert caught.value.exit_code == 3
    assert caught.value.where.startswith(str(root))
    return caught.value


def test_labels_ids_and_digests_are_those_of_the_files(root: Path) -> None:
    found = listed(root)
    assert found.class_names == ["cat", "dog"]
    assert found.train.ids == ["train/cat/1.png", "train/cat/2.png", "train/dog/1.png"]
    assert found.test.ids == ["test/cat/1.png", "test/dog/1.png"]
    assert found.train.labels.tolist() == [0, 0, 1]
    assert found.test.labels.tolist() == [0, 1]
    assert found.train.labels.dtype == np.int64
    for manifest in (found.train, found.test):
        contents = [(root / path).read_bytes() for path in manifest.ids]
        assert manifest.digests == [hashlib.sha256(content).hexdigest() for content in contents]
    assert found.bad == []


def test_a_val_folder_joins_train_and_is_marked_by_its_ids(root: Path) -> None:
    add(root, "val/cat/1.png", "val/dog/9.png")
    found = listed(root)
    assert found.train.ids[-2:] == ["val/cat/1.png", "val/dog/9.png"]
    assert found.train.labels.tolist() == [0, 0, 1, 0, 1]
    assert len(found.test.ids) == 2


def test_images_in_folders_below_a_class_belong_to_the_class(root: Path) -> None:
    add(root, "train/dog/a/b/3.png")
    assert listed(root).train.ids[2:] == ["train/dog/1.png", "train/dog/a/b/3.png"]


def test_the_place_of_the_folder_does_not_matter(root: Path, tmp_path: Path) -> None:
    before = listed(root)
    root.rename(tmp_path / "elsewhere")
    after = listed(tmp_path / "elsewhere")
    assert (after.train.ids, after.train.digests, after.test.ids) == (
        before.train.ids,
        before.train.digests,
        before.test.ids,
    )


def test_the_order_does_not_depend_on_the_file_system(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(root, *(f"train/dog/{i}.png" for i in range(2, 12)), "val/dog/1.png", "val/cat/1.png")
    before = listed(root)
    real = os.scandir

    class Shuffled:
        def __init__(self, path: Any) -> None:
            with real(path) as entries:
                self._entries = list(entries)
            rng.shuffle(self._entries)

        def __iter__(self) -> Any:
            return iter(self._entries)

        def __next__(self) -> Any:
            if not self._entries:
                raise StopIteration
            return self._entries.pop()

        def __enter__(self) -> Shuffled:
            return self

        def __exit__(self, *_: object) -> None: ...

        def close(self) -> None: ...

    for seed in range(5):
        rng = random.Random(seed)
        monkeypatch.setattr(os, "scandir", Shuffled)
        after = listed(root)
        assert (after.train.ids, after.train.digests) == (before.train.ids, before.train.digests)
        np.testing.assert_array_equal(after.train.labels, before.train.labels)


def test_only_image_suffixes_count_in_any_case_and_hidden_files_do_not(root: Path) -> None:
    add(root, "train/dog/2.JPeG", "train/dog/._1.png", "train/dog/.hidden.png")
    for name in ("notes.txt", "Thumbs.db", "1.png.part", "no suffix"):
        (root / "train" / "dog" / name).write_text("not an image")
    (root / "train" / "readme.png").write_text("not in a class")
    (root / "classes.png").write_text("not in a split")
    assert listed(root).train.ids[2:] == ["train/dog/1.png", "train/dog/2.JPeG"]


def test_symbolic_links_are_not_followed_out_of_the_root_or_round_in_circles(
    root: Path, tmp_path: Path
) -> None:
    before = listed(root)
    add(tmp_path / "outside", "secret.png", "bird/1.png")
    (root / "train/cat/secret.png").symlink_to(tmp_path / "outside/secret.png")
    (root / "train/cat/inside.png").symlink_to(root / "train/cat/1.png")
    (root / "train/cat/dangling.png").symlink_to(tmp_path / "nowhere.png")
    (root / "train/cat/more").symlink_to(tmp_path / "outside", target_is_directory=True)
    (root / "train/cat/loop").symlink_to(root / "train", target_is_directory=True)
    (root / "train/cat/self.png").symlink_to(root / "train/cat/self.png")
    (root / "train/bird").symlink_to(tmp_path / "outside/bird", target_is_directory=True)
    after = listed(root)
    assert (after.class_names, after.train.ids) == (before.class_names, before.train.ids)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_that_is_a_symbolic_link_is_refused_not_left_out(
    split: str, root: Path, tmp_path: Path
) -> None:
    add(tmp_path / "outside", "cat/1.png", "dog/1.png")
    if (root / split).exists():
        (root / split).rename(tmp_path / "moved")
    (root / split).symlink_to(tmp_path / "outside", target_is_directory=True)
    assert refused(root, "symbolic link").where == str(root / split)


def test_pipes_and_folders_named_like_images_are_left_alone(root: Path) -> None:
    before = listed(root)
    os.mkfifo(root / "train/cat/pipe.png")  # reading it would wait for ever
    (root / "train/cat/folder.png").mkdir()
    assert listed(root).train.ids == before.train.ids


NOT_UTF8 = os.fsdecode(b"caf\xe9.png")


def test_a_name_that_is_not_utf8_is_a_bad_image_that_can_be_printed(root: Path) -> None:
    add(root, f"train/cat/{NOT_UTF8}")
    message = str(refused(root, "1 of 6 images cannot be used"))
    assert r"train/cat/caf\udce9.png: its name is not UTF-8" in message
    message.encode()  # fit for any terminal
    skipped = list_folder(root, on_bad_image="skip")
    assert len(skipped.train.ids) == 3
    assert skipped.bad == [r"train/cat/caf\udce9.png: its name is not UTF-8"]


def test_a_class_whose_name_is_not_utf8_cannot_be_used_but_skipped(root: Path) -> None:
    add(root, f"train/{NOT_UTF8}/1.png", f"test/{NOT_UTF8}/1.png")
    refused(root, "2 of 7 images cannot be used")
    skipped = list_folder(root, on_bad_image="skip")
    assert (skipped.class_names, len(skipped.bad)) == (["cat", "dog"], 2)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("way", ["missing", "empty", "a file", "no images"])
def test_a_split_without_images_is_named(split: str, way: str, root: Path, tmp_path: Path) -> None:
    (root / split).rename(tmp_path / "moved")
    if way == "a file":
        (root / split).write_text("")
    if way in ("empty", "no images"):
        (root / split / "cat").mkdir(parents=True)
    if way == "no images":
        (root / split / "cat" / "notes.txt").write_text("")
    assert refused(root, f"no images in .*{split}").where == str(root / split)


def test_a_root_that_is_missing_or_a_file_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "no images in")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "no images in")


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize(
    ("extra", "named"), [("bird", "bird"), ("Cat", "Cat"), (None, "dog"), ("puppy", "dog, puppy")]
)
def test_splits_with_different_classes_are_refused_with_the_classes_named(
    split: str, extra: str | None, named: str, root: Path, tmp_path: Path
) -> None:
    add(root, f"{split}/cat/1.png")
    if extra in ("bird", "Cat"):
        add(root, f"{split}/dog/1.png")
    elif (root / split / "dog").exists():
        (root / split / "dog").rename(tmp_path / "moved")
    if extra:
        add(root, f"{split}/{extra}/1.png")
    assert refused(root, f"train and {split} have different classes: {named}\n").where == str(root)


def test_all_bad_files_are_in_one_report_with_their_paths_and_reasons(root: Path) -> None:
    whole = (root / "train/cat/1.png").read_bytes()
    bad = {
        "train/cat/empty.png": b"",
        "train/cat/page.jpg": b"<html>404</html>",
        "test/dog/cut.png": whole[: len(whole) // 2],
    }
    for path, content in bad.items():
        (root / path).write_bytes(content)
    message = str(refused(root, "3 of 8 images cannot be used"))
    for path in bad:
        assert sum(path in line for line in message.splitlines()) == 1
    assert "on_bad_image: skip" in message
    assert "train/cat/1.png" not in message


def test_a_long_report_is_cut_and_says_so(root: Path) -> None:
    for i in range(plain_files.MAX_REPORTED + 3):
        (root / f"train/cat/bad{i:02d}.png").write_bytes(b"")
    message = str(refused(root, "23 of 28 images cannot be used"))
    assert message.count("train/cat/bad") == plain_files.MAX_REPORTED
    assert "and 3 more" in message


def test_skipped_images_are_left_out_and_counted(root: Path) -> None:
    (root / "train/cat/1.png").write_bytes(b"")
    (root / "val").mkdir()
    found = list_folder(root, on_bad_image="skip")
    assert found.train.ids == ["train/cat/2.png", "train/dog/1.png"]
    assert found.train.labels.tolist() == [0, 1]
    assert len(found.train.digests) == 2
    (report,) = found.bad
    assert report.startswith("train/cat/1.png: empty, or not an image")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (["test/cat/1.png", "test/dog/1.png"], "no images in .*test"),
        (["test/dog/1.png"], "train and test have different classes: dog"),
        (["train/dog/1.png"], "train and test have different classes: dog"),
    ],
)
def test_skipping_does_not_empty_a_split_or_a_class_unnoticed(
    bad: list[str], message: str, root: Path
) -> None:
    for path in bad:
        (root / path).write_bytes(b"")
    with pytest.raises(DataError, match=message):
        list_folder(root, on_bad_image="skip")


def _denied(real: Callable[..., Any], where: Path) -> Callable[..., Any]:
    def scandir(path: Any) -> Any:
        if not isinstance(path, int) and Path(path) == where:  # rmtree opens folders by handle
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    return scandir


@pytest.mark.parametrize("folder", ["train", "train/dog", "train/dog/sub"])
def test_a_folder_that_cannot_be_read_is_an_error_not_fewer_images(
    folder: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(root, "train/dog/sub/1.png")
    monkeypatch.setattr(os, "scandir", _denied(os.scandir, root / folder))
    with pytest.raises(EnvironmentFault, match="Permission denied") as caught:
        listed(root)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("on_bad_image", ["error", "skip"])
def test_files_that_cannot_be_read_are_named_and_never_left_out(
    root: Path, monkeypatch: pytest.MonkeyPatch, on_bad_image: Literal["error", "skip"]
) -> None:
    real = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name == "2.png":
            raise PermissionError(13, "Permission denied")
        return real(path)

    (root / "train/cat/1.png").write_bytes(b"no image")
    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.raises(EnvironmentFault, match="1 of 5 images cannot be read") as caught:
        list_folder(root, on_bad_image=on_bad_image)
    assert "train/cat/2.png: Permission denied" in caught.value.what
    assert "1.png" not in caught.value.what


def test_checking_in_threads_leaves_the_warning_filters_as_they_were(root: Path) -> None:
    add(root, *(f"train/cat/{i}.png" for i in range(3, 200)))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "of this test alone")  # not what another's leftovers say meanwhile
        before = list(warnings.filters)
        listed(root)
        assert list(warnings.filters) == before


def test_a_warning_about_an_image_does_not_leak_from_the_threads(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imagefolder, "decode", lambda content, name: warnings.warn("odd", stacklevel=1))
    assert listed(root).bad == []


def test_hidden_folders_are_no_data(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for folder in ("cat", "dog", ".ipynb_checkpoints", "cat/.ipynb_checkpoints"):
            (tmp_path / split / folder).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(tmp_path / split / folder / "a.png")
    found = list_folder(tmp_path, on_bad_image="error")
    assert found.class_names == ["cat", "dog"]
    assert found.train.ids == ["train/cat/a.png", "train/dog/a.png"]
