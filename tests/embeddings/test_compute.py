"""Embeddings found before they are computed, on a miniature CLIP and a real, tiny DVC project."""

from __future__ import annotations

import builtins
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clipcifar.backbone.params import EmbedParams
from clipcifar.backbone.towers import Backbone
from clipcifar.core import files
from clipcifar.core.errors import EnvironmentFault
from clipcifar.embeddings import compute, extract, kept as of_kept
from clipcifar.embeddings.kept import Wanted, find, in_cache_folder
from clipcifar.project import dvc_project
from clipcifar.store import parts
from clipcifar.store.dataset import Prepared, PreparedSplit, digest_of
from clipcifar.store.images import MANIFEST, read_images, write_images
from clipcifar.store.model import ModelDescription

EMBED = EmbedParams(device="cpu", precision="fp32", batch_size=4, workers=0, storage="float32")
OUTPUT = Path("data/embeddings/images")


@pytest.fixture
def dataset() -> Prepared:
    rng = np.random.default_rng(0)
    train, test = (
        PreparedSplit(
            rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8),
            np.arange(n) % 2,
            [f"{name}/{i}" for i in range(n)],
        )
        for name, n in (("train", 6), ("test", 3))
    )
    names = ["cat", "dog"]
    return Prepared(train, test, names, name="digits", max_per_class=0, digest=digest_of(train, test, names))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of the extraction was asked for, besides those that are embedded again."""
    calls: list[int] = []
    real = extract.extract

    def counted(source: object, *arguments: object, **named: object) -> object:
        if named["what"] == "embedding images":
            calls.append(len(source))  # type: ignore[arg-type]
        return real(source, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(extract, "extract", counted)
    return calls


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A DVC project in which nothing was run."""
    from dvc.repo import Repo

    folder = tmp_path / "project"
    folder.mkdir()
    Repo.init(str(folder), no_scm=True).close()
    return folder


def wanted(folder: Path, dataset: Prepared, model: ModelDescription, embed: EmbedParams = EMBED) -> Wanted:
    return compute.dataset_images(
        folder / OUTPUT, dataset, model, recorded=OUTPUT, photographs=folder, embed=embed
    )


def obtain(folder: Path, dataset: Prepared, model: tuple[ModelDescription, Path]) -> int:
    """How many images were encoded to have the file."""
    described, weights = model
    return compute.obtain(
        [wanted(folder, dataset, described)], repository=folder, model=described, weights=weights, embed=EMBED
    )


def record(folder: Path) -> dict[str, Path]:
    """What DVC does after a stage and before the next run of it: the output is in the cache alone.

    Returns:
        Its object of each file, by name.
    """
    made, cache = folder / OUTPUT, dvc_project.cache_of(folder)
    members = dvc_project.members_of(made, folder)
    digest = dvc_project.digest_of_members(members)
    listed = json.dumps([{"md5": md5, "relpath": name} for name, md5 in members.items()])
    objects = {name: dvc_project.object_path(cache, md5) for name, md5 in members.items()}
    listing = dvc_project.object_path(cache, digest)
    for path in (listing, *objects.values()):
        path.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text(listed)
    for name, path in objects.items():
        shutil.move(made / name, path)
        path.chmod(0o444)
    made.rmdir()
    lock = f"schema: '2.0'\nstages:\n  embed_images:\n    outs:\n    - path: {OUTPUT}\n      md5: {digest}\n"
    (folder / "dvc.lock").write_text(lock)
    return objects


def contents(folder: Path) -> dict[str, bytes]:
    """The files of embeddings, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def _several_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine images are three parts, the second of train and test."""
    monkeypatch.setattr(parts, "PART_ROWS", 4)


def test_what_dvc_keeps_is_found_and_no_model_is_loaded(
    project: Path,
    dataset: Prepared,
    model: tuple[ModelDescription, Path],
    encoded: list[int],
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert obtain(project, dataset, model) == 9
    first = contents(project / OUTPUT)
    assert len(first) == 4
    kept = record(project)
    monkeypatch.setattr(Backbone, "load", lambda *_: pytest.fail("the model was loaded"))
    assert obtain(project, dataset, model) == 0
    assert contents(project / OUTPUT) == first
    assert not any((project / OUTPUT / name).samefile(path) for name, path in kept.items())
    assert encoded == [9]
    assert not [
        path for path in own_cache.rglob("*") if path.is_file() and path.stat().st_size > 1000
    ]  # no second copy of it


def test_copies_are_told_and_a_file_of_before_gets_them_without_the_tower(
    project: Path, dataset: Prepared, model: tuple[ModelDescription, Path], encoded: list[int]
) -> None:
    """The third test image is the first one again, under the other class; train has no copies."""
    test = dataset.test.take(np.array([0, 1, 0]))
    test = replace(test, ids=dataset.test.ids, labels=np.array([0, 1, 1]))
    twinned = replace(dataset, test=test, digest=digest_of(dataset.train, test, dataset.class_names))
    assert obtain(project, twinned, model) == 9
    images = read_images(project / OUTPUT)
    assert images.test.copies is not None
    assert images.test.copies.tolist() == [0, 1, 0]
    assert images.train.copies is None
    # As a version wrote it that knew of no copies; no tower is asked for the rows that are there.
    write_images(
        project / OUTPUT,
        train=images.train,
        test=replace(images.test, copies=None),
        attributes={key: value for key, value in images.attributes.items() if key != "fingerprint"},
    )
    record(project)
    assert obtain(project, twinned, model) == 0
    again = read_images(project / OUTPUT)
    assert again.test.copies is not None
    assert again.test.copies.tolist() == [0, 1, 0]
    for side, before in ((again.train, images.train), (again.test, images.test)):
        np.testing.assert_array_equal(side.embeddings, before.embeddings)
    assert encoded == [9]


def test_of_test_images_alone_those_are_embedded_and_train_is_empty(
    project: Path, dataset: Prepared, model: tuple[ModelDescription, Path], encoded: list[int]
) -> None:
    obtain(project, dataset, model)
    whole = read_images(project / OUTPUT)
    rows_of_test = whole.test.embeddings[:]
    none = dataset.train.take(np.zeros(0, dtype=np.int64))
    digest = digest_of(none, dataset.test, dataset.class_names)
    assert obtain(project, replace(dataset, train=none, digest=digest), model) == 3
    alone = read_images(project / OUTPUT)
    assert encoded == [9, 3]
    assert (alone.train.embeddings.shape, alone.train.ids) == ((0, whole.train.embeddings.shape[1]), [])
    assert alone.test.ids == whole.test.ids == ["test/0", "test/1", "test/2"]
    np.testing.assert_allclose(alone.test.embeddings, rows_of_test, atol=1e-6)


@pytest.mark.parametrize("name", [MANIFEST, "part-00001.h5"])
def test_a_damaged_object_is_passed_over(
    project: Path, dataset: Prepared, model: tuple[ModelDescription, Path], encoded: list[int], name: str
) -> None:
    obtain(project, dataset, model)
    first = contents(project / OUTPUT)
    kept = record(project)[name]
    kept.chmod(0o644)
    kept.write_bytes(first[name][:-400] + bytes(400))
    assert obtain(project, dataset, model) == 9
    assert contents(project / OUTPUT) == first
    kept.unlink()
    shutil.rmtree(project / OUTPUT)
    assert obtain(project, dataset, model) == 9
    assert contents(project / OUTPUT) == first
    assert encoded == [9, 9, 9]


def test_parts_of_other_embeddings_in_the_cache_are_passed_over(
    project: Path, dataset: Prepared, model: tuple[ModelDescription, Path], encoded: list[int]
) -> None:
    """Each file is whole, and they do not belong together."""
    obtain(project, dataset, model)
    first = contents(project / OUTPUT)
    kept = record(project)
    kept["part-00001.h5"].chmod(0o644)
    kept["part-00001.h5"].write_bytes(first["part-00000.h5"])
    assert obtain(project, dataset, model) == 9
    assert contents(project / OUTPUT) == first
    assert encoded == [9, 9]


def test_what_determines_a_vector_decides(
    project: Path,
    dataset: Prepared,
    model: tuple[ModelDescription, Path],
    encoded: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another split, batch size or storage, other weights, other code: none of them is it."""
    obtain(project, dataset, model)
    record(project)
    described, _ = model
    others = [
        wanted(project, replace(dataset, digest="0" * 64), described),
        wanted(project, dataset, described, replace(EMBED, batch_size=5)),
        wanted(project, dataset, described, replace(EMBED, storage="float16")),
        wanted(project, dataset, replace(described, weights_sha256="0" * 64)),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(compute.provenance, "source_sha256", lambda *_: "0" * 64)
        others.append(wanted(project, dataset, described))
    more = wanted(project, dataset, described)
    others.append(replace(more, attributes={**more.attributes, "resolution": 448}))  # of a later version
    fewer = {key: value for key, value in more.attributes.items() if key != "precision"}
    others.append(replace(more, attributes=fewer))
    assert [find(other, project) for other in others] == [None] * 7
    assert find(wanted(project, dataset, described), project) is not None
    assert find(wanted(project, dataset, described, replace(EMBED, workers=3)), project) is not None


def test_the_same_weights_under_another_name_are_found_and_called_as_asked_for(
    project: Path,
    dataset: Prepared,
    model: tuple[ModelDescription, Path],
    encoded: list[int],
    own_cache: Path,
) -> None:
    """Of a folder the name holds its path, which is another on another machine."""
    described, weights = model
    obtain(project, dataset, model)
    first = contents(project / OUTPUT)
    before = read_images(project / OUTPUT).attributes
    record(project)
    moved = replace(described, model="local-dir:/elsewhere/clip", pretrained="tag")
    assert obtain(project, dataset, (moved, weights)) == 0
    found_again = read_images(project / OUTPUT)
    found_again.verify()
    assert {**before, "model": moved.model, "pretrained": "tag"} == {
        **found_again.attributes,
        **{key: before[key] for key in ("fingerprint", "content_digest")},
    }
    written = contents(project / OUTPUT)
    assert {name for name in first if first[name] != written[name]} == {MANIFEST}
    (project / "dvc.lock").unlink()
    assert obtain(project, dataset, (moved, weights)) == 9
    assert contents(project / OUTPUT) == written  # as if it had been computed under that name
    assert in_cache_folder(wanted(project, dataset, moved).attributes) == in_cache_folder(
        wanted(project, dataset, described).attributes
    )


def test_the_users_cache_folder_comes_first_and_dvc_is_not_asked(
    project: Path,
    dataset: Prepared,
    model: tuple[ModelDescription, Path],
    encoded: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    described, weights = model
    kept = in_cache_folder(wanted(project, dataset, described).attributes)
    file = compute.dataset_images(kept, dataset, described, recorded=OUTPUT, photographs=project, embed=EMBED)
    compute.encode([file], model=described, weights=weights, embed=EMBED)
    monkeypatch.setattr(of_kept, "kept_objects", lambda *_: pytest.fail("DVC was asked"))
    assert obtain(project, dataset, model) == 0
    assert contents(project / OUTPUT) == contents(kept)
    assert encoded == [9]


def test_only_what_is_missing_is_encoded_and_the_model_loaded_once(
    project: Path,
    dataset: Prepared,
    model: tuple[ModelDescription, Path],
    encoded: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    described, weights = model
    loads: list[Path] = []
    real = Backbone.load
    monkeypatch.setattr(Backbone, "load", lambda folder, *how: loads.append(folder) or real(folder, *how))
    obtain(project, dataset, model)
    record(project)
    several = [
        compute.dataset_images(
            project / digit,
            replace(dataset, digest=digit * 64),
            described,
            recorded=Path(digit),
            photographs=project,
            embed=EMBED,
        )
        for digit in "12"
    ]
    files_wanted = [wanted(project, dataset, described), *several]
    assert (
        compute.obtain(files_wanted, repository=project, model=described, weights=weights, embed=EMBED) == 18
    )
    assert encoded == [9, 9, 9]
    assert loads == [weights, weights]
    assert all(read_images(file.path).train.ids == dataset.train.ids for file in files_wanted)


def test_pieces_are_kept_where_nobody_waits(
    project: Path, dataset: Prepared, model: tuple[ModelDescription, Path], own_cache: Path
) -> None:
    described, weights = model
    for nobody_waits, left in ((True, 4), (False, 0)):  # of three parts, and of the second pass
        compute.encode(
            [wanted(project, dataset, described)],
            model=described,
            weights=weights,
            embed=EMBED,
            nobody_waits=lambda answer=nobody_waits: answer,
        )
        assert len(list(files.cache_folder("extraction").rglob("*.shard"))) == left


def test_where_dvc_is_broken_or_absent_images_are_embedded(
    tmp_path: Path, dataset: Prepared, model: tuple[ModelDescription, Path], encoded: list[int]
) -> None:
    assert obtain(tmp_path, dataset, model) == 9  # no repository of DVC's, nothing recorded
    record_in = tmp_path / "dvc.lock"
    record_in.write_text(f"stages: {{embed_images: {{outs: [{{path: {OUTPUT}, md5: {'a' * 32}}}]}}}}\n")
    assert obtain(tmp_path, dataset, model) == 9  # recorded, and DVC cannot say where it is
    record_in.write_text("- not a lock")
    assert obtain(tmp_path, dataset, model) == 9
    assert encoded == [9, 9, 9]


@pytest.mark.parametrize("name", [MANIFEST, "part-00002.h5"])
def test_what_is_there_and_cannot_be_read_is_told_before_the_tower_takes_an_hour(
    name: str,
    project: Path,
    dataset: Prepared,
    model: tuple[ModelDescription, Path],
    encoded: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert obtain(project, dataset, model) == 9
    kept = record(project)[name]
    real = builtins.open

    def opened(file: object, *arguments: object, **named: object) -> object:
        if file == kept:
            raise PermissionError(13, "Permission denied")
        return real(file, *arguments, **named)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", opened)
        with pytest.raises(EnvironmentFault, match="Permission denied") as caught:
            obtain(project, dataset, model)
    assert caught.value.where == str(kept)
    assert obtain(project, dataset, model) == 0
    assert encoded == [9]


def test_storage_halves_the_parts_and_moves_no_cosine_far(
    project: Path, dataset: Prepared, model: tuple[ModelDescription, Path]
) -> None:
    described, weights = model
    rows = []
    for storage in ("float32", "float16"):
        embed = replace(EMBED, storage=storage)
        asked = wanted(project, dataset, described, embed)
        compute.encode([asked], model=described, weights=weights, embed=embed)
        content = read_images(project / OUTPUT)
        content.verify()
        rows.append(np.concatenate([content.train.embeddings[:], content.test.embeddings[:]]).astype(float))
        assert content.attributes["storage"] == storage
    whole, halved = rows
    assert 0 < np.abs(whole @ whole.T - halved @ halved.T).max() < 1e-4
    np.testing.assert_allclose(np.linalg.norm(halved, axis=1), 1, atol=2e-7)
