"""Which objects of DVC's cache hold an output, where dvc.lock and listings may be anybody's."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from dvc.repo import Repo

from clipcifar.core.errors import DataError
from clipcifar.project import dvc_project
from clipcifar.project.dvc_cache import kept_objects

MD5 = "0123456789abcdef0123456789abcdef"
FILE, FOLDER = Path("data/x.h5"), Path("data/texts")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    Repo.init(str(folder), no_scm=True).close()
    return folder


def record(repository: Path, output: Path, digest: str) -> None:
    lock = {"schema": "2.0", "stages": {"s": {"cmd": "x", "outs": [{"path": str(output), "md5": digest}]}}}
    (repository / "dvc.lock").write_text(json.dumps(lock))


def keep(repository: Path, digest: str, content: str) -> Path:
    path = dvc_project.cache_of(repository) / digest[:2] / digest[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_a_file_is_one_object_and_a_folder_its_files(repository: Path) -> None:
    record(repository, FILE, MD5)
    assert kept_objects(repository, FILE) == {}  # recorded, and not kept
    kept = keep(repository, MD5, "x")
    assert kept_objects(repository, FILE) == {FILE.as_posix(): kept}
    assert kept_objects(repository, Path("data/y.h5")) == {}
    members = [{"relpath": name, "md5": md5} for name, md5 in (("a.h5", MD5), ("sub/b.h5", MD5[::-1]))]
    keep(repository, MD5 + ".dir", json.dumps(members))
    other = keep(repository, MD5[::-1], "y")
    record(repository, FOLDER, MD5 + ".dir")
    assert kept_objects(repository, FOLDER) == {"data/texts/a.h5": kept, "data/texts/sub/b.h5": other}
    assert kept_objects(repository, FOLDER / "a.h5") == {"data/texts/a.h5": kept}


@pytest.mark.parametrize(
    "digest", ["aa/etc/passwd", "../../../../etc/passwd", "aa", MD5.upper(), MD5 + ".dir.dir"]
)
def test_what_is_no_digest_leads_nowhere(repository: Path, digest: str) -> None:
    record(repository, FILE, digest)
    assert kept_objects(repository, FILE) == {}
    with pytest.raises(DataError, match="not a digest"):
        dvc_project.object_path(Path("/cache"), digest)


@pytest.mark.parametrize(
    "listing",
    [
        [{"relpath": "a.h5", "md5": "aa/etc/passwd"}],
        [{"relpath": "../../a.h5", "md5": MD5}],
        [{"relpath": "/etc/a.h5", "md5": MD5}],
        [{"relpath": "a.h5"}],
        "nothing",
    ],
)
def test_a_listing_that_leads_elsewhere_is_none(repository: Path, listing: object) -> None:
    keep(repository, MD5, "x")
    path = keep(repository, MD5 + ".dir", json.dumps(listing))
    record(repository, FOLDER, MD5 + ".dir")
    assert kept_objects(repository, FOLDER) == {}
    with pytest.raises(DataError, match="not the listing of a folder"):
        dvc_project.listing(path)
    path.write_text("[" * 200_000)
    assert kept_objects(repository, FOLDER) == {}


def test_a_pipe_is_no_object_and_no_dvc_is_no_error(repository: Path, tmp_path: Path) -> None:
    record(repository, FILE, MD5)
    path = keep(repository, MD5, "x")
    path.unlink()
    os.mkfifo(path)  # whoever opened it would wait for ever
    assert kept_objects(repository, FILE) == {}
    record(tmp_path, FILE, MD5)
    assert kept_objects(tmp_path, FILE) == {}
