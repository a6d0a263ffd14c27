"""The nearest images: by hand, against a full sort, and where images are equally near."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from clipcifar.api import find
from clipcifar.api.find import Hit
from clipcifar.api.images import Images
from clipcifar.core.errors import ClipcifarError, ConfigError, DataError
from tests.support.synthetic import unit

NAMES = ["cat", "hot_dog"]
AXES = np.array([[1, 0], [0.6, 0.8], [0, 1], [-1, 0], [0.6, 0.8]], dtype=np.float32)
IMAGES = Images(
    AXES,
    np.array([0, 0, 1, 1, 1]),
    ["a", "b", "c", "d", "e"],
    np.array(["train", "val", "test", "test", "test"]),
    NAMES,
)
EAST = np.array([1, 0], dtype=np.float32)


def naive(rows: NDArray[np.float32], query: NDArray[np.float32], top: int) -> list[int]:
    """All products in Python's own floats, sorted whole; `sorted` keeps equals in their order."""
    products = [float(np.multiply(row, query, dtype=np.float64).sum()) for row in rows]
    return sorted(range(len(rows)), key=lambda position: -products[position])[:top]


def test_a_case_by_hand() -> None:
    nearest = find.nearest_images(IMAGES, EAST, top=4)
    assert [(hit.rank, hit.id, hit.split, hit.label) for hit in nearest] == [
        (1, "a", "train", "cat"),
        (2, "b", "val", "cat"),  # as near as e, and before it
        (3, "e", "test", "hot_dog"),
        (4, "c", "test", "hot_dog"),
    ]
    assert [hit.cosine for hit in nearest] == pytest.approx([1, 0.6, 0.6, 0])


def test_another_query_has_other_neighbours() -> None:
    assert [hit.id for hit in find.nearest_images(IMAGES, -EAST, top=2)] == ["d", "c"]


def test_of_few_images_all_are_given() -> None:
    assert [hit.id for hit in find.nearest_images(IMAGES, EAST, top=99)] == ["a", "b", "e", "c", "d"]
    assert find.nearest_images(IMAGES, EAST, top=99)[-1].cosine == -1


@pytest.mark.parametrize("name", ["hot_dog", "hot dog"])
def test_one_class_alone(name: str) -> None:
    assert find.nearest_images(IMAGES, EAST, top=1, class_name=name) == [
        Hit(1, pytest.approx(0.6), "test", "hot_dog", "e")
    ]


NONE = Images(AXES[:0], np.zeros(0, dtype=int), [], np.zeros(0, dtype="<U5"), NAMES)


@pytest.mark.parametrize(
    ("images", "asked", "kind", "what"),
    [
        (IMAGES, {"class_name": "cut"}, ConfigError, "unknown class 'cut'\n  fix:   did you mean cat?"),
        (
            replace(IMAGES, labels=np.zeros(5, dtype=int)),
            {"class_name": "hot_dog"},
            DataError,
            "of the class",
        ),
        (NONE, {}, DataError, "there is no image to look among"),
    ],
)
def test_what_cannot_be_asked(
    images: Images, asked: dict[str, Any], kind: type[ClipcifarError], what: str
) -> None:
    with pytest.raises(kind) as error:
        find.nearest_images(images, EAST, **{"top": 3, **asked})
    assert what in str(error.value)


@given(
    n=st.integers(1, 60), dim=st.integers(1, 9), top=st.integers(1, 70), seed=st.integers(0, 99),
    different=st.integers(1, 60),
)  # fmt: skip
def test_it_is_what_a_full_sort_gives(n: int, dim: int, top: int, seed: int, different: int) -> None:
    rng = np.random.default_rng(seed)
    rows = unit(rng.normal(size=(different, dim)))[rng.integers(0, different, n)]  # many are equally near
    query = unit(rng.normal(size=(1, dim)))[0]
    positions, products = find.nearest(rows, query, top=top)
    assert positions.tolist() == naive(rows, query, top)
    assert np.allclose(products, (rows @ query)[positions], atol=1e-6)


class Rough(np.ndarray):
    """Rows whose float32 products with a query are off in their last bits, each otherwise."""

    def __matmul__(self, query: Any) -> Any:
        noise = np.random.default_rng(0).choice([-1e-6, 0, 1e-6], len(self))
        return (np.asarray(self) @ query + noise).astype(np.float32)


@pytest.mark.parametrize("top", [12, 500])
def test_equal_images_stay_in_order_whatever_the_last_bits_are(top: int) -> None:
    rng = np.random.default_rng(3)
    rows = unit(rng.normal(size=(5, 512)))[rng.integers(0, 5, 3001)]
    query, off = rows[7], rows.view(Rough)
    first = np.flatnonzero((rows == query).all(axis=1))[:top].tolist()
    assert find.nearest(off, query, top=top)[0].tolist() == first
    assert np.argsort(-(off @ query), kind="stable")[:top].tolist() != first  # negative control


@pytest.mark.parametrize("text", ["", " \n", "a\x1b[2Jcat", "caf\udce9", "x" * 6000])
def test_what_is_no_query(text: str) -> None:
    with pytest.raises(ConfigError, match="the query"):
        find.checked_query(text)


def test_blanks_around_a_query_do_not_count() -> None:
    assert find.checked_query("  two {cats} [on] a sofa ") == "two {cats} [on] a sofa"
