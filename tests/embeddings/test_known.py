"""An image is embedded once: rows found by content, on a miniature CLIP and a real, tiny DVC project."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray
from PIL import Image

from clipcifar.backbone.params import EmbedParams
from clipcifar.backbone.towers import Backbone
from clipcifar.core import files
from clipcifar.core.errors import DataError
from clipcifar.embeddings import compute, known, second_pass, sources
from clipcifar.store import container, parts
from clipcifar.store.dataset import Prepared, PreparedSplit, digest_of
from clipcifar.store.images import MANIFEST, read_images
from clipcifar.store.model import ModelDescription
from tests.embeddings.test_compute import (  # fixtures among them
    EMBED,
    OUTPUT,
    _several_parts,
    contents,
    encoded,
    project,
    record,
)

__all__ = ["_several_parts", "encoded", "project"]
Model = tuple[ModelDescription, Path]
SAMPLE = 4  # a batch of them goes through the tower again


def pixels(number: int) -> NDArray[np.uint8]:
    """The image of that number, (8, 8, 3) uint8."""
    return np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def split_of(numbers: Sequence[int], ids: Sequence[str] | None = None) -> PreparedSplit:
    """Images by number, in memory; every second one is a dog."""
    content = np.array([pixels(number) for number in numbers], dtype=np.uint8).reshape(-1, 8, 8, 3)
    names = list(ids or [f"image-{number}" for number in numbers])
    return PreparedSplit(content, np.array(numbers, dtype=np.int64) % 2, names)


def dataset_of(train: PreparedSplit, test: PreparedSplit, names: Sequence[str] = ("cat", "dog")) -> Prepared:
    digest = digest_of(train, test, list(names))
    return Prepared(train, test, list(names), name="made", max_per_class=0, digest=digest)


BEFORE = dataset_of(split_of(range(9)), split_of(range(20, 23)))


def obtain(
    folder: Path, dataset: Prepared, model: Model, embed: EmbedParams = EMBED, photographs: Path = Path()
) -> int:
    """How many images were encoded to have the embeddings in the project."""
    described, weights = model
    images = compute.dataset_images(
        folder / OUTPUT, dataset, described, recorded=OUTPUT, photographs=photographs, embed=embed
    )
    return compute.obtain([images], repository=folder, model=described, weights=weights, embed=embed)


def fresh(
    dataset: Prepared, model: Model, tmp_path: Path, embed: EmbedParams = EMBED, photographs: Path = Path()
) -> dict[str, bytes]:
    """The files of embeddings where nothing is known."""
    assert obtain(tmp_path / "fresh", dataset, model, embed, photographs) == len(dataset.train.ids) + len(
        dataset.test.ids
    )
    return contents(tmp_path / "fresh" / OUTPUT)


def has_contents(folder: Path) -> bool:
    file = container.read(folder / OUTPUT / MANIFEST, kind="image embeddings")
    return {"train/contents", "test/contents"} <= set(file.arrays)


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_of_added_images_those_alone_are_embedded_and_the_bytes_are_those_of_a_whole_run(
    storage: str,
    project: Path,
    model: Model,
    encoded: list[int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    embed = replace(EMBED, storage=storage)
    assert obtain(project, BEFORE, model, embed) == 12
    assert has_contents(project)
    record(project)
    train = split_of([100, *range(5), 101, 102, *range(5, 9), *range(103, 108)])
    after = dataset_of(train, split_of([20, 108, 21, 22, 109]))
    assert obtain(project, after, model, embed) == 10
    assert encoded == [12, 10]
    assert "10 of 22 images to embed; the others are known" in capsys.readouterr().out
    assert contents(project / OUTPUT) == fresh(after, model, tmp_path, embed)
    read_images(project / OUTPUT).verify()


def test_of_photographs_only_new_ones_and_a_sample_are_read(
    project: Path, model: Model, encoded: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photographs, read = tmp_path / "photographs", list[str]()
    photographs.mkdir()
    real = sources.decode

    def counted(content: bytes, where: str) -> NDArray[np.uint8]:
        read.append(Path(where).name)
        return real(content, where)

    def listed(numbers: Sequence[int]) -> PreparedSplit:
        for number in numbers:
            Image.fromarray(pixels(number)).save(photographs / f"{number}.png")
        names = [f"{number}.png" for number in numbers]
        digests = [hashlib.sha256((photographs / name).read_bytes()).hexdigest() for name in names]
        return PreparedSplit(np.array(digests, "S64"), np.array(numbers, dtype=np.int64) % 2, names)

    monkeypatch.setattr(sources, "decode", counted)
    assert obtain(project, dataset_of(listed(range(30)), listed([50])), model, photographs=photographs) == 31
    record(project)
    read.clear()
    after = dataset_of(listed(range(40)), listed([50]))
    assert obtain(project, after, model, photographs=photographs) == 10
    new = [f"{number}.png" for number in range(30, 40)]
    assert read[-10:] == new
    assert set(read[:-10]).isdisjoint(new)
    assert len(read) <= 10 + SAMPLE
    assert contents(project / OUTPUT) == fresh(after, model, tmp_path, photographs=photographs)


RELABELLED = replace(BEFORE.train, labels=1 - BEFORE.train.labels)
CHANGES = {
    "reordered": dataset_of(split_of([3, 8, 1, 0, 7, 2, 5, 6, 4]), split_of([22, 20, 21])),
    "removed": dataset_of(split_of([0, 2, 3, 8]), split_of([21])),
    "relabelled": dataset_of(RELABELLED, BEFORE.test),
    "renamed": dataset_of(split_of(range(9), [f"other-{i}" for i in range(9)]), BEFORE.test),
    "classes renamed": dataset_of(BEFORE.train, BEFORE.test, ["eel", "owl"]),
    "moved to test": dataset_of(split_of([0, 1, 2]), split_of([20, *range(3, 9)])),
    "copied": dataset_of(split_of([0, 1, 1, 2], "abcd"), split_of([1, 20])),
    "no train": dataset_of(split_of([]), split_of([20, 3])),
}


@pytest.mark.parametrize("change", CHANGES)
def test_no_tower_is_asked_about_images_that_are_only_elsewhere_or_called_otherwise(
    change: str,
    project: Path,
    model: Model,
    encoded: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    obtain(project, BEFORE, model)
    record(project)
    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "load", lambda *_: pytest.fail("the model was loaded"))
        assert obtain(project, CHANGES[change], model) == 0
    assert encoded == [12]
    assert contents(project / OUTPUT) == fresh(CHANGES[change], model, tmp_path)


def test_another_image_under_the_same_name_is_embedded(
    project: Path, model: Model, encoded: list[int], tmp_path: Path
) -> None:
    obtain(project, BEFORE, model)
    record(project)
    train = split_of([0, 1, 77, *range(3, 9)], BEFORE.train.ids)
    after = dataset_of(train, BEFORE.test)
    assert obtain(project, after, model) == 1
    assert contents(project / OUTPUT) == fresh(after, model, tmp_path)


def test_what_determines_a_row_besides_its_image_decides(
    project: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another batch size, storage, precision, weights or code: no row is taken."""
    obtain(project, BEFORE, model)
    record(project)
    described, _ = model

    def rows(of: ModelDescription = described, **changed: object) -> int:
        images = compute.dataset_images(
            project / OUTPUT,
            CHANGES["removed"],
            of,
            recorded=OUTPUT,
            photographs=project,
            embed=replace(EMBED, **changed),  # type: ignore[arg-type]
        )
        taken = known.look_up(images, project)
        return 0 if taken is None else len(taken.known)

    assert rows() == rows(workers=3) == rows(replace(described, model="local-dir:/elsewhere")) == 5
    assert rows(batch_size=5) == rows(storage="float16") == rows(precision="bf16") == 0
    assert rows(replace(described, weights_sha256="0" * 64)) == 0
    monkeypatch.setattr(compute.provenance, "source_sha256", lambda *_: "0" * 64)
    assert rows() == 0


@pytest.mark.parametrize("name", [MANIFEST, "part-00001.h5"])
@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_damaged_embeddings_are_passed_over(
    name: str, harm: str, project: Path, model: Model, encoded: list[int], tmp_path: Path
) -> None:
    obtain(project, BEFORE, model)
    whole = contents(project / OUTPUT)
    kept = record(project)[name]
    kept.chmod(0o644)
    if harm == "cut":
        kept.write_bytes(whole[name][:-400] + bytes(400))
    else:
        kept.unlink()
    assert obtain(project, CHANGES["reordered"], model) == 12
    assert encoded == [12, 12]
    assert contents(project / OUTPUT) == fresh(CHANGES["reordered"], model, tmp_path)


def test_rows_come_from_several_places_and_damaged_ones_of_others_do_not_matter(
    project: Path, model: Model, encoded: list[int], tmp_path: Path, own_cache: Path
) -> None:
    """Five images are in DVC's cache and four in the user's folder, one of them in both."""
    obtain(project, dataset_of(split_of(range(5)), split_of([])), model)
    first = record(project)
    obtain(tmp_path / "other", dataset_of(split_of([4, 5]), split_of([6, 7])), model)
    shutil.copytree(tmp_path / "other" / OUTPUT, files.cache_folder("embeddings") / ("a" * 32))
    shutil.copytree(tmp_path / "other" / OUTPUT, files.cache_folder("embeddings") / ("0" * 32))
    (files.cache_folder("embeddings") / ("0" * 32) / MANIFEST).write_bytes(b"no container")
    after = dataset_of(split_of([7, 3, 5, 30, 4]), split_of([6, 0]))
    assert obtain(project, after, model) == 1
    assert encoded == [5, 4, 1]
    assert first[MANIFEST].exists()
    shutil.rmtree(files.cache_folder("embeddings"))
    (project / "dvc.lock").unlink()
    assert contents(project / OUTPUT) == fresh(after, model, tmp_path)


def _altered(alter: Callable[[torch.Tensor], torch.Tensor]) -> object:
    """A tower whose rows are others."""
    real = Backbone.encode_images

    def encode(self: Backbone, images: torch.Tensor) -> torch.Tensor:
        rows = real(self, images)
        return torch.nn.functional.normalize(alter(rows), dim=-1)

    return encode


def _mixed(strength: float) -> object:
    """A tower whose rows have something of their batch."""
    return _altered(lambda rows: rows + strength * rows.mean(dim=0))


def test_a_tower_whose_rows_depend_on_their_batch_embeds_all_again_and_says_so(
    project: Path,
    model: Model,
    encoded: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Backbone, "encode_images", _mixed(1e-5))
    assert obtain(project, BEFORE, model) == 12
    said = "rows of this model depend on their batch, by up to "
    assert said in capsys.readouterr().out
    assert not has_contents(project)
    record(project)
    assert obtain(project, CHANGES["reordered"], model) == 12
    assert encoded == [12, 12]
    assert said in capsys.readouterr().out
    assert contents(project / OUTPUT) == fresh(CHANGES["reordered"], model, tmp_path)


def test_rows_that_this_machine_would_not_give_are_not_mixed_with_its_own(
    project: Path,
    model: Model,
    encoded: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The attributes are the same, and another processor's last digits are not."""
    obtain(project, BEFORE, model)
    record(project)
    monkeypatch.setattr(Backbone, "encode_images", _elsewhere())
    after = dataset_of(split_of(range(10)), BEFORE.test)
    assert obtain(project, after, model) == 13
    assert "all 13 images to embed: of 12 there are rows, but not those that this machine" in (
        capsys.readouterr().out
    )
    assert contents(project / OUTPUT) == fresh(after, model, tmp_path)


def _elsewhere() -> object:
    """A tower on a processor that adds up in another order."""
    return _altered(lambda rows: rows + 1e-6 * torch.eye(rows.shape[1])[0])


@pytest.mark.parametrize("new", [0, 1])
def test_rows_of_two_processors_are_not_mixed(
    new: int, project: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most rows are from here; two are from elsewhere, and no sample of all would have one of them."""
    obtain(project, dataset_of(split_of(range(60)), split_of([])), model)
    record(project)
    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "encode_images", _elsewhere())
        obtain(tmp_path / "other", dataset_of(split_of([60, 61]), split_of([])), model)
    shutil.copytree(tmp_path / "other" / OUTPUT, files.cache_folder("embeddings") / ("a" * 32))
    order = [*range(30), 60, 61, *range(30, 60), *range(62, 62 + new)]
    after = dataset_of(split_of(order), split_of([]))
    assert obtain(project, after, model) == 62 + new
    shutil.rmtree(files.cache_folder("embeddings"))
    (project / "dvc.lock").unlink()
    assert contents(project / OUTPUT) == fresh(after, model, tmp_path)


def test_a_killed_run_goes_on_with_the_new_images(
    project: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clipcifar.embeddings import extract

    monkeypatch.setattr(extract, "SHARD_ROWS", 4)
    obtain(project, BEFORE, model)
    record(project)
    after = dataset_of(split_of(range(19)), BEFORE.test)
    real, rows, limit = Backbone.encode_images, list[int](), [4]  # two batches of the sample, two of the new

    def killed(self: Backbone, images: torch.Tensor) -> torch.Tensor:
        if len(rows) == limit[0]:
            raise KeyboardInterrupt
        rows.append(len(images))
        return real(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "encode_images", killed)
        with pytest.raises(KeyboardInterrupt):
            obtain(project, after, model)
        rows.clear()
        limit[0] = 99
        assert obtain(project, after, model) == 10
    assert len(rows) in (1, 2)  # of five batches: the sample is kept, and of three of new images one or two
    assert not list(files.cache_folder("extraction").rglob("*.shard"))
    assert contents(project / OUTPUT) == fresh(after, model, tmp_path)


def test_what_an_image_is_covers_its_size() -> None:
    lying, standing = (
        PreparedSplit(np.zeros((1, *shape, 3), np.uint8), np.zeros(1, np.int64), ["a"])
        for shape in ((4, 8), (8, 4))
    )
    assert known.digests_of(lying).tobytes() != known.digests_of(standing).tobytes()
    assert known.digests_of(lying).tobytes() == known.digests_of(lying.take(np.array([0]))).tobytes()


def test_digests_of_files_that_are_none_are_refused() -> None:
    for digest in (b"z" * 64, b"\xff" * 64, b"ab"):
        with pytest.raises(DataError, match="the digest of an image file is none"):
            known.digests_of(PreparedSplit(np.array([digest], "S64"), np.zeros(1, np.int64), ["a"]))


@given(st.lists(st.integers(0, 5), max_size=8), st.lists(st.integers(0, 5), max_size=8, unique=True))
@settings(max_examples=60)
def test_matches_are_those_of_a_dict(left: list[int], right: list[int]) -> None:
    wanted, others = (
        np.array([list(hashlib.sha256(bytes([n])).digest()) for n in side], np.uint8).reshape(-1, 32)
        for side in (left, right)
    )
    where = {number: row for row, number in enumerate(right)}
    assert known.matches(wanted, others).tolist() == [where.get(number, -1) for number in left]


def test_a_match_is_of_the_whole_digest() -> None:
    others = np.zeros((2, 32), np.uint8)
    others[1, 31] = 1
    wanted = np.zeros((3, 32), np.uint8)
    wanted[1, 30] = 1
    assert known.matches(wanted, others[:1]).tolist() == [0, -1, 0]
    found_rows = known.matches(others, others)  # those that begin alike may hide each other, never stand in
    assert all(row in (-1, i) for i, row in enumerate(found_rows.tolist()))
    with pytest.raises(DataError, match="expected digests"):
        known.matches(wanted, np.zeros((2, 31), np.uint8))


def test_rows_in_any_order_out_of_several_parts_and_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", 5)
    rng = np.random.default_rng(0)
    kept = [rng.normal(size=(n, 3)).astype(np.float32) for n in (7, 4)]
    new = rng.normal(size=(6, 3)).astype(np.float32)
    place = rng.permutation([0] * 9 + [1] * 4 + [-1] * 6)
    row = np.array([rng.integers(0, len(kept[p])) if p >= 0 else 0 for p in place])
    rest = iter(new)
    naive = np.stack([next(rest) if p < 0 else kept[p][r] for p, r in zip(place, row, strict=True)])
    blocks = list(known.Known(list(kept), place, row).joined(iter([new[:4], new[4:]])))
    assert [len(block) for block in blocks] == [5, 5, 5, 4]
    np.testing.assert_array_equal(np.concatenate(blocks), naive)


@pytest.mark.parametrize(("count", "size"), [(1, 256), (3, 256), (40, 256), (10_000, 256), (100, 4), (9, 1)])
def test_a_sample_is_of_the_last_images_and_of_all_others_in_reverse(count: int, size: int) -> None:
    rows = second_pass.sample(count, size)
    assert 1 <= len(rows) <= min(count, size, 32)
    assert (np.diff(rows) < 0).all()
    assert rows[-1] == 0
    if size > 1:
        assert set(range(max(0, count - min(size, 32) // 2), count)) <= set(rows.tolist())


def test_bytes_are_compared_and_not_numbers() -> None:
    zero = np.zeros((1, 2), np.float32)
    assert second_pass.difference(zero, zero.copy()) is None
    assert second_pass.difference(zero, -zero) == 0.0
    assert second_pass.difference(zero, zero + 1) == 1.0
