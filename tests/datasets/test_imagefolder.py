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
from clipcifar.datasets import checking, plain_files
from clipcifar.datasets.imagefolder import image_folder
from clipcifar.datasets.source import Collected, collect


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


def listed(root: Path, *, bad: Literal["error", "skip"] = "error") -> Listed:
    return Listed(collect(image_folder(root, max_megapixels=250), on_bad_image=bad))


class Listed:
    """What was collected, by name."""

    def __init__(self, collected: Collected) -> None:
        parts = collected.splits
        self.class_names, self.bad = collected.class_names, collected.unreadable
        self.left_out, self.named = dict(collected.left_out), collected.named
        self.train, self.val, self.test = (parts.get(split) for split in ("train", "val", "test"))  # type: ignore[arg-type]
        self.undivided = parts.get("undivided")


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
    for split in (found.train, found.test):
        contents = [(root / path).read_bytes() for path in split.ids]
        assert split.digests == [hashlib.sha256(content).hexdigest() for content in contents]
    assert (found.bad, found.left_out) == ([], {})


def test_a_val_folder_is_val(root: Path) -> None:
    add(root, "val/cat/1.png", "val/dog/9.png")
    found = listed(root)
    assert found.val.ids == ["val/cat/1.png", "val/dog/9.png"]
    assert (found.train.labels.tolist(), found.val.labels.tolist()) == ([0, 0, 1], [0, 1])
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
    found = listed(root)
    assert found.train.ids[2:] == ["train/dog/1.png", "train/dog/2.JPeG"]
    assert found.left_out == {
        ".txt": 1,
        ".part": 1,
        "without a suffix": 1,
        "hidden": 3,  # what Windows leaves among them
        "outside of a class folder": 2,
    }


def test_links_to_files_of_the_folder_and_of_dvcs_cache_are_read(root: Path, tmp_path: Path) -> None:
    before = listed(root)
    kept = "cache/files/md5/ab/" + "c" * 30
    add(tmp_path, kept)
    (root / "train/cat/3.png").symlink_to(tmp_path / kept)
    (root / "train/cat/4.png").symlink_to("1.png")
    (root / "train/cat/5.png").symlink_to("3.png")  # of which link is one itself
    after = listed(root)
    assert after.train.ids[:5] == [f"train/cat/{i}.png" for i in range(1, 6)]
    in_cache = hashlib.sha256((tmp_path / kept).read_bytes()).hexdigest()
    assert after.train.digests[2:5] == [in_cache, before.train.digests[0], in_cache]
    assert after.left_out == {}


def test_every_link_that_is_not_read_is_an_error_and_never_a_smaller_set(root: Path, tmp_path: Path) -> None:
    add(tmp_path / "outside", "secret.png", "bird/1.png")
    links = {
        "train/cat/secret.png": (
            tmp_path / "outside/secret.png",
            f"leads out, to {tmp_path}/outside/secret.png",
        ),
        "train/cat/dangling.png": (tmp_path / "nowhere.png", "leads nowhere"),
        "train/cat/more": (tmp_path / "outside", "to a folder"),
        "train/cat/loop": (root / "train", "to a folder"),
        "train/cat/self.png": (root / "train/cat/self.png", "leads nowhere"),
        "train/bird": (tmp_path / "outside/bird", "to a folder"),
    }
    for link, (target, _) in links.items():
        (root / link).symlink_to(target)
    message = str(refused(root, "6 links or special files lie there unread"))
    for link, (_, reason) in links.items():
        assert any(f"{link}: a symbolic link" in line and reason in line for line in message.splitlines()), (
            link
        )
    with pytest.raises(DataError, match="6 links"):
        listed(root, bad="skip")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_that_is_a_symbolic_link_is_refused_not_left_out(
    split: str, root: Path, tmp_path: Path
) -> None:
    add(tmp_path / "outside", "cat/1.png", "dog/1.png")
    if (root / split).exists():
        (root / split).rename(tmp_path / "moved")
    (root / split).symlink_to(tmp_path / "outside", target_is_directory=True)
    assert f"{split}: a symbolic link to a folder" in refused(root, "1 link or").what


def test_a_pipe_is_an_error_and_a_folder_named_like_an_image_is_a_folder(root: Path) -> None:
    before = listed(root)
    (root / "train/cat/folder.png").mkdir()
    assert listed(root).train.ids == before.train.ids
    os.mkfifo(root / "train/cat/pipe.png")  # reading it would wait for ever
    refused(root, r"train/cat/pipe\.png: not a file: a pipe")


NOT_UTF8 = os.fsdecode(b"caf\xe9.png")


def test_a_name_that_is_not_utf8_is_a_bad_image_that_can_be_printed(root: Path) -> None:
    add(root, f"train/cat/{NOT_UTF8}")
    message = str(refused(root, "1 of 6 images cannot be used"))
    assert r"train/cat/caf\udce9.png: its name is not UTF-8" in message
    message.encode()  # fit for any terminal
    skipped = listed(root, bad="skip")
    assert len(skipped.train.ids) == 3
    assert skipped.bad == [r"train/cat/caf\udce9.png: its name is not UTF-8"]


def test_a_class_whose_name_is_not_utf8_cannot_be_used_but_skipped(root: Path) -> None:
    add(root, f"train/{NOT_UTF8}/1.png", f"test/{NOT_UTF8}/1.png")
    refused(root, "2 of 7 images cannot be used")
    skipped = listed(root, bad="skip")
    assert (skipped.class_names, len(skipped.bad)) == (["cat", "dog"], 2)


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("way", ["empty", "no images"])
def test_a_split_without_images_is_named(split: str, way: str, root: Path, tmp_path: Path) -> None:
    if (root / split).exists():
        (root / split).rename(tmp_path / "moved")
    (root / split / "cat").mkdir(parents=True)
    if way == "no images":
        (root / split / "cat" / "notes.txt").write_text("")
    assert refused(root, f"no images in .*{split}").where == str(root / split)


@pytest.mark.parametrize("left", [["train"], ["train", "val"], ["val"]])
def test_without_test_a_folder_is_refused_and_what_there_is_is_named(
    left: list[str], root: Path, tmp_path: Path
) -> None:
    add(root, "val/cat/1.png", "val/dog/1.png")
    for split in {"train", "val", "test"} - set(left):
        (root / split).rename(tmp_path / split)
    assert refused(root, f"no images in .*test: there is only {' and '.join(left)}").where == str(
        root / "test"
    )


def test_test_alone_is_enough_but_not_with_val(root: Path, tmp_path: Path) -> None:
    (root / "train").rename(tmp_path / "moved")
    found = listed(root)
    assert (found.train, found.val, found.class_names) == (None, None, ["cat", "dog"])
    assert (found.test.ids, found.test.labels.tolist()) == (["test/cat/1.png", "test/dog/1.png"], [0, 1])
    add(root, "val/cat/1.png", "val/dog/1.png")
    refused(root, "no images in .*train: there is only test and val")


@pytest.mark.parametrize("layout", ["test", ""])
def test_where_no_class_has_an_image_each_is_named_with_what_it_holds(layout: str, tmp_path: Path) -> None:
    """As where a phone made all of them."""
    if layout:
        add(tmp_path, "train/cat/1.png", "train/dog/1.png")
    for name in ("cat/1.heic", "cat/2.HEIC", "dog/1.mov", "dog/.DS_Store"):
        (tmp_path / layout / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / layout / name).write_bytes(b"")
    said = refused(tmp_path, "no images in").what.splitlines()
    place = f"{layout}/" if layout else ""
    assert said[1:] == [f"    {place}cat: 2 .heic", f"    {place}dog: 1 .mov"]


def test_images_without_class_folders_are_counted_where_they_are_refused(tmp_path: Path) -> None:
    add(tmp_path, "1.png", "2.png")
    assert "it holds 2 outside of a class folder" in refused(tmp_path, "no images in").what


def test_classes_below_one_more_folder_are_not_one_class(tmp_path: Path) -> None:
    add(tmp_path, "photos/cat/1.png", "photos/dog/1.png")
    (tmp_path / "README.md").write_text("")
    error = refused(tmp_path, "photos holds cat and dog")
    assert error.fix == f"set dataset.path to {tmp_path}/photos"
    add(tmp_path, "photos/1.png", "birds/1.png")  # now both are classes, of which one has subfolders
    assert listed(tmp_path).class_names == ["birds", "photos"]


def test_a_root_that_is_missing_or_a_file_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "no images in")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "no images in")


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ("bird", "only in {split}: 'bird'"),
        ("Cat", "only in {split}: 'Cat'"),
        (None, "only in train: 'dog'"),
        ("puppy", "only in train: 'dog'; only in {split}: 'puppy'"),
        ("dog ", "only in train: 'dog'; only in {split}: 'dog '"),
        ("d\u043eg", "only in train: 'dog'; only in {split}: 'd\u043eg' \\('d\\\\u043eg'\\)"),
    ],
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
    message = f"train and {split} have different classes: {named.format(split=split)}\n"
    assert refused(root, message).where == str(root)


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
    found = listed(root, bad="skip")
    assert found.train.ids == ["train/cat/2.png", "train/dog/1.png"]
    assert found.train.labels.tolist() == [0, 1]
    assert len(found.train.digests) == 2
    (report,) = found.bad
    assert report.startswith("train/cat/1.png: empty, or not an image")
    assert found.left_out == {"not readable as an image": 1}


@pytest.mark.parametrize(
    "bad", [["test/cat/1.png", "test/dog/1.png"], ["test/dog/1.png"], ["train/dog/1.png"]]
)
def test_skipping_does_not_empty_a_split_or_a_class_unnoticed(bad: list[str], root: Path) -> None:
    for path in bad:
        (root / path).write_bytes(b"")
    with pytest.raises(DataError, match=f"{len(bad)} class folders? holds? no image") as caught:
        listed(root, bad="skip")
    for path in bad:
        assert f"{path.removesuffix('/1.png')}: 1 not readable as an image" in caught.value.what


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
        listed(root, bad=on_bad_image)
    assert "train/cat/2.png: Permission denied" in caught.value.what
    assert "1.png" not in caught.value.what


def test_checking_leaves_the_warning_filters_as_they_were(root: Path) -> None:
    add(root, *(f"train/cat/{i}.png" for i in range(3, 200)))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "of this test alone")  # not what another's leftovers say meanwhile
        before = list(warnings.filters)
        listed(root)
        assert list(warnings.filters) == before


@pytest.mark.parametrize("task_files", [1, 32])
def test_a_warning_about_an_image_is_not_told(
    task_files: int, root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checking, "TASK_FILES", task_files)
    monkeypatch.setattr(checking, "cores", lambda: 2)
    monkeypatch.setattr(checking, "check", lambda *_, **__: warnings.warn("odd", stacklevel=1))
    assert listed(root).bad == []
    assert "odd" not in capfd.readouterr().err


def test_hidden_folders_are_no_data(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for folder in ("cat", "dog", ".ipynb_checkpoints", "cat/.ipynb_checkpoints"):
            (tmp_path / split / folder).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(tmp_path / split / folder / "a.png")
    found = listed(tmp_path)
    assert found.class_names == ["cat", "dog"]
    assert found.train.ids == ["train/cat/a.png", "train/dog/a.png"]


def test_a_class_folder_without_an_image_that_is_read_is_an_error_that_names_it_and_what_it_holds(
    root: Path,
) -> None:
    for split in ("train", "test"):
        (root / split / "bird").mkdir()
    for name in ("a.heic", "b.HEIC", "c.txt"):
        (root / "train/bird" / name).write_bytes(b"x")
    message = str(refused(root, "2 class folders hold no image that can be read"))
    assert "train/bird: 2 .heic, 1 .txt\n" in message
    assert "test/bird: empty\n" in message
    with pytest.raises(DataError, match="2 class folders"):
        listed(root, bad="skip")


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JFIF", ".jfi", ".jif", ".pjpeg", ".pjp"])
def test_every_name_of_a_jpeg_is_one(suffix: str, root: Path) -> None:
    Image.new("RGB", (4, 4)).save(root / f"train/dog/2{suffix}", "JPEG")
    found = listed(root)
    assert f"train/dog/2{suffix}" in found.train.ids
    assert found.left_out == {}


def test_what_is_not_used_is_counted_by_kind_wherever_it_lies(root: Path) -> None:
    add(root, "extra/x/1.png", "extra/2.png", "train/loose.png", "__MACOSX/train/cat/._1.png", ".git/x.png")
    for name in ("labels.csv", "train/cat/b.heic", "test/dog/c.heic", "train/cat/film.mov", "extra/n.txt"):
        (root / name).write_bytes(b"x")
    (root / ("train/cat/odd." + "x" * 20)).write_bytes(b"x")
    assert listed(root).left_out == {
        "in no split (extra)": 2,
        "outside of a class folder": 1,
        "hidden": 2,
        ".csv": 1,
        ".heic": 2,
        ".mov": 1,
        ".txt": 1,
        "of another kind": 1,
    }


@pytest.mark.parametrize("name", ["valid", "validation", "Val", "VALIDATION"])
def test_val_may_have_any_of_its_usual_names(name: str, root: Path) -> None:
    add(root, f"{name}/cat/1.png", f"{name}/dog/9.png")
    assert listed(root).val.ids == [f"{name}/cat/1.png", f"{name}/dog/9.png"]


def test_splits_may_be_written_large_but_not_twice(root: Path) -> None:
    before = listed(root)
    (root / "train").rename(root / "Training")
    (root / "test").rename(root / "TEST")
    after = listed(root)
    assert after.train.ids == ["Training/" + name.removeprefix("train/") for name in before.train.ids]
    assert after.test.ids == ["TEST/" + name.removeprefix("test/") for name in before.test.ids]
    add(root, "train/cat/1.png")
    refused(root, "Training and train would both be train")


def test_class_names_are_composed_whoever_wrote_the_folders(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    add(tmp_path, f"train/{decomposed}/1.png", f"test/{composed}/1.png", "train/tea/1.png", "test/tea/1.png")
    found = listed(tmp_path)
    assert found.class_names == [composed, "tea"]
    assert found.train.ids == [f"train/{decomposed}/1.png", "train/tea/1.png"]  # as the disk has them
    assert found.test.labels.tolist() == [0, 1]


def test_a_flat_folder_has_classes_and_no_splits(tmp_path: Path) -> None:
    add(tmp_path, "cat/1.png", "cat/deep/2.png", "dog/1.png", "train/1.png", "overview.png")
    found = listed(tmp_path)
    assert found.class_names == ["cat", "dog", "train"]  # a train is also a thing
    assert found.undivided.ids == ["cat/1.png", "cat/deep/2.png", "dog/1.png", "train/1.png"]
    assert found.undivided.labels.tolist() == [0, 0, 1, 2]
    assert (found.train, found.test, found.left_out) == (None, None, {"outside of a class folder": 1})
    (tmp_path / "empty").mkdir()
    refused(tmp_path, "empty: empty")


def test_splits_below_classes_or_below_another_folder_are_not_mixed(tmp_path: Path) -> None:
    add(tmp_path / "a", *(f"{c}/{split}/1.png" for c in ("cat", "dog") for split in ("train", "test")))
    assert "above the classes" in refused(tmp_path / "a", "cat holds test and train").fix
    add(tmp_path / "b", *(f"archive/{name}" for name in SMALL))
    assert (
        refused(tmp_path / "b", "archive holds test and train").fix
        == f"set dataset.path to {tmp_path}/b/archive"
    )
    add(tmp_path / "c", "train/1.png", "test/1.png")  # images, and no class
    refused(tmp_path / "c", "no images in .*c/test")


@pytest.mark.parametrize("name", ["dev", "holdout", "Val 2"])
def test_a_folder_with_the_same_classes_is_a_split_and_not_left_out(name: str, root: Path) -> None:
    add(root, f"{name}/cat/1.png")
    assert refused(root, f"{name} holds the class cat, and its name is that of no split").where == str(
        root / name
    )


def test_what_is_left_out_is_named_three_of_a_kind(root: Path) -> None:
    for i in range(5):
        (root / f"train/cat/{i}.heic").write_bytes(b"x")
    (root / "test/dog/\u202etxt.mov").write_bytes(b"x")
    assert listed(root).named == [
        "left out, .heic: train/cat/0.heic, train/cat/1.heic, train/cat/2.heic and 2 more",
        "left out, .mov: test/dog/\\u202etxt.mov",
    ]
