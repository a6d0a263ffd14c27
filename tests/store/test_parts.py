"""Image embeddings in several small parts: the same as in one, and whatever is wrong with a part is named."""

from __future__ import annotations

import itertools
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from clipcifar.core.errors import DataError
from clipcifar.core.files import Attribute
from clipcifar.store import container, images, parts, rows
from clipcifar.store.embeddings import IMAGES_KIND, ImageEmbeddings, Split
from clipcifar.store.images import MANIFEST, read_images, write_images
from clipcifar.store.parts import PART_KIND, part_name, write_parts
from clipcifar.store.rows import Rows, blocks_of
from tests.store.test_embeddings import ATTRIBUTES, TEST, TRAIN, unit_rows

EVERYTHING = np.concatenate([TRAIN.embeddings, TEST.embeddings])  # 7 + 4 rows, in parts of 4, 4 and 3


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", 4)
    monkeypatch.setattr(rows, "_BLOCK_ROWS", 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", train=TRAIN, test=TEST, attributes=ATTRIBUTES)
    return tmp_path / "images"


def in_parts(split: Split) -> Rows:
    assert isinstance(split.embeddings, Rows)
    return split.embeddings


def read(folder: Path) -> ImageEmbeddings:
    """All of it, verified."""
    content = read_images(folder)
    content.verify()
    return content


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rewrite(path: Path, change: Callable[[dict[str, Any], dict[str, Attribute]], object]) -> None:
    """Write a manifest or a part again, changed by someone who knows how to make its digests right."""
    kind = IMAGES_KIND if path.name == MANIFEST else PART_KIND
    file = container.read(path, kind=kind)
    own = ("fingerprint", "content_digest", "kind", "schema")
    arrays, attributes = dict(file.arrays), {k: v for k, v in file.attributes.items() if k not in own}
    change(arrays, attributes)
    container.write(path, kind=kind, arrays=arrays, attributes=attributes)


def flip(path: Path, content: bytes) -> None:
    """Flip the lowest bit of some content of a file."""
    whole = path.read_bytes()
    at = whole.index(content)
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])


def refusal(folder: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        read(folder)
    assert caught.value.fix
    return caught.value


def test_rows_come_back_from_parts_as_they_were(folder: Path) -> None:
    assert names(folder) == ["manifest.h5", "part-00000.h5", "part-00001.h5", "part-00002.h5"]
    back = read(folder)
    for found_again, wanted in ((back.train, TRAIN), (back.test, TEST)):
        held = in_parts(found_again)
        assert (held.shape, held.size, len(held)) == (
            wanted.embeddings.shape,
            wanted.embeddings.size,
            len(wanted.ids),
        )
        assert held[:].tobytes() == np.asarray(held).tobytes() == wanted.embeddings.tobytes()
        np.testing.assert_array_equal(found_again.labels, wanted.labels)
        assert found_again.ids == wanted.ids
    assert np.asarray(back.train.embeddings, dtype=np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="are copied"):
        np.asarray(back.train.embeddings, copy=False)


KEYS: list[Any] = [
    0,
    6,
    -1,
    -7,
    np.int64(3),
    slice(None),
    slice(2, 6),
    slice(5, 1, -2),
    slice(-2, None),
    slice(3, 3),
    [6, 0, 3, 3, 4],
    [-1, 2, -7],
    [],
    np.array([5, 4]),
    np.array([1, 2, 3]),
    np.arange(7) % 2 == 0,
    np.zeros(7, dtype=bool),
]


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_indices_give_what_they_give_of_an_array(folder: Path, key: Any) -> None:
    gathered = in_parts(read_images(folder).train)[key]
    wanted = TRAIN.embeddings[key]
    assert (gathered.shape, gathered.dtype) == (wanted.shape, np.float32)
    assert gathered.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("key", [7, -8, [0, 7], (0, 0)], ids=repr)
def test_an_index_outside_is_refused_as_of_an_array(folder: Path, key: Any) -> None:
    with pytest.raises(IndexError):
        in_parts(read_images(folder).train)[key]


@pytest.mark.parametrize("wide", [(), (5,), (0,)])
def test_a_product_is_that_of_an_array(folder: Path, wide: tuple[int, ...]) -> None:
    matrix = np.random.default_rng(3).standard_normal((8, *wide)).astype(np.float32)
    product = in_parts(read_images(folder).train) @ matrix
    assert product.shape == (7, *wide)
    np.testing.assert_allclose(product, TRAIN.embeddings @ matrix, atol=1e-6)


def test_blocks_are_every_row_once_and_in_order(folder: Path) -> None:
    train, test = read_images(folder).train, read_images(folder).test
    for split, wanted, places in (
        (train, TRAIN, [(0, 3), (3, 4), (4, 7)]),  # the last of part 2 is the first test image
        (test, TEST, [(0, 1), (1, 4)]),
    ):
        blocks = list(blocks_of(split.embeddings))
        assert [(place.start, place.stop) for place, _ in blocks] == places
        for place, block in blocks:
            assert block.tobytes() == wanted.embeddings[place].tobytes()
    ((place, block),) = blocks_of(TRAIN.embeddings)
    assert (place, block is TRAIN.embeddings) == (slice(0, 7), True)


def test_a_subset_is_ascending_and_unread(folder: Path) -> None:
    train = read_images(folder).train
    wanted = np.array([6, 1, 4])
    (folder / part_name(1)).unlink()
    subset = in_parts(train).subset(wanted)
    assert subset.shape == (3, 8)
    with pytest.raises(DataError, match="part 2 of 3 is missing"):
        subset[:]
    write_images(folder, train=TRAIN, test=TEST, attributes=ATTRIBUTES)
    assert subset[:].tobytes() == TRAIN.embeddings[[1, 4, 6]].tobytes()
    assert [(place.start, place.stop) for place, _ in subset.blocks()] == [(0, 1), (1, 3)]
    assert subset.subset(np.array([2, 0]))[:].tobytes() == TRAIN.embeddings[[1, 6]].tobytes()
    embeddings, labels = train.part(np.array([1, 4, 6]))
    assert np.asarray(embeddings).tobytes() == TRAIN.embeddings[[1, 4, 6]].tobytes()
    assert labels.tolist() == TRAIN.labels[[1, 4, 6]].tolist()
    assert in_parts(train).subset(np.zeros(0, dtype=np.int64))[:].shape == (0, 8)


@given(st.lists(st.integers(0, 6), max_size=6))
@settings(max_examples=40)
def test_blocks_are_cut_alike_however_rows_came(sizes: list[int]) -> None:
    """Rows handed on in pieces of any size lie in the parts that they lie in when handed on at once."""
    ends = np.cumsum([0, *sizes])
    together = unit_rows(int(ends[-1]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "PART_ROWS", 4)
        pieces = list(parts._repacked(together[a:b] for a, b in itertools.pairwise(ends)))
    full, rest = divmod(len(together), 4)
    assert [len(piece) for piece in pieces if len(piece)] == [4] * full + [rest] * (rest > 0)
    assert b"".join(piece.tobytes() for piece in pieces) == together.tobytes()


@pytest.mark.parametrize("sizes", [(0, 0), (0, 5), (5, 0), (8, 4), (0, 4)])
def test_empty_splits_and_full_last_parts(tmp_path: Path, sizes: tuple[int, int]) -> None:
    made = [
        Split(unit_rows(n, seed=n), np.zeros(n, dtype=np.int64), [f"{side}/{i}" for i in range(n)])
        for side, n in zip(("train", "test"), sizes, strict=True)
    ]
    write_images(tmp_path / "i", train=made[0], test=made[1], attributes=ATTRIBUTES)
    assert len(names(tmp_path / "i")) == 1 + -(-sum(sizes) // 4)
    back = read(tmp_path / "i")
    for found_again, wanted in zip((back.train, back.test), made, strict=True):
        assert found_again.embeddings.shape == wanted.embeddings.shape
        assert np.asarray(found_again.embeddings).tobytes() == wanted.embeddings.tobytes()


def test_one_part_is_read_at_once_and_gives_arrays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", 11)
    write_images(folder, train=TRAIN, test=TEST, attributes=ATTRIBUTES)
    assert names(folder) == ["manifest.h5", "part-00000.h5"]  # what lay there of more parts is gone
    back = read_images(folder)
    assert isinstance(back.train.embeddings, np.ndarray)
    assert isinstance(back.test.embeddings, np.ndarray)
    assert back.test.embeddings.tobytes() == TEST.embeddings.tobytes()


def test_equal_input_gives_equal_bytes_and_rows_in_parts_are_input_too(folder: Path, tmp_path: Path) -> None:
    again, copied = tmp_path / "again", tmp_path / "copied"
    write_images(again, train=TRAIN, test=TEST, attributes=ATTRIBUTES)
    assert contents(again) == contents(folder)
    back = read_images(folder)
    write_images(copied, train=back.train, test=back.test, attributes=ATTRIBUTES)
    assert contents(copied) == contents(folder)
    other = replace(TEST, embeddings=unit_rows(4, seed=9))
    write_images(again, train=TRAIN, test=other, attributes=ATTRIBUTES)
    changed = {name for name, content in contents(again).items() if content != contents(folder)[name]}
    assert changed == {"manifest.h5", part_name(1), part_name(2)}


def of_part(number: int) -> bytes:
    return EVERYTHING[4 * number : 4 * number + 4].tobytes()


def _flipped(folder: Path) -> None:
    flip(folder / part_name(1), of_part(1)[:16])


def _truncated(folder: Path) -> None:
    path = folder / part_name(1)
    path.write_bytes(path.read_bytes()[:-100])


def _other_file(folder: Path) -> None:
    shutil.copy(folder / MANIFEST, folder / part_name(1))


def _missing(folder: Path) -> None:
    (folder / part_name(1)).unlink()


def _doubled(folder: Path) -> None:
    shutil.copy(folder / part_name(0), folder / part_name(1))


def _of_others(folder: Path) -> None:
    rewrite(folder / part_name(1), lambda arrays, _: arrays.update(embeddings=unit_rows(4, seed=8)))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_flipped, "part 2 of 3: the content does not match its digest"),
        (_truncated, "part 2 of 3: not a readable HDF5 file"),
        (_other_file, "part 2 of 3: expected part of image embeddings, schema 1; found image embeddings"),
        (_missing, "part 2 of 3 is missing"),
        (_doubled, "expected part 2 of 3, found part 1"),
        (_of_others, "part 2 of 3 is of other embeddings than the manifest"),
    ],
)
def test_what_is_wrong_with_a_part_is_told_with_its_number_and_path(
    folder: Path, harm: Callable[[Path], None], said: str
) -> None:
    harm(folder)
    error = refusal(folder)
    assert error.what.startswith(said)
    assert (error.where, error.exit_code) == (str(folder / part_name(1)), 3)
    in_parts(read_images(folder).train)[:4]  # of part 1, which nothing is wrong with
    with pytest.raises(DataError):
        in_parts(read_images(folder).train)[4]


def test_parts_that_changed_places_are_each_told(folder: Path) -> None:
    first, second = folder / part_name(0), folder / part_name(1)
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    train = in_parts(read_images(folder).train)
    for row, said, path in (
        (0, "part 1 of 3, found part 2", first),
        (4, "part 2 of 3, found part 1", second),
    ):
        with pytest.raises(DataError, match=said) as caught:
            train[row]
        assert caught.value.where == str(path)


def test_a_part_too_many_is_refused_by_its_name(folder: Path) -> None:
    shutil.copy(folder / part_name(2), folder / part_name(3))
    error = refusal(folder)
    assert error.what == "part-00003.h5 is none of the 3 parts of these embeddings"
    assert error.where == str(folder / part_name(3))
    (folder / part_name(3)).unlink()
    read(folder)


def test_a_part_that_changed_after_it_was_verified_is_verified_again(folder: Path) -> None:
    images_read = read(folder)
    train = in_parts(images_read.train)
    path, whole = folder / part_name(0), (folder / part_name(0)).read_bytes()
    train[:4]  # kept in memory, too
    _flip_first(path)
    with pytest.raises(DataError, match="part 1 of 3: the content does not match its digest"):
        train[:4]
    path.write_bytes(whole)
    assert train[:4].tobytes() == TRAIN.embeddings[:4].tobytes()
    path.unlink()
    with pytest.raises(DataError, match="part 1 of 3 is missing"):
        train[0]


def _flip_first(path: Path) -> None:
    flip(path, of_part(0)[:16])


def test_a_part_is_hashed_once_while_it_is_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []
    real = container._content_digest
    monkeypatch.setattr(container, "_content_digest", lambda *args: hashed.append(1) or real(*args))
    train = in_parts(read(folder).train)
    assert len(hashed) == 4  # the manifest and three parts
    for _ in range(3):
        assert (train @ np.eye(8, dtype=np.float32)).tobytes() == TRAIN.embeddings.tobytes()
    assert len(hashed) == 4


def test_what_another_wrote_without_checks_is_refused_by_part_and_image(folder: Path) -> None:
    def spoil(arrays: dict[str, Any], _: object) -> None:
        arrays["embeddings"] = arrays["embeddings"] * np.array([1, 1, 2, 1], np.float32)[:, None]

    rewrite(folder / part_name(1), spoil)
    digest = container.read(folder / part_name(1), kind=PART_KIND).attributes["content_digest"]

    def name_it(arrays: dict[str, Any], _: object) -> None:
        digests = container.decode_strings(arrays["parts/digests"])
        arrays["parts/digests"] = container.encode_strings([digests[0], str(digest), digests[2]])

    rewrite(folder / MANIFEST, name_it)
    error = refusal(folder)
    assert "image 'train/6' is not a unit vector (norm 2.0" in error.what
    assert error.where == str(folder / part_name(1))


COUNTS: dict[str, tuple[dict[str, Any], str]] = {
    "fewer rows": ({"parts/counts": np.array([4, 4, 2])}, "10 rows for 11 images"),
    "a part less": ({"parts/counts": np.array([4, 7])}, "3 digests for parts int64"),
    "an empty part": ({"parts/counts": np.array([4, 7, 0])}, "3 digests for parts int64"),
    "less than nothing": ({"parts/counts": np.array([4, 8, -1])}, "3 digests for parts int64"),
    "of another type": ({"parts/counts": np.array([4.0, 4.0, 3.0])}, "3 digests for parts float64"),
    "no digests": ({"parts/digests": np.zeros(3)}, "expected strings"),
    "many dimensions": ({"parts/dim": np.array([8, 8])}, "not image embeddings"),
    "no counts": ({"parts/counts": None}, "not image embeddings: 'parts/counts'"),
    "no dimension": ({"parts/dim": None}, "not image embeddings: 'parts/dim'"),
    "a label less": ({"train/labels": np.zeros(6, np.int64)}, "expected 7 int64 class indices"),
    "an id twice": ({"test/ids": np.array([b"a"] * 4)}, "a sample id occurs twice"),
}


@pytest.mark.parametrize("fault", COUNTS)
def test_a_manifest_that_is_not_whole_is_refused(folder: Path, fault: str) -> None:
    changes, said = COUNTS[fault]

    def change(arrays: dict[str, Any], _: object) -> None:
        arrays.update(changes)
        for name in [name for name, array in changes.items() if array is None]:
            del arrays[name]

    rewrite(folder / MANIFEST, change)
    error = refusal(folder)
    assert said in error.what
    assert error.where == str(folder / MANIFEST)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"parts/counts": np.array([3, 5, 3])}, "part 1 holds float32 (4, 8), and the manifest says (3, 8)"),
        ({"parts/dim": np.array(9)}, "part 1 holds float32 (4, 8), and the manifest says (4, 9)"),
    ],
)
def test_a_part_of_another_size_than_the_manifest_says_is_refused(
    folder: Path, changes: dict[str, NDArray[Any]], said: str
) -> None:
    rewrite(folder / MANIFEST, lambda arrays, _: arrays.update(changes))
    error = refusal(folder)
    assert (error.what, error.where) == (said, str(folder / part_name(0)))


def test_a_manifest_with_a_flipped_bit_or_cut_short_or_gone_is_refused(folder: Path) -> None:
    manifest = folder / MANIFEST
    whole = manifest.read_bytes()
    flip(manifest, TRAIN.labels.tobytes())
    assert "does not match its digest" in refusal(folder).what
    manifest.write_bytes(whole[:-100])
    assert "not a readable HDF5 file" in refusal(folder).what
    manifest.unlink()
    error = refusal(folder)
    assert (error.what, error.where) == ("there is no image embeddings file", str(manifest))
    manifest.write_bytes(whole)
    rewrite(manifest, lambda _, attributes: attributes.pop("dataset"))
    assert "the attribute 'dataset' is None, expected text" in refusal(folder).what


def test_halved_rows_move_no_cosine_far_and_have_unit_length(tmp_path: Path) -> None:
    n, dim = 60, 512
    made = unit_rows(n, dim, seed=5)
    made[0] = np.eye(dim, dtype=np.float32)[0]  # all in one number, and none of the others lost
    train, test = (
        Split(made[half], np.zeros(n // 2, dtype=np.int64), [f"{half.start}/{i}" for i in range(n // 2)])
        for half in (slice(0, n // 2), slice(n // 2, n))
    )
    for storage in ("float32", "float16"):
        write_images(tmp_path / storage, train=train, test=test, attributes=ATTRIBUTES, storage=storage)
    stored = container.read(tmp_path / "float16" / part_name(0), kind=PART_KIND).arrays["embeddings"]
    assert stored.dtype == np.float16
    whole, halved = (
        np.concatenate([np.asarray(split.embeddings) for split in (content.train, content.test)])
        for content in (read(tmp_path / "float32"), read(tmp_path / "float16"))
    )
    assert halved.dtype == np.float32
    assert (
        0 < np.abs(halved.astype(float) @ halved.T.astype(float) - whole.astype(float) @ whole.T).max() < 1e-4
    )
    assert np.abs(np.linalg.norm(stored.astype(float), axis=1) - 1).max() > 0  # as they are stored
    np.testing.assert_allclose(np.linalg.norm(halved.astype(float), axis=1), 1, atol=2e-7)
    sizes = [sum(map(len, contents(tmp_path / storage).values())) for storage in ("float16", "float32")]
    assert sizes[0] < 0.75 * sizes[1]


def test_parts_may_lie_apart_and_under_other_names(folder: Path, tmp_path: Path) -> None:
    """As in a store that names files by their content."""
    places = {name: tmp_path / f"{i}.object" for i, name in enumerate(names(folder))}
    for name, place in places.items():
        shutil.move(folder / name, place)
    back = read_images(places[MANIFEST], part_of=places.__getitem__)
    back.verify()
    assert in_parts(back.test)[:].tobytes() == TEST.embeddings.tobytes()


def test_memory_is_that_of_few_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 24 parts of 256 KB, read, verified, multiplied and gathered from, never a quarter is in memory."""
    monkeypatch.setattr(parts, "PART_ROWS", 512)
    monkeypatch.setattr(rows, "_BLOCK_ROWS", 128)
    n, dim = 24 * 512, 128
    part, everything = 512 * dim * 4, n * dim * 4
    none = Split(unit_rows(0, dim), np.zeros(0, dtype=np.int64), [])
    ids = [str(i) for i in range(n)]
    made = write_parts(tmp_path, (unit_rows(256, dim, seed=i) for i in range(n // 256)))
    assert len(made.counts) == 24
    listed = images.Listed(np.zeros(n, dtype=np.int64), ids, None)
    images.write_manifest(tmp_path, images.listing(listed, none), made, attributes=ATTRIBUTES)
    read_images(tmp_path)  # what is imported and kept for good
    matrix = np.ones((dim, 2), dtype=np.float32)
    tracemalloc.start()
    try:
        content = read_images(tmp_path)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        content.verify()
        product = in_parts(content.train) @ matrix
        in_parts(content.train)[::512]
        lazily = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.reset_peak()
        in_parts(content.train)[:]
        at_once = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert product.shape == (n, 2)
    assert part < lazily < 5 * part + product.nbytes < everything / 4
    assert at_once > everything


def test_writing_holds_a_part_and_not_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", 512)
    dim, block = 128, unit_rows(128, 128)
    part = 512 * dim * 4
    write_parts(tmp_path, [block])
    tracemalloc.start()
    try:
        written = write_parts(tmp_path, (block.copy() for _ in range(4 * 24)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert written.counts == [512] * 24
    assert peak < 8 * part
