from __future__ import annotations

import pytest

from clipcifar.core import errors
from clipcifar.core.errors import ClipcifarError, ConfigError, DataError, EnvironmentFault


@pytest.mark.parametrize(("kind", "code"), [(ConfigError, 2), (DataError, 3), (EnvironmentFault, 4)])
def test_each_kind_has_the_exit_code_that_the_readme_gives_it(kind: type[ClipcifarError], code: int) -> None:
    with pytest.raises(ClipcifarError) as caught:
        raise kind("the disk is full", where="data/x.h5", fix="free some space")
    assert caught.value.exit_code == code
    assert str(caught.value) == "the disk is full\n  where: data/x.h5\n  fix:   free some space"


def test_the_family_is_three_kinds_with_codes_of_their_own() -> None:
    named = (value for value in vars(errors).values() if isinstance(value, type))
    kinds = [kind for kind in named if kind.__module__ == errors.__name__]
    codes = [kind.exit_code for kind in kinds]
    assert all(issubclass(kind, ClipcifarError) for kind in kinds)
    assert sorted(codes) == [1, 2, 3, 4]  # 1 is of the base, which nobody raises


@pytest.mark.parametrize(
    ("more", "lines"),
    [({}, ["x"]), ({"where": "here"}, ["x", "  where: here"]), ({"fix": "so"}, ["x", "  fix:   so"])],
)
def test_what_is_not_known_takes_no_line(more: dict[str, str], lines: list[str]) -> None:
    assert str(DataError("x", **more)).splitlines() == lines


def test_a_caller_who_knows_the_place_can_add_it() -> None:
    error = DataError("the content does not match its digest")
    error.where = "images"
    assert "where: images" in str(error)
    assert error.what == "the content does not match its digest"
