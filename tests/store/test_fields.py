from __future__ import annotations

import pytest

from clipcifar.core.errors import DataError
from clipcifar.store.fields import rows_of


def test_images_are_joined_by_id_not_by_row() -> None:
    assert rows_of(["b", "a"], ["a", "x", "b"], what="the others").tolist() == [2, 0]
    assert rows_of([], ["a"], what="the others").tolist() == []


def test_an_id_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError, match="2 images are not among the test images, 'c' for one"):
        rows_of(["a", "c", "d"], ["a", "b"], what="the test images")
