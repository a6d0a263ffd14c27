"""`clipcifar doctor` on a finished run that is harmed in one way at a time, and mended as it says."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from clipcifar.core import files
from clipcifar.core.errors import ClipcifarError, DataError
from clipcifar.datasets import registry
from clipcifar.datasets.source import collect
from clipcifar.datasets.tarfolder import tar_folder
from clipcifar.doctor import checks as doctor, files as doctor_files
from clipcifar.project import dvc_project
from clipcifar.store import container
from clipcifar.store.dataset import PreparedSplit, write_dataset
from tests.support.backbones import shifted
from tests.support.command_line import make_project
from tests.support.harmed import flip, follow, problems
from tests.support.shards import png, tar_of, write
from tests.support.workspace import ROOT, Workspace

pytestmark = pytest.mark.pipeline
CHECKS = [
    "environment",
    "project",
    "params.yaml",
    "device",
    "disk",
    "sources",
    "stages",
    "studies",
    "outputs",
    "dataset",
    "weights",
    "embeddings",
    "results",
    "memo",
    "scratch",
    "DVC's cache",
]


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


def test_where_embeddings_lie_and_how_big_they_are(at: Workspace) -> None:
    def said() -> list[str]:
        *_, places = doctor_files.embeddings(at.folder, at.settings())
        return str(places).split("; ")

    files = list((at.folder / "data/embeddings/images").iterdir())
    size = sum(path.stat().st_size for path in files)
    assert len(files) == 2
    assert said()[0] == f"data/embeddings/images {size / 1e6:.1f} MB, in DVC's cache too"
    assert [place.rpartition(", ")[2] for place in said()] == ["in DVC's cache too"] * 4
    md5 = dvc_project.md5(at.folder / "data/embeddings/images/part-00000.h5")
    dvc_project.object_path(dvc_project.cache_of(at.folder), md5).unlink()
    assert [place.rpartition(", ")[2] for place in said()] == [
        "not in DVC's cache",
        *["in DVC's cache too"] * 3,
    ]


def test_before_the_first_run_there_is_nothing_to_complain_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace.create(tmp_path / "w", {})
    monkeypatch.setenv("PATH", workspace.environment["PATH"])
    assert problems(workspace) == []
    said = [said for _, said in doctor.examine(workspace.folder)]
    assert "data/dataset.h5 is not made yet; `dvc repro` makes it" in said


def test_a_flipped_bit_is_found_in_every_file_that_numbers_rest_on(at: Workspace) -> None:
    settings = at.settings()
    for path, check, part in (
        ("data/dataset.h5", doctor_files.dataset, "data/dataset.h5"),
        ("data/weights/open_clip_model.safetensors", doctor_files.weights, "data/model.json says"),
        ("data/embeddings/images/manifest.h5", doctor_files.embeddings, "images/manifest.h5"),
        ("data/embeddings/images/part-00000.h5", doctor_files.embeddings, "images/part-00000.h5"),
        ("data/embeddings/texts/digits.h5", doctor_files.embeddings, "digits.h5"),
        ("data/embeddings/pool.h5", doctor_files.embeddings, "pool.h5"),
        ("data/splits.h5", doctor_files.predictions, "splits.h5"),
        ("data/heads/mlp_probe.h5", doctor_files.predictions, "mlp_probe.h5"),
        ("data/predictions/projection.h5", doctor_files.predictions, "projection.h5"),
        ("data/predictions/prompt_sets.h5", doctor_files.predictions, "prompt_sets.h5"),
    ):
        whole = at.read(path)
        flip(at.folder / path)
        found = []
        try:
            found += [said for said in check(at.folder, settings) if isinstance(said, ClipcifarError)]
        except ClipcifarError as error:
            found.append(error)
        assert [error.exit_code for error in found] == [3], path
        assert part in str(found[0])
        assert found[0].fix
        (at.folder / path).write_bytes(whole)
    assert problems(at) == []


def test_a_form_that_a_sweep_would_spoil_is_told_with_its_section(at: Workspace) -> None:
    mapping = "{name: 'local-dir:data/demo/clip', pretrained: null, path: data/demo/clip}"
    text = at.read("params.yaml").decode()
    (at.folder / "params.yaml").write_text(text.replace("  others:\n", f"  others:\n    mine: {mapping}\n"))
    ((name, error),) = problems(at)
    assert (name, error.where, error.exit_code) == ("sweeps", "params.yaml: models", 2)
    (at.folder / "params.yaml").write_text(text)
    assert problems(at) == []


def test_files_of_another_model_are_told_from_the_runs_own(at: Workspace) -> None:
    described = json.loads(at.read("data/model.json"))
    files.write_json(at.folder / "data/model.json", {**described, "weights_sha256": "0" * 64})
    names = [name for name, _ in problems(at)]
    assert names == ["outputs", "weights", "embeddings"]
    at.edit(lambda settings: settings["model"].update(pretrained="openai"))
    asked = [error.what for name, error in problems(at) if name == "embeddings"]
    assert "params.yaml asks for 'openai'" in asked[0]


def test_what_is_stale_need_not_fit_what_was_made_since(at: Workspace) -> None:
    """As after `dvc repro zero_shot`: the next run makes them anew, and nothing is damaged."""
    at.edit(lambda settings: settings["dataset"].update(max_per_class=5))
    at.repro("prepare")  # splits of other images than the embeddings are of
    assert problems(at) == []
    shifted(at.folder / "data/demo/clip", at.folder / "data/demo/other", seed=1)
    other = {"name": "local-dir:data/demo/other", "path": "data/demo/other"}
    at.edit(lambda settings: settings["model"].update(other))
    at.repro("embed_images")  # by another model than the sentences are of
    assert problems(at) == []
    pool = at.folder / "data/embeddings/pool.h5"
    flip(pool)
    assert [error.exit_code for name, error in problems(at) if name == "embeddings"] == [3]
    pool.unlink()
    *_, places = doctor_files.embeddings(at.folder, at.settings())
    assert "pool.h5" not in str(places)


def test_a_damaged_memo_row_is_counted(at: Workspace) -> None:
    memo = Path(at.environment["CLIPCIFAR_CACHE"], "sentences.sqlite")
    with closing(sqlite3.connect(memo)) as connection, connection:
        connection.execute("UPDATE memo SET row = zeroblob(128) WHERE rowid = 1")
    ((name, error),) = problems(at)
    assert (name, error.what.split(" of ")[0]) == ("memo", "1")
    follow(at, error.fix)
    assert problems(at) == []
    memo.write_bytes(b"no database " * 100)
    ((_, error),) = problems(at)
    assert "cannot be read" in error.what


def test_a_path_that_only_a_hidden_study_needs_is_missed_too(at: Workspace) -> None:
    at.edit(lambda settings: settings["corruptions"].update(path="CIFAR-10-C.tar"))
    ((name, error),) = problems(at)
    assert (name, error.where) == ("sources", "params.yaml: corruptions.path")


def _typo(settings: Any) -> None:
    settings["linear_probe"]["max_iterr"] = 3


def test_a_broken_params_yaml_is_told_once_and_with_its_exit_code(at: Workspace) -> None:
    at.edit(_typo)
    found = problems(at)
    assert [name for name, _ in found] == ["params.yaml"]
    assert "max_iterr" in str(found[0][1])
    done = at.command("clipcifar", "doctor", check=False)
    assert done.returncode == 2
    assert "PROBLEM  params.yaml: " in done.stdout
    assert done.stdout.splitlines()[-1] == "1 problem."
    (at.folder / "params.yaml").write_text("[")
    assert [name for name, _ in problems(at)] == ["params.yaml"]


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


def _other_python(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("shutil.which", lambda command: f"/usr/bin/{command}")


def _cache_is_a_file(patch: pytest.MonkeyPatch) -> None:
    file = Path(os.environ["CLIPCIFAR_CACHE"], "file")
    file.write_text("")
    patch.setenv("CLIPCIFAR_CACHE", str(file))


@pytest.mark.parametrize(
    ("harm", "check", "part"),
    [
        (_old_package, "environment", "h5py>=3.16 is needed, 0.0.1 is installed"),
        (_no_package, "environment", "nothing is installed"),
        (_no_dvc, "environment", "the command dvc is not found"),
        (_other_python, "environment", "the command python is /usr/bin/python"),
        (_cache_is_a_file, "disk", "is not a folder"),
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
    harm(monkeypatch)
    found = []
    for name, said in doctor.examine(make_project(tmp_path)):
        if name == "sources":  # this is no project that DVC knows
            break
        if isinstance(said, ClipcifarError):
            found.append((name, said))
    assert {name for name, _ in found} == {check}
    assert part in found[0][1].what
    assert {error.exit_code for _, error in found} == {4}
    assert all(error.fix for _, error in found)


def test_an_archive_that_is_there_is_checked_and_one_that_is_not_is_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = registry.registered("cifar10").archives[0]
    monkeypatch.setitem(
        registry.REGISTRY,
        "cifar10",
        replace(
            registry.registered("cifar10"),
            archives=(replace(archive, digest=hashlib.sha256(b"the archive").hexdigest()),),
        ),
    )
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    nothing_made = "data/dataset.h5 is not made yet; `dvc repro` makes it"
    assert list(doctor_files.dataset(tmp_path, settings)) == [nothing_made]
    path = tmp_path / "data/raw" / archive.filename
    path.parent.mkdir(parents=True)
    path.write_bytes(b"the archive")
    assert list(doctor_files.dataset(tmp_path, settings)) == [
        f"{archive.filename} has its known sha256",
        nothing_made,
    ]
    path.write_bytes(b"the arch")
    with pytest.raises(DataError, match="has sha256") as caught:
        list(doctor_files.dataset(tmp_path, settings))
    assert (caught.value.where, caught.value.fix) == (str(path), "download it again")


def test_a_dataset_whose_digest_is_not_its_own_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = PreparedSplit(np.zeros((2, 2, 2, 3), np.uint8), np.zeros(2, np.int64), ["a", "b"])
    (tmp_path / "data").mkdir()
    path = tmp_path / doctor_files.DATASET
    write_dataset(path, split, split, class_names=["c"], name="digits", max_per_class=0)
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    settings["dataset"]["name"] = "digits"
    assert list(doctor_files.dataset(tmp_path, settings)) == ["digits, 2 train and 2 test images"]
    file = container.read(path, kind="dataset")
    own = {key: value for key, value in file.attributes.items() if key not in container._DIGESTS}
    attributes = {**own, "dataset_digest": "0" * 64}
    container.write(path, kind="dataset", arrays=file.arrays, attributes=attributes)
    with pytest.raises(DataError, match="the content is not what its digest says") as caught:
        list(doctor_files.dataset(tmp_path, settings))
    assert caught.value.fix == "rm data/dataset.h5 && dvc repro"


def test_photographs_that_changed_or_went_are_named(tmp_path: Path) -> None:
    ids = [f"train/cat/{i}.jpg" for i in range(9)]
    for name in ids:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(name.encode())
    digests = [files.file_sha256(tmp_path / "photos" / name) for name in ids]
    split = PreparedSplit(np.array(digests, dtype="S64"), np.zeros(9, dtype=np.int64), ids)
    write_dataset(
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


def prepared_shards(at: Path) -> dict[str, Any]:
    """The dataset file of the shards in `tar`, and the settings that ask for it."""
    test = collect(tar_folder(at / "tar", max_megapixels=9), on_bad_image="error").splits["test"]
    train = test.take(np.zeros(0, dtype=np.int64))
    about: dict[str, Any] = {"class_names": ["a", "b"], "name": "tarfolder", "max_per_class": 0}
    write_dataset(at / doctor_files.DATASET, train, test, **about)
    asked = {"name": "tarfolder", "path": "tar", "max_per_class": None, "seed": 0, "on_bad_image": "error"}
    return {"dataset": asked}


def test_shards_that_changed_or_went_are_named(tmp_path: Path) -> None:
    shard = tar_of({"a/1.png": png("1"), "b/1.png": png("2")})
    write(tmp_path / "tar", {f"test/{i}.tar": shard for i in range(3)})
    settings = prepared_shards(tmp_path)
    said = ["3 shards", "tarfolder, 0 train and 6 test images"]
    assert list(doctor_files.dataset(tmp_path, settings)) == said
    (tmp_path / "tar/test/0.tar").write_bytes(shard[:-1] + b"x")
    (tmp_path / "tar/test/2.tar").unlink()
    changed, gone, *rest = doctor_files.dataset(tmp_path, settings)
    assert isinstance(changed, DataError)
    assert changed.where == "test/0.tar"
    assert files.file_sha256(tmp_path / "tar/test/0.tar") in changed.what
    assert isinstance(gone, DataError)
    assert "is not there" in gone.what
    assert rest == said[1:]  # without the line that would call all shards good


def test_the_remedy_for_a_changed_shard_is_one_that_its_list_lets_pass(tmp_path: Path) -> None:
    shard = tar_of({"a/1.png": png("1"), "b/1.png": png("2")})
    far = write(tmp_path / "far", {f"{i}.tar": shard for i in range(2)})
    sha256 = hashlib.sha256(shard).hexdigest()
    lines = f"{sha256}  {far}/0.tar\n{far}/1.tar\n"
    root = write(tmp_path / "tar", {"test.txt": lines.encode()})
    settings = prepared_shards(tmp_path)
    changed = tar_of({"a/1.png": png("1"), "b/1.png": png("3")})
    write(far, {f"{i}.tar": changed for i in range(2)})

    def remedies() -> list[str]:
        problems = [x for x in doctor_files.dataset(tmp_path, settings) if isinstance(x, DataError)]
        assert all(x.what.endswith(f"and had {sha256} when prepare read it") for x in problems)
        return [x.fix for x in problems]

    read_again = "put it back, or run `dvc repro -f prepare`, which reads the shards again"
    anew = "put it back, or write its line in the list anew with `sha256sum`, then run `dvc repro`"
    assert remedies() == [anew, read_again]
    with pytest.raises(DataError, match="its list says"):
        collect(tar_folder(root, max_megapixels=9), on_bad_image="error")
    write(root, {"test.txt": lines.replace(sha256, hashlib.sha256(changed).hexdigest()).encode()})
    collect(tar_folder(root, max_megapixels=9), on_bad_image="error")
    assert remedies() == [read_again, read_again]
    (root / "test.txt").unlink()  # nobody knows what the list gave
    assert remedies() == [read_again, read_again]
