"""Caches of DVC's that link files instead of copying them: all are read, and none is written through."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from clipcifar.store.dataset import read_dataset
from tests.support import faults
from tests.support.harmed import follow, problems
from tests.support.nightly import first
from tests.support.workspace import ROOT, Workspace, digits_params, outputs

pytestmark = pytest.mark.pipeline
MIXED = "reflink,symlink,hardlink,copy"
TYPES = first(1, ["symlink", "hardlink", MIXED])  # all else here runs with copies, or clones of files
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# The others by night.
BY_HAND = ("download", "fetch_model", "embed_images", "embed_active", "embed_texts", "zero_shot")
ANOTHER = "an image of a {classname}."


def kinds(*folders: Path) -> Counter[str]:
    """How many files in folders are symbolic links, further names of a file, or files of their own."""
    paths = [path for folder in folders for path in folder.rglob("*") if not path.is_dir()]
    made = [path for path in paths if path.name not in (".gitignore", "none")]
    return Counter(
        "symlink" if path.is_symlink() else "hardlink" if path.stat().st_nlink > 1 else "file"
        for path in made
        if not {"demo", "sentences"} & {*path.parts}  # git has those
    )


def expected_kind(cache_type: str, workspace: Workspace) -> str:
    """What DVC makes of a file under a cache type; of the mixed one, the first that the file system has."""
    if cache_type != MIXED:
        return cache_type
    cloned = workspace.command("cp", "--reflink=always", "params.yaml", ".git/cloned", check=False)
    return "symlink" if cloned.returncode else "file"


def damaged(cache: Path) -> list[Path]:
    """The objects of a cache that do not hold what they are called."""
    return [path for path in cache.glob("files/md5/??/*") if _md5(path) != _digest(path)]


def _digest(path: Path) -> str:
    return (path.parent.name + path.name).removesuffix(".dir")


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def linked(finished: Workspace, folder: Path, cache_type: str) -> Workspace:
    workspace = finished.copy(folder)
    workspace.command("dvc", "config", "cache.type", cache_type)
    workspace.command("dvc", "checkout", "--relink")
    workspace.commit(cache_type)
    return workspace


def photograph(workspace: Workspace, template: str) -> None:
    workspace.edit(lambda settings: settings["prompts"]["sets"]["photo"].update(templates=[template]))


@pytest.mark.parametrize("cache_type", TYPES)
def test_the_pipeline_is_the_same_and_its_cache_stays_whole(
    cache_type: str, finished: Workspace, tmp_path: Path
) -> None:
    workspace = linked(finished, tmp_path / "w", cache_type)
    cache = workspace.folder / ".dvc" / "cache"
    kind = expected_kind(cache_type, workspace)
    assert set(kinds(workspace.folder / "data")) == {kind}
    before = outputs(workspace)
    assert before == outputs(finished)
    workspace.repro()
    assert workspace.executed() == []
    for name in BY_HAND if cache_type == "symlink" else STAGES:
        assert faults.run_here(workspace, name).code == 0, name  # over outputs that DVC has linked
    assert damaged(cache) == []
    assert outputs(workspace) == before
    workspace.repro()
    assert workspace.executed() == []
    photograph(workspace, ANOTHER)
    workspace.repro("zero_shot")
    assert workspace.executed() == ["prompts", "embed_active", "zero_shot"]
    assert outputs(workspace)["data/predictions/zero_shot.h5"] != before["data/predictions/zero_shot.h5"]
    assert damaged(cache) == []
    assert "stale" not in workspace.command("clipcifar", "compare", "--method", "zero_shot").stderr


def test_links_into_a_cache_that_moved_or_lost_an_object_are_mended_by_the_doctor(
    finished: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC's links are absolute; `dvc status` and `dvc repro` cannot read those that lead nowhere."""
    workspace = linked(finished, tmp_path / "w", "symlink")
    monkeypatch.setenv("CLIPCIFAR_CACHE", workspace.environment["CLIPCIFAR_CACHE"])
    monkeypatch.setenv("PATH", workspace.environment["PATH"])
    before = outputs(workspace)
    output = workspace.folder / "data" / "predictions" / "zero_shot.h5"
    output.resolve().unlink()
    assert workspace.command("dvc", "status", check=False).returncode != 0
    ((name, error),) = problems(workspace)
    assert (name, error.what) == (
        "outputs",
        "data/predictions/zero_shot.h5 is missing or not what the stage made",
    )
    follow(workspace, error.fix)
    assert workspace.executed()[-1] == "zero_shot"
    assert problems(workspace) == []
    assert outputs(workspace) == before
    (workspace.folder / "photos").mkdir()
    (workspace.folder / "photos" / "a.txt").write_text("a photo")
    workspace.command("dvc", "add", "--quiet", "photos")
    workspace.edit(lambda settings: settings["dataset"].update(path="photos"))
    assert problems(workspace) == []
    moved = Workspace(tmp_path / "moved")
    workspace.folder.rename(moved.folder)
    assert not (moved.folder / "data" / "splits.h5").exists()
    (_, of_photos), (name, error) = problems(moved)
    assert of_photos.what == f"DVC keeps {moved.folder / 'photos'}, and links in it lead nowhere"
    assert of_photos.fix == "dvc checkout photos.dvc"
    assert name == "outputs"
    assert error.fix.endswith(" && dvc checkout")
    for command in (of_photos.fix, error.fix):
        follow(moved, command)
    assert problems(moved) == []
    assert (moved.folder / "photos" / "a.txt").read_text() == "a photo"
    assert outputs(moved) == before
    assert set(kinds(moved.folder / "data")) == {"symlink"}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """168 photographs of four classes in train and test."""
    folder = tmp_path / "photos"
    for number, name in enumerate(_names(range(21))):
        _draw(folder / name, number)
    return folder


def _names(numbers: range) -> Iterator[str]:
    for split in ("train", "test"):
        for class_name in "1357":
            yield from (f"{split}/{class_name}/{number}.png" for number in numbers)


def _draw(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def of_photographs(folder: Path, photos: Path, *, cache_type: str, cache: Path) -> Workspace:
    """A project whose photographs DVC keeps in a cache outside of it."""
    sets = {"photo": {"template_mode": "shared", "templates": ["a photo of a {classname}."]}}
    params: dict[str, Any] = {**digits_params(), "dataset": {"name": "imagefolder", "path": "photos"}}
    workspace = Workspace.create(folder, params)
    workspace.edit(lambda settings: settings["prompts"].update(active="photo", sets=sets))
    shutil.copytree(photos, workspace.folder / "photos")
    workspace.command("dvc", "config", "cache.type", cache_type)
    workspace.command("dvc", "config", "--local", "cache.dir", str(cache))
    workspace.command("dvc", "add", "--quiet", "photos")
    workspace.command("dvc", "checkout", "--relink", "photos.dvc")  # of a mixed type `dvc add` makes copies
    workspace.commit("photographs")
    return workspace


def counts(workspace: Workspace) -> list[int]:
    dataset = read_dataset(workspace.folder / "data" / "dataset.h5")
    return [len(dataset.train.ids), len(dataset.test.ids)]


@pytest.mark.parametrize("cache_type", TYPES)
def test_photographs_that_dvc_keeps_are_all_read(cache_type: str, photos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "shared" / "cache"
    cache.mkdir(parents=True)
    workspace = of_photographs(tmp_path / "w", photos, cache_type=cache_type, cache=cache)
    own, kind = workspace.folder / "photos", expected_kind(cache_type, workspace)
    assert kinds(own) == {kind: 168}
    workspace.repro("zero_shot")
    assert counts(workspace) == [84, 84]
    for number, name in enumerate(_names(range(21, 23))):
        _draw(own / name, 1000 + number)
    assert kinds(own) == Counter({kind: 168}) + Counter({"file": 16})
    assert faults.run_here(workspace, "prepare").code == 0
    assert counts(workspace) == [92, 92]
    workspace.repro("zero_shot")
    assert counts(workspace) == [92, 92]
    workspace.command("dvc", "checkout", "--relink", "photos.dvc")
    assert kinds(own) == {kind: 184}
    workspace.repro("zero_shot")
    assert workspace.executed() == []
    workspace.commit("184 photographs")
    assert damaged(cache) == []

    edit = f'prompts.sets.photo.templates=["{ANOTHER}"]'
    workspace.command("dvc", "exp", "run", "--temp", "--name", "trial", "-S", edit, "zero_shot")
    assert workspace.executed() == ["prompts", "embed_active", "zero_shot"]
    compared = workspace.command("clipcifar", "compare", "HEAD", "trial", "--method", "zero_shot")
    assert "92" in compared.stdout

    workspace.command("dvc", "remote", "add", "--quiet", "--default", "storage", str(tmp_path / "storage"))
    workspace.commit("a remote")
    workspace.command("dvc", "push", "--quiet")
    clone = Workspace(tmp_path / "clone")
    workspace.command("git", "clone", "--quiet", str(workspace.folder), str(clone.folder))
    clone.command("dvc", "pull", "--quiet", "--with-deps", "zero_shot")
    assert kinds(clone.folder / "photos") == {kind: 184}
    clone.repro("zero_shot")
    assert clone.executed() == []
    assert faults.run_here(clone, "prepare").code == 0
    assert clone.read("data/dataset.h5") == workspace.read("data/dataset.h5")
    assert damaged(clone.folder / ".dvc" / "cache") == []
