from __future__ import annotations

import pytest

from clipcifar.core.errors import DataError
from clipcifar.store.classes import check_readings


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["hot_dog", "cat", "hot dog"], "'hot_dog' and 'hot dog'"),
        (["hot  dog", "hot dog "], "'hot  dog' and 'hot dog '"),
        (["caf\u00e9", "cafe\u0301"], r"'caf\xe9' and 'cafe\u0301'"),
        (["cat", "c\u200bat"], r"'cat' and 'c\u200bat'"),
        (["a_b", "a b", "c_d", "c d"], "'a_b' and 'a b'; 'c_d' and 'c d'"),
    ],
)
def test_classes_that_read_alike_are_named(names: list[str], said: str) -> None:
    with pytest.raises(DataError) as caught:
        check_readings(names, where="photos")
    assert caught.value.what == f"two classes read alike: {said}"
    assert (caught.value.where, caught.value.fix) == ("photos", "rename one of the two")


def test_names_that_read_otherwise_pass() -> None:
    check_readings(
        ["hot-dog", "hot dog", "hotdog", "Turkey", "turkey", "café", "cafe", "猫", "卡车"], where="photos"
    )
