from __future__ import annotations

import pytest

from clipcifar.core.counts import count_of


@pytest.mark.parametrize(
    ("n", "noun", "expected"),
    [
        (1, "image", "1 image"),
        (0, "image", "0 images"),
        (1_234, "val image", "1,234 val images"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
    ],
)
def test_a_noun_goes_with_its_number(n: int, noun: str, expected: str) -> None:
    assert count_of(n, noun) == expected


def test_another_plural_is_given() -> None:
    assert [count_of(n, "image is", "images are") for n in (1, 2)] == ["1 image is", "2 images are"]
