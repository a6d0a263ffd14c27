"""Tar shards by a real DVC, beside the same images in a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipcifar.prompts.save import overlay
from clipcifar.store.dataset import read_dataset
from tests.support.local_server import serving
from tests.support.shards import tar_of, write
from tests.support.workspace import Workspace, digits_params

pytestmark = pytest.mark.pipeline
PART = "data/embeddings/images/part-00000.h5"


def make_images(folder: Path) -> dict[str, bytes]:
    """24 photographs by their path in a folder, those of each class side by side."""
    rng, made = np.random.default_rng(0), {}
    for split, label, number in (
        (s, c, n) for s in ("train", "test") for c in ("cat", "dog") for n in range(6)
    ):
        few = Image.fromarray(rng.integers(0, 255, (4, 6, 3), dtype=np.uint8))
        few.resize((90 + number, 60), Image.Resampling.BICUBIC).save(folder / "one.jpg")
        made[f"{split}/{label}/{number}.jpg"] = (folder / "one.jpg").read_bytes()
    return made


def shards_of(images: dict[str, bytes], *, labels: str = "folders") -> dict[str, bytes]:
    """A shard for each split and class, numbered so that images keep their order."""
    shards: dict[str, dict[str, bytes]] = {}
    for path, content in images.items():
        split, label, name = path.split("/")
        members = shards.setdefault(f"{split}/{split}-{['cat', 'dog'].index(label)}.tar", {})
        if labels == "folders":
            members[f"{label}/{name}"] = content
        else:
            members |= {
                name: content,
                name.replace(".jpg", ".cls"): str(["cat", "dog"].index(label)).encode(),
            }
    return {name: tar_of(members) for name, members in shards.items()}


def pointed_at(workspace: Workspace, name: str, path: Path) -> Workspace:
    workspace.edit(lambda settings: overlay(settings, {"dataset": {"name": name, "path": str(path)}}))
    return workspace


def test_shards_are_embedded_as_the_same_photographs_are_and_dvc_sees_each_change(tmp_path: Path) -> None:
    images = make_images(tmp_path)
    photos = write(tmp_path / "photos", images)
    folder = write(tmp_path / "tar", shards_of(images))
    workspace = Workspace.create(tmp_path / "w", {})
    workspace.edit(lambda settings: settings["prompts"].update(sets={}))
    workspace.edit(lambda settings: overlay(settings, digits_params()))
    pointed_at(workspace, "imagefolder", photos).repro("embed_images")
    of_files, expected = read_dataset(workspace.folder / "data/dataset.h5"), workspace.read(PART)

    said = pointed_at(workspace, "tarfolder", folder).repro("embed_images").stdout
    assert "tarfolder: 10 train, 2 val, 12 test images of 2 classes; nothing left out" in said
    prepared = read_dataset(workspace.folder / "data/dataset.h5")
    assert prepared.train.digests == of_files.train.digests
    assert prepared.train.ids[0] == "train/train-0.tar/cat/0.jpg"
    assert workspace.read(PART) == expected
    assert {path.name for path in (workspace.folder / "data/raw").iterdir()} == {
        "source.json"
    }  # nothing unpacked

    workspace.repro("embed_images")
    assert workspace.executed() == []
    assert workspace.command("clipcifar", "find", "a cat", "--top", "3").returncode == 0
    assert workspace.command("clipcifar", "doctor", check=False).stdout.count("4 shards") == 1

    by_number = shards_of(images, labels="cls")
    write(folder, {**by_number, "classes.txt": b"cat\ndog\n"})
    workspace.repro("embed_images")
    assert workspace.executed() == ["prepare", "embed_images"]
    assert workspace.read(PART) == expected

    broken = by_number["train/train-1.tar"]
    write(folder, {"train/train-1.tar": broken[: len(broken) // 2]})
    failed = workspace.repro("embed_images", check=False)
    assert failed.returncode != 0
    assert "train/train-1.tar: cut off" in failed.stderr
    assert workspace.executed() == ["prepare"]


def test_lists_of_urls_are_all_that_dvc_looks_at_and_a_changed_shard_is_named(tmp_path: Path) -> None:
    images = make_images(tmp_path)
    shards = shards_of(images)
    with serving() as server:
        server.ranges = True
        server.files = {f"/{name.split('/')[1]}": content for name, content in shards.items()}
        lists = {
            f"{split}.txt": "".join(f"{server.url}/{split}-{i}.tar\n" for i in (0, 1)).encode()
            for split in ("train", "test")
        }
        folder = write(tmp_path / "lists", lists)
        workspace = Workspace.create(tmp_path / "w", digits_params())
        workspace.environment["NO_PROXY"] = "127.0.0.1"
        pointed_at(workspace, "tarfolder", folder).repro("embed_images")
        remote = workspace.read(PART)
        server.requests.clear()
        workspace.repro("embed_images")
        assert (workspace.executed(), server.requests) == ([], [])

        local = write(tmp_path / "tar", shards)
        shutil.rmtree(Path(workspace.environment["CLIPCIFAR_CACHE"]))
        pointed_at(workspace, "tarfolder", local).repro("embed_images")
        assert workspace.read(PART) == remote

        pointed_at(workspace, "tarfolder", folder).repro("prepare")
        images["train/dog/3.jpg"] = images["train/dog/4.jpg"]
        server.files["/train-1.tar"] = shards_of(images)["train/train-1.tar"]
        workspace.edit(lambda settings: settings["embed"].update(batch_size=5))
        failed = workspace.repro("embed_images", check=False)
        assert failed.returncode != 0
        assert "train-1.tar" in failed.stderr
        assert "changed since prepare read it" in failed.stderr or "when prepare read it" in failed.stderr
