from __future__ import annotations

import os
from pathlib import Path

import pytest

from clipcifar.datasets.loose_images import LooseImages, loose_images


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"not opened")


def names(listed: LooseImages, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in listed.images]


def reasons(listed: LooseImages, root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): reason for path, reason in listed.unread}


def test_images_are_listed_by_name_a_folder_after_its_files_and_the_rest_is_counted(tmp_path: Path) -> None:
    put(tmp_path, "b.JPG", "a.png", "z/y/deep.webp", "z/near.jpeg", "c/d.tif")
    put(tmp_path, "notes.txt", "z/more.txt", "c/raw.HEIC", "Makefile", "x.averylongsuffix")
    put(tmp_path, ".hidden.jpg", ".git/config.png", "__MACOSX/a.jpg", "Thumbs.db")
    listed = loose_images(tmp_path)
    assert names(listed, tmp_path) == ["a.png", "b.JPG", "c/d.tif", "z/near.jpeg", "z/y/deep.webp"]
    assert listed.left_out == {
        ".txt": 2,
        ".heic": 1,
        "without a suffix": 1,
        "of another kind": 1,
        "hidden": 4,
    }
    assert listed.unread == []


def test_links_are_followed_within_the_folder_and_into_a_cache_and_others_are_told(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    digest = "ab/" + "0" * 30
    put(elsewhere, "photo.jpg", f"files/md5/{digest}")
    put(tmp_path, "real/a.jpg")
    for name, target in {
        "inside.jpg": "real/a.jpg",
        "cached.jpg": elsewhere / "files/md5" / digest,
        "out.jpg": elsewhere / "photo.jpg",
        "dead.jpg": "nowhere",
        "loop.jpg": "loop.jpg",
        "folder": "real",
        "notes.txt": elsewhere / "photo.jpg",
    }.items():
        (tmp_path / name).symlink_to(target)
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe")
    listed = loose_images(tmp_path)
    assert names(listed, tmp_path) == ["cached.jpg", "inside.jpg", "real/a.jpg"]
    assert reasons(listed, tmp_path) == {
        "dead.jpg": "a symbolic link that leads nowhere: No such file or directory",
        "folder": "a symbolic link to a folder, which is not followed",
        "loop.jpg": "a symbolic link that leads nowhere: Too many levels of symbolic links",
        "out.jpg": f"a symbolic link that leads out, to {elsewhere / 'photo.jpg'}",
        "pipe.png": "not a file: a pipe, a socket or a device",
    }
    assert listed.left_out == {".txt": 1, "without a suffix": 1}


def test_the_folder_itself_may_be_a_link_and_its_files_are_inside(tmp_path: Path) -> None:
    put(tmp_path, "real/a.jpg")
    (tmp_path / "real" / "same.jpg").symlink_to("a.jpg")
    (tmp_path / "named").symlink_to("real")
    listed = loose_images(tmp_path / "named")
    assert names(listed, tmp_path) == ["named/a.jpg", "named/same.jpg"]


def test_a_folder_that_cannot_be_listed_is_told_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a/x.jpg", "b/x.jpg")
    real = os.scandir

    def scandir(path: Path) -> object:  # to an administrator, every folder can be listed
        if path.name == "a":
            raise PermissionError(13, "Permission denied")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        listed = loose_images(tmp_path)
    assert names(listed, tmp_path) == ["b/x.jpg"]
    assert reasons(listed, tmp_path) == {"a": "cannot be listed: Permission denied"}


def test_paths_of_the_current_folder_are_as_a_person_would_type_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a/x.jpg", "y.jpg")
    monkeypatch.chdir(tmp_path)
    assert [str(path) for path in loose_images(Path(".")).images] == ["y.jpg", "a/x.jpg"]
