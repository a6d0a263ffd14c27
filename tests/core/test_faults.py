from __future__ import annotations

import pytest

from clipcifar.core.errors import ConfigError
from clipcifar.core.faults import LISTED, Faults


def raised(*errors: ConfigError) -> ConfigError:
    faults = Faults()
    for error in errors:
        with faults.gathered():
            raise error
    with pytest.raises(ConfigError) as caught:
        faults.raise_all("the sets")
    return caught.value


def test_a_single_fault_is_told_as_it_is_and_none_raises_nothing() -> None:
    error = ConfigError("x", where="a: b", fix="mend it")
    assert raised(error) is error
    assert raised(error, ConfigError("x", where="a: b", fix="mend it")) is error  # said twice, it is one
    Faults().raise_all("the sets")


def test_several_are_one_report_with_place_and_fix_of_each() -> None:
    report = raised(
        ConfigError("is empty", where="params.yaml: s.a[0]", fix="write one"),
        ConfigError("has no list", where="data/sentences/f.json: cat", fix="write a list"),
    )
    assert str(report).splitlines() == [
        "2 faults in the sets:",
        "    params.yaml: s.a[0]: is empty; write one",
        "    data/sentences/f.json: cat: has no list; write a list",
        "  where: params.yaml, data/sentences/f.json",
        "  fix:   mend all of them; each line ends with how",
    ]


def test_of_many_every_kind_is_listed_and_all_are_counted() -> None:
    many = [ConfigError(f"the sentence 'say {i}' is long", where=f"f.json: cat[{i}]") for i in range(100)]
    last = [
        ConfigError("unknown class 'cta'", where="f.json"),
        ConfigError("another", where="f.json: dog[7]"),
    ]
    lines = str(raised(*many, *last)).splitlines()
    assert lines[0] == "102 faults in the sets:"
    assert lines[1] == "    cat[0]: the sentence 'say 0' is long"
    assert lines[LISTED - 1 : LISTED + 2] == [
        "    unknown class 'cta'",
        "    dog[7]: another",
        f"    and {102 - LISTED} more",
    ]
    assert lines[LISTED + 2] == "  where: f.json"


def test_only_what_a_person_has_to_mend_is_gathered() -> None:
    with pytest.raises(ValueError, match="a bug"), Faults().gathered():
        raise ValueError("a bug")


def test_a_line_stays_a_line_however_long_the_sentence() -> None:
    report = str(raised(ConfigError("x" * 5000, where="a"), ConfigError("y", where="b", fix="z" * 5000)))
    assert max(map(len, report.splitlines())) < 300
