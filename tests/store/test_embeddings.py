from __future__ import annotations

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
from clipcifar.store import container, embeddings as store, images
from clipcifar.store.fields import class_names_attribute, class_names_of, copies_of
from clipcifar.store.parts import PART_KIND, Parts, part_name

ATTRIBUTES: dict[str, Attribute] = {
    "model": "ViT-B-32",
    "pretrained": "laion2b",
    "weights_sha256": "ab" * 32,
    "config_sha256": "12" * 32,
    "preprocess": '{"size":224}',
    "class_names": class_names_attribute(["cat", "dog", "frog"]),
    "logit_scale": 100.0,
    "dataset": "toy",
    "dataset_digest": "ef" * 32,
    "max_per_class": 0,
}


def unit_rows(n: int, dim: int = 8, seed: int = 0) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def a_split(prefix: str, n: int, seed: int = 0) -> store.Split:
    labels = np.arange(n, dtype=np.int64) % 3
    return store.Split(unit_rows(n, seed=seed), labels, [f"{prefix}/{i}" for i in range(n)])


TRAIN, TEST = a_split("train", 7), a_split("test", 4, seed=1)
SENTENCES = ["a cat", "a dog", "a frog", "eine Kröte 🐸"]
TEXTS: dict[str, Any] = {
    "embeddings": unit_rows(4, seed=2),
    "class_index": np.array([0, 1, 2, 2]),
    "sentences": SENTENCES,
    "attributes": ATTRIBUTES,
}


def write_images(path: Path, **changes: Any) -> Path:
    images.write_images(path, **({"train": TRAIN, "test": TEST, "attributes": ATTRIBUTES} | changes))
    return path


def raw_manifest(train: store.Split, test: store.Split, *, digest: str = "") -> dict[str, NDArray[Any]]:
    """What `write_images` would store of one part, without its checks."""
    parts = Parts([len(train.ids) + len(test.ids)], [digest], train.embeddings.shape[-1])
    return images.listing(train, test) | parts.arrays


def write_raw(folder: Path, train: store.Split, test: store.Split) -> None:
    """Image embeddings whose digests are right, made by someone who did not check."""
    sides = [np.asarray(split.embeddings) for split in (train, test)]
    rows = np.concatenate(sides if sides[0].ndim == sides[1].ndim else sides[:1])
    name = part_name(0)
    digest = container.write(
        folder / name, kind=PART_KIND, arrays={"embeddings": rows}, attributes={"number": 0}
    )
    arrays = raw_manifest(train, test, digest=digest)
    container.write(folder / images.MANIFEST, kind="image embeddings", arrays=arrays, attributes=ATTRIBUTES)


def test_image_embeddings_come_back_as_they_were(tmp_path: Path) -> None:
    back = images.read_images(write_images(tmp_path / "images"))
    for found, wanted in ((back.train, TRAIN), (back.test, TEST)):
        assert found.embeddings.tobytes() == wanted.embeddings.tobytes()
        np.testing.assert_array_equal(found.labels, wanted.labels)
        assert found.ids == wanted.ids
    assert back.class_names == ["cat", "dog", "frog"]
    assert {key: back.attributes[key] for key in ATTRIBUTES} == ATTRIBUTES


def test_copies_come_back_and_are_not_in_the_file_of_images_that_have_none(tmp_path: Path) -> None:
    copies = np.array([0, 1, 1, 0])
    path = write_images(tmp_path / "images", test=replace(TEST, copies=copies))
    back = images.read_images(path)
    np.testing.assert_array_equal(back.test.copies, copies)
    assert back.train.copies is None
    assert "train/copies" not in container.read(path / images.MANIFEST, kind=store.IMAGES_KIND).arrays


@pytest.mark.parametrize(
    "copies", [[0, 0, 1, 3], [1, 1, 2, 3], [0, 1, 2], [0, -1, 2, 3], [0.0, 1.0, 1.0, 3.0]]
)
def test_rows_that_are_no_first_copies_are_refused(copies: list[int], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"copy|rows of first copies"):
        write_images(tmp_path / "images", test=replace(TEST, copies=np.array(copies)))


def test_contents_that_are_the_same_are_copies_of_the_first() -> None:
    assert copies_of(np.array(["a", "b", "c"], dtype="S1")) is None
    same = copies_of(np.array(["a", "b", "a", "b", "b", "c"], dtype="S1"))
    assert same is not None
    assert same.tolist() == [0, 1, 0, 1, 1, 5]


def test_text_embeddings_come_back_as_they_were(tmp_path: Path) -> None:
    store.write_texts(tmp_path / "texts.h5", **TEXTS)
    back = store.read_texts(tmp_path / "texts.h5")
    assert back.embeddings.tobytes() == TEXTS["embeddings"].tobytes()
    assert back.class_index.tolist() == [0, 1, 2, 2]
    assert (back.sentences, back.class_names) == (SENTENCES, ["cat", "dog", "frog"])


def test_weights_of_sentences_come_back_and_a_file_without_any_is_as_it_was(tmp_path: Path) -> None:
    weights = np.array([1.0, 0.25, 3.0, 1e-9])
    store.write_texts(tmp_path / "weighted.h5", **TEXTS, weights=weights)
    back = store.read_texts(tmp_path / "weighted.h5").weights
    assert back is not None
    assert back.tobytes() == weights.tobytes()
    store.write_texts(tmp_path / "plain.h5", **TEXTS)
    assert store.read_texts(tmp_path / "plain.h5").weights is None
    arrays = container.read(tmp_path / "plain.h5", kind="text embeddings").arrays
    assert set(arrays) == {"embeddings", "class_index", "sentences"}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(3), "expected 4 float64 weights"),
        (np.ones(4, dtype=np.float32), "expected 4 float64 weights"),
        (np.array([1, 1, 0, 1.0]), "no finite number above 0"),
        (np.array([1, 1, np.nan, 1.0]), "no finite number above 0"),
        (np.array([1, 1, np.inf, 1.0]), "no finite number above 0"),
    ],
)
def test_bad_weights_are_refused_on_writing_and_on_reading(
    weights: NDArray[Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "texts.h5"
    with pytest.raises(DataError, match=message):
        store.write_texts(path, **TEXTS, weights=weights)
    arrays = {"sentences": container.encode_strings(SENTENCES), "weights": weights}
    arrays |= {key: TEXTS[key] for key in ("embeddings", "class_index")}
    container.write(path, kind="text embeddings", arrays=arrays, attributes=ATTRIBUTES)
    with pytest.raises(DataError, match=message) as caught:
        store.read_texts(path)
    assert caught.value.where == str(path)


@given(st.lists(st.text(min_size=1), min_size=1))
@settings(max_examples=30)
def test_class_names_survive_as_an_attribute(class_names: list[str]) -> None:
    attribute = class_names_attribute(class_names)
    assert class_names_of({"class_names": attribute}) == class_names


def scaled(row: int, factor: float) -> NDArray[np.float32]:
    rows = unit_rows(7)
    rows[row] *= factor
    return rows


BAD_TRAIN: dict[str, tuple[store.Split, str]] = {
    "a row too long": (replace(TRAIN, embeddings=scaled(3, 1.001)), "'train/3' is not a unit vector.*1 such"),
    "a row too short": (replace(TRAIN, embeddings=scaled(0, 0.999)), "'train/0' is not a unit vector"),
    "a zero row": (replace(TRAIN, embeddings=scaled(6, 0)), "'train/6' is not a unit vector"),
    "NaN": (replace(TRAIN, embeddings=scaled(2, float("nan"))), "'train/2' is not a unit vector"),
    "infinite": (replace(TRAIN, embeddings=scaled(2, float("inf"))), "'train/2' is not a unit vector"),
    "overflowing": (replace(TRAIN, embeddings=scaled(2, 1e30)), "'train/2' is not a unit vector"),
    "float64": (replace(TRAIN, embeddings=TRAIN.embeddings.astype(np.float64)), "expected 7 float32 rows"),
    "one dimension": (replace(TRAIN, embeddings=np.ones(7, np.float32)), "expected 7 float32 rows"),
    "a row less": (replace(TRAIN, embeddings=unit_rows(6)), "expected 7 float32 rows"),
    "an id twice": (replace(TRAIN, ids=[*TRAIN.ids[:6], TRAIN.ids[0]]), "id occurs twice"),
    "a label too high": (replace(TRAIN, labels=np.full(7, 3)), "class indices outside 0 to 2"),
    "a negative label": (replace(TRAIN, labels=np.full(7, -1)), "class indices outside 0 to 2"),
    "a label less": (replace(TRAIN, labels=TRAIN.labels[:6]), "expected 7 int64 class indices"),
    "labels of another type": (replace(TRAIN, labels=TRAIN.labels.astype(np.int32)), "expected 7 int64"),
}


@pytest.mark.parametrize("fault", BAD_TRAIN)
@pytest.mark.parametrize("side", ["train", "test"])
def test_bad_image_rows_are_refused_on_writing_and_on_reading(fault: str, side: str, tmp_path: Path) -> None:
    split, message = BAD_TRAIN[fault]
    other = a_split("other", 3)
    train, test = (split, other) if side == "train" else (other, split)
    path = tmp_path / "images"
    with pytest.raises(DataError, match=message):
        write_images(path, train=train, test=test)
    assert not path.exists()
    write_raw(path, train, test)
    of_rows, of_shape = "unit vector" in message, "float32 rows" in message
    said = "part 1 holds" if of_shape else message if of_rows else f"not image embeddings: .*{message}"
    with pytest.raises(DataError, match=f"(?s){said}") as caught:
        images.read_images(path)
    file = part_name(0) if of_rows or of_shape else images.MANIFEST
    assert (caught.value.exit_code, caught.value.where) == (3, str(path / file))


def test_a_rounding_error_in_a_norm_is_not_a_fault(tmp_path: Path) -> None:
    write_images(tmp_path / "images", train=replace(TRAIN, embeddings=scaled(0, 1 + 5e-5)))
    assert len(images.read_images(tmp_path / "images").train.ids) == 7


BAD_TEXTS: dict[str, tuple[dict[str, Any], str]] = {
    "NaN": ({"embeddings": np.full((4, 8), np.nan, np.float32)}, "sentence 'a cat' is not a unit.*4 such"),
    "a row less": ({"embeddings": unit_rows(3)}, "expected 4 float32 rows"),
    "an unknown class": ({"class_index": np.array([0, 1, 2, 3])}, "class indices outside 0 to 2"),
    "an index less": ({"class_index": np.array([0, 1, 2])}, "expected 4 int64 class indices"),
}


@pytest.mark.parametrize("fault", BAD_TEXTS)
def test_bad_sentence_rows_are_refused_on_writing_and_on_reading(fault: str, tmp_path: Path) -> None:
    changes, message = BAD_TEXTS[fault]
    path = tmp_path / "texts.h5"
    arguments = TEXTS | changes
    with pytest.raises(DataError, match=message):
        store.write_texts(path, **arguments)
    arrays = {key: arguments[key] for key in ("embeddings", "class_index")}
    arrays["sentences"] = container.encode_strings(SENTENCES)
    container.write(path, kind="text embeddings", arrays=arrays, attributes=ATTRIBUTES)
    with pytest.raises(DataError, match=f"not text embeddings: .*{message}") as caught:
        store.read_texts(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("name", ["parts/counts", "test/labels", "test/ids"])
def test_an_array_that_is_missing_or_of_another_type_is_refused(name: str, tmp_path: Path) -> None:
    arrays = raw_manifest(TRAIN, TEST)
    path = tmp_path / "images"
    for broken in ({}, {name: np.arange(4)}):
        kept = {key: array for key, array in arrays.items() if key != name}
        container.write(path, kind="image embeddings", arrays=kept | broken, attributes=ATTRIBUTES)
        with pytest.raises(DataError, match="not image embeddings") as caught:
            images.read_images(path)
        assert caught.value.where == str(path)


@pytest.mark.parametrize("class_names", [None, "cat, dog", '["cat"'])
def test_class_names_that_are_missing_or_unreadable_are_refused(
    class_names: str | None, tmp_path: Path
) -> None:
    attributes = {key: value for key, value in ATTRIBUTES.items() if key != "class_names"}
    if class_names is not None:
        attributes["class_names"] = class_names
    path = tmp_path / "images"
    container.write(path, kind="image embeddings", arrays=raw_manifest(TRAIN, TEST), attributes=attributes)
    with pytest.raises(DataError, match=r"class.names"):
        images.read_images(path)


def test_ids_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    arrays = raw_manifest(TRAIN, TEST) | {"test/ids": np.array([b"a", b"b", b"c", b"\xff"])}
    container.write(tmp_path / "x.h5", kind="image embeddings", arrays=arrays, attributes=ATTRIBUTES)
    with pytest.raises(DataError, match="not UTF-8"):
        images.read_images(tmp_path / "x.h5")


def test_one_kind_of_file_is_not_read_as_the_other(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    store.write_texts(tmp_path / "texts.h5", **TEXTS)
    with pytest.raises(DataError, match="expected image embeddings, schema 1; found text embeddings"):
        images.read_images(tmp_path / "texts.h5")
    with pytest.raises(DataError, match="expected text embeddings, schema 1; found image embeddings"):
        store.read_texts(tmp_path / "images" / images.MANIFEST)
    with pytest.raises(
        DataError, match="expected image embeddings, schema 1; found part of image embeddings"
    ):
        images.read_images(tmp_path / "images" / "part-00000.h5")


OTHER: dict[str, Attribute] = {
    "model": "ViT-L-14",
    "pretrained": "openai",
    "weights_sha256": "cd" * 32,
    "config_sha256": "34" * 32,
    "preprocess": '{"size":336}',
    "class_names": class_names_attribute(["dog", "cat", "frog"]),  # another order is another meaning
    "logit_scale": 50.0,
}


def read_pair(
    tmp_path: Path, attributes: dict[str, Attribute]
) -> tuple[store.ImageEmbeddings, store.TextEmbeddings]:
    store.write_texts(tmp_path / "texts.h5", **(TEXTS | {"attributes": attributes}))
    return images.read_images(write_images(tmp_path / "images")), store.read_texts(tmp_path / "texts.h5")


@pytest.mark.parametrize("field", OTHER)
def test_files_of_different_models_are_refused_with_the_field_that_differs(
    field: str, tmp_path: Path
) -> None:
    pair = read_pair(tmp_path, ATTRIBUTES | {field: OTHER[field]})
    with pytest.raises(DataError) as caught:
        store.check_same_space(*pair)
    message = caught.value.what
    assert f"{field} is {ATTRIBUTES[field]!r} for the images and {OTHER[field]!r} for the sent" in message
    assert not any(f"{other} is" in message for other in store.SHARED_FIELDS if other != field)


def test_a_field_that_one_file_lacks_is_a_difference(tmp_path: Path) -> None:
    lacking = {key: value for key, value in ATTRIBUTES.items() if key != "weights_sha256"}
    pair = read_pair(tmp_path, lacking)
    with pytest.raises(DataError, match="weights_sha256"):
        store.check_same_space(*pair)


@pytest.mark.parametrize("change", [{}, {"device": "cuda", "batch_size": 64, "dataset": "other"}])
def test_files_that_agree_on_the_model_belong_together(change: dict[str, Any], tmp_path: Path) -> None:
    store.check_same_space(*read_pair(tmp_path, ATTRIBUTES | change))


def test_all_wrong_rows_are_counted_and_the_first_is_named() -> None:
    rows = unit_rows(5)
    rows[[1, 3]] = 0
    with pytest.raises(DataError, match=r"image 'b' is not a unit vector \(norm 0\.0\); 2 such rows"):
        store.check_embeddings(rows, list("abcde"), what="image")


@given(st.integers(0, 6), st.integers(1, 5), st.floats(0.5, 2.0))
@settings(max_examples=50)
def test_rows_pass_exactly_when_a_naive_norm_says_so(n: int, dim: int, factor: float) -> None:
    rows = (unit_rows(n, dim) * factor).astype(np.float32)
    wrong = [i for i, row in enumerate(rows) if abs(sum(float(x) ** 2 for x in row) ** 0.5 - 1) > 1e-4]
    check: Callable[[], None] = lambda: store.check_embeddings(rows, ["x"] * n, what="image")  # noqa: E731
    if not wrong:
        check()
    else:
        with pytest.raises(DataError, match=f"{len(wrong)} such row"):
            check()
