"""Links in a folder of photographs to files that are named after what they hold."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from clipcifar.core.errors import DataError
from clipcifar.datasets.folder_layout import list_layout

CONTENT = b"a photograph"
MD5, SHA256 = hashlib.md5(CONTENT).hexdigest(), hashlib.sha256(CONTENT).hexdigest()
FILED = {
    "another DVC repository's": f"registry/.dvc/cache/files/md5/{MD5[:2]}/{MD5[2:]}",
    "filed by DVC 2": f"project/.dvc/cache/{MD5[:2]}/{MD5[2:]}",
    "the hub's": f"hub/datasets--a--b/blobs/{SHA256}",
    "the hub's, a small file": f"hub/datasets--a--b/blobs/{SHA256[:40]}",
}
ELSEWHERE = [
    "etc/passwd",
    f"{MD5[:2]}/{MD5[2:]}.key",
    f"blobs/{SHA256}.pem",
    f"x{MD5[:2]}/{MD5[2:]}",
    "a.png",
]


def place(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("train/cat/1.png", "test/cat/1.png"):
        place(tmp_path / "photos" / name)
    return tmp_path / "photos"


@pytest.mark.parametrize("is_absolute", [True, False])
@pytest.mark.parametrize("kind", FILED)
def test_files_of_any_cache_are_read_where_links_lead(
    kind: str, is_absolute: bool, root: Path, tmp_path: Path
) -> None:
    target = place(tmp_path / FILED[kind])
    link = root / "train/cat/2.png"
    link.symlink_to(target if is_absolute else os.path.relpath(target, link.parent))
    layout = list_layout(root)
    assert [candidate.path for candidate in layout.candidates if candidate.split == "train"] == [
        "train/cat/1.png",
        "train/cat/2.png",
    ]
    assert not layout.left_out.kinds


@pytest.mark.parametrize("name", ELSEWHERE)
def test_any_other_file_outside_is_an_error(name: str, root: Path, tmp_path: Path) -> None:
    """The negative control of the test before, with names that nearly are those of a cache."""
    target = place(tmp_path / "out" / name)
    (root / "train/cat/2.png").symlink_to(target)
    (root / "train/cat/3.png").symlink_to(tmp_path / "hop")
    (tmp_path / "hop").symlink_to(target)  # a link to a link leads to where that one does
    with pytest.raises(DataError) as caught:
        list_layout(root)
    assert caught.value.what.count(f"a symbolic link that leads out, to {target}") == 2


def test_a_digests_name_hides_no_link(root: Path, tmp_path: Path) -> None:
    """A link may itself be called as an object is; what counts is the file at its end."""
    secret = place(tmp_path / "secret")
    fake = tmp_path / MD5[:2] / MD5[2:]
    fake.parent.mkdir()
    fake.symlink_to(secret)
    (root / "train/cat/2.png").symlink_to(fake)
    with pytest.raises(DataError, match="leads out"):
        list_layout(root)
