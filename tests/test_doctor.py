"""`clipcifar doctor` on a finished run that is harmed in one way at a time, and mended as it says."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from clipcifar import dataset_file, doctor, doctor_files, files
from clipcifar.dataset_file import PreparedSplit
from clipcifar.errors import ClipcifarError
from tests.workspace import ROOT, Workspace

pytestmark = pytest.mark.pipeline
CHECKS = [
    "environment",
    "params.yaml",
    "device",
    "disk",
    "dataset",
    "weights",
    "embeddings",
    "results",
    "memo",
    "DVC's cache",
]


@pytest.fixture
def at(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A finished run, and this process as if started in it."""
    monkeypatch.setenv("CLIPCIFAR_CACHE", workspace.environment["CLIPCIFAR_CACHE"])
    monkeypatch.setenv("PATH", workspace.environment["PATH"])
    return workspace


def _problems(workspace: Workspace) -> list[tuple[str, ClipcifarError]]:
    found = doctor.examine(workspace.folder)
    return [(name, said) for name, said in found if isinstance(said, ClipcifarError)]


def _flip(path: Path) -> None:
    """Flip a bit of what the file holds; HDF5 also has bytes that mean nothing."""
    mode = path.stat().st_mode
    os.chmod(path, 0o644)
    content = bytearray(path.read_bytes())
    content[_data_offset(path) if content.startswith(b"\x89HDF") else len(content) // 2] ^= 1
    path.write_bytes(content)
    os.chmod(path, mode)


def _data_offset(path: Path) -> int:
    offsets = []
    with h5py.File(path) as file:
        file.visititems(
            lambda _, item: (
                offsets.append(item.id.get_chunk_info(0).byte_offset)
                if isinstance(item, h5py.Dataset) and item.chunks
                else None
            )
        )
    return int(offsets[0])


def _object(workspace: Workspace, name: str) -> Path:
    """The object of DVC's cache that an output of the run stands in."""
    lock = workspace.read("dvc.lock").decode()
    md5 = lock.split(f"path: {name}\n")[1].split("md5: ")[1].split("\n")[0]
    return workspace.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def _mend(workspace: Workspace, command: str) -> None:
    for part in command.split(" && "):
        workspace.command(*part.split())


def test_a_finished_run_has_no_problem(at: Workspace) -> None:
    found = list(doctor.examine(at.folder))
    assert [said for _, said in found if isinstance(said, ClipcifarError)] == []
    assert list(dict.fromkeys(name for name, _ in found)) == CHECKS
    text = "\n".join(str(said) for _, said in found)
    for part in ("digits, ", "2 prompt sets, photo active", "GB free", "objects"):
        assert part in text
    before = at.read("params.yaml")
    done = at.command("clipcifar", "doctor")
    assert done.stdout.splitlines()[-1] == "No problem found."
    assert at.read("params.yaml") == before
    assert at.command("git", "status", "--porcelain").stdout == ""  # it changes nothing


def test_before_the_first_run_there_is_nothing_to_complain_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace.create(tmp_path / "w", {})
    monkeypatch.setenv("PATH", workspace.environment["PATH"])
    assert _problems(workspace) == []
    said = [said for _, said in doctor.examine(workspace.folder)]
    assert "data/dataset.h5 is not made yet; `dvc repro` makes it" in said


@pytest.mark.parametrize(
    ("path", "check", "part"),
    [
        ("data/dataset.h5", "dataset", "data/dataset.h5"),
        ("data/weights/open_clip_model.safetensors", "weights", "data/model.json says"),
        ("data/embeddings/images.h5", "embeddings", "images.h5"),
        ("data/embeddings/texts/digits.h5", "embeddings", "digits.h5"),
        ("data/embeddings/pool.h5", "embeddings", "pool.h5"),
        ("data/splits.h5", "results", "splits.h5"),
        ("data/heads/mlp_probe.h5", "results", "mlp_probe.h5"),
        ("data/predictions/projection.h5", "results", "projection.h5"),
        ("data/predictions/prompt_sets.h5", "results", "prompt_sets.h5"),
    ],
)
def test_a_flipped_bit_is_found_and_dvc_brings_the_file_back(
    at: Workspace, path: str, check: str, part: str
) -> None:
    whole = at.read(path)
    _flip(at.folder / path)
    problems = _problems(at)
    assert problems[0][0] == check
    assert part in str(problems[0][1])
    assert problems[0][1].exit_code == 3
    assert problems[0][1].fix
    (at.folder / path).unlink()
    at.repro()
    assert at.executed() == []
    assert at.read(path) == whole
    assert _problems(at) == []


def test_files_of_another_model_are_told_from_the_runs_own(at: Workspace) -> None:
    described = json.loads(at.read("data/model.json"))
    files.write_json(at.folder / "data/model.json", {**described, "weights_sha256": "0" * 64})
    names = [name for name, _ in _problems(at)]
    assert names == ["weights", "embeddings"]
    at.edit(lambda settings: settings["model"].update(pretrained="openai"))
    asked = [error.what for name, error in _problems(at) if name == "embeddings"]
    assert "params.yaml asks for 'openai'" in asked[0]


def test_a_damaged_memo_row_is_counted(at: Workspace) -> None:
    memo = Path(at.environment["CLIPCIFAR_CACHE"], "sentences.sqlite")
    with closing(sqlite3.connect(memo)) as connection, connection:
        connection.execute("UPDATE memo SET row = zeroblob(128) WHERE rowid = 1")
    ((name, error),) = _problems(at)
    assert (name, error.what.split(" of ")[0]) == ("memo", "1")
    _mend(at, error.fix)
    assert _problems(at) == []
    memo.write_bytes(b"no database " * 100)
    ((_, error),) = _problems(at)
    assert "cannot be read" in error.what


@pytest.mark.parametrize("whole", [True, False], ids=["workspace whole", "workspace harmed too"])
@pytest.mark.parametrize("name", ["data/embeddings/images.h5", "data/embeddings/texts"])
def test_a_damaged_object_of_dvcs_cache_is_mended_by_the_command(
    at: Workspace, name: str, whole: bool
) -> None:
    stored = _object(at, name)
    if name.endswith("texts"):  # the listing of a folder, then one of its files
        members = json.loads(stored.read_text())
        stored = stored.parent.parent / members[0]["md5"][:2] / members[0]["md5"][2:]
        in_workspace = at.folder / name / members[0]["relpath"]
    else:
        in_workspace = at.folder / name
    content = in_workspace.read_bytes()
    _flip(stored)
    if not whole:
        in_workspace.write_bytes(stored.read_bytes())
    found = dict(_problems(at))
    error = found["DVC's cache"]
    assert str(in_workspace) in error.what
    assert error.where == str(stored)
    assert ("dvc commit" in error.fix) == whole
    _mend(at, error.fix)
    assert in_workspace.read_bytes() == content
    assert stored.read_bytes() == content
    assert _problems(at) == []


def test_objects_lost_and_objects_of_earlier_runs(at: Workspace) -> None:
    stored = _object(at, "data/splits.h5")
    os.chmod(stored.parent, 0o755)
    stored.unlink()
    ((name, error),) = _problems(at)
    assert name == "DVC's cache"
    assert "has lost" in error.what
    _mend(at, error.fix)
    assert _problems(at) == []

    old = _object(at, "data/predictions/zero_shot.h5")
    at.edit(lambda settings: settings["prompts"]["sets"]["photo"].update(templates=["{classname}!"]))
    at.repro()
    _flip(old)
    ((_, error),) = _problems(at)
    assert "earlier run" in error.what
    _mend(at, error.fix)
    assert _problems(at) == []


def _typo(settings: Any) -> None:
    settings["linear_probe"]["max_iterr"] = 3


def test_a_broken_params_yaml_is_told_once_and_with_its_exit_code(at: Workspace) -> None:
    at.edit(_typo)
    problems = _problems(at)
    assert [name for name, _ in problems] == ["params.yaml"]
    assert "max_iterr" in str(problems[0][1])
    done = at.command("clipcifar", "doctor", check=False)
    assert done.returncode == 2
    assert "PROBLEM  params.yaml: " in done.stdout
    assert done.stdout.splitlines()[-1] == "1 problem."
    (at.folder / "params.yaml").write_text("[")
    assert [name for name, _ in _problems(at)] == ["params.yaml"]


def _old_package(patch: pytest.MonkeyPatch) -> None:
    real = doctor.metadata.version
    patch.setattr(doctor.metadata, "version", lambda name: "0.0.1" if name == "h5py" else real(name))


def _no_package(patch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise doctor.metadata.PackageNotFoundError(name)

    patch.setattr(doctor.metadata, "version", version)


def _full_disk(patch: pytest.MonkeyPatch) -> None:
    usage = doctor.shutil.disk_usage("/")
    patch.setattr("shutil.disk_usage", lambda folder: usage._replace(free=5_000_000))


def _no_dvc(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("shutil.which", lambda command: None)


@pytest.mark.parametrize(
    ("harm", "check", "part"),
    [
        (_old_package, "environment", "h5py>=3.16 is needed, 0.0.1 is installed"),
        (_no_package, "environment", "nothing is installed"),
        (_no_dvc, "environment", "the command dvc is not found"),
        (_full_disk, "disk", "needs 2,000.0 MB, has 5.0 MB"),
    ],
)
def test_the_surroundings_are_looked_at(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    harm: Callable[[pytest.MonkeyPatch], None],
    check: str,
    part: str,
) -> None:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    harm(monkeypatch)
    problems = []
    for name, found in doctor.examine(tmp_path):
        if name == "dataset":
            break
        if isinstance(found, ClipcifarError):
            problems.append((name, found))
    assert {name for name, _ in problems} == {check}
    assert part in problems[0][1].what
    assert {error.exit_code for _, error in problems} == {4}
    assert all(error.fix for _, error in problems)


def test_photographs_that_changed_or_went_are_named(tmp_path: Path) -> None:
    ids = [f"train/cat/{i}.jpg" for i in range(9)]
    for name in ids:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(name.encode())
    digests = [files.file_sha256(tmp_path / "photos" / name) for name in ids]
    split = PreparedSplit(np.array(digests, dtype="S64"), np.zeros(9, dtype=np.int64), ids)
    dataset_file.write(
        tmp_path / doctor_files.DATASET,
        split,
        split.take(np.arange(1)),
        class_names=["cat"],
        name="imagefolder",
        max_per_class=0,
    )
    settings = {
        "dataset": {
            "name": "imagefolder",
            "path": "photos",
            "max_per_class": None,
            "seed": 0,
            "on_bad_image": "error",
        }
    }
    assert not [x for x in doctor_files.dataset(tmp_path, settings) if isinstance(x, ClipcifarError)]
    for name in ids[2:9]:
        (tmp_path / "photos" / name).write_bytes(b"other")
    (tmp_path / "photos" / ids[1]).unlink()
    (error,) = [x for x in doctor_files.dataset(tmp_path, settings) if isinstance(x, ClipcifarError)]
    assert error.what.startswith("8 images are missing or changed: 'train/cat/1.jpg', 'train/cat/2.jpg'")
    assert error.what.endswith("and more")
