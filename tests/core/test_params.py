from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from dvc.utils.serialize import parse_yaml

from clipcifar.backbone.params import EmbedParams
from clipcifar.core import params, strict_yaml
from clipcifar.core.errors import ConfigError
from clipcifar.core.params import Range
from clipcifar.datasets.params import DatasetParams
from clipcifar.methods.gda import GDAParams
from clipcifar.methods.linear_probe import LinearProbeParams
from clipcifar.methods.trained.training import TrainingParams
from clipcifar.prompts.params import PromptsParams
from clipcifar.store.model import ModelParams
from clipcifar.store.splits import SplitParams
from clipcifar.studies.corruptions.params import CorruptionParams
from tests.support.import_closure import ROOT

# Spellings that YAML 1.1, YAML 1.2 and people read differently.
AGREED = [
    "1e-3",
    "no",
    "on",
    "yes",
    "off",
    "y",
    "n",
    "true",
    "True",
    "TRUE",
    "false",
    "null",
    "Null",
    "NULL",
    "~",
    "nUll",
    "12:30",
    "1:2:3",
    "+1",
    "-1",
    "0",
    "-0",
    ".5",
    "1.",
    "+.5",
    "1e5",
    "1.5e3",
    "1E+3",
    "1e",
    "0.",
    "1.e+1",
    ".e1",
    ".",
    "+",
    "-",
    "text",
    "0.1.2",
    "1,000",
    "'no'",
    "'1e-3'",
    "a-b",
    "http://x",
]
REFUSED = [
    "017",
    "0o17",
    "0x1f",
    "0b11",
    "1_000",
    "0_1.5",
    "1__0",
    "2024-01-01",
    "2024-01-01T00:00:00Z",
    ".nan",
    ".inf",
    "-.inf",
    "=",
    "<<",
]


def _load(tmp_path: Path, text: str) -> dict[str, Any]:
    path = tmp_path / "params.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return params.load(path)


def _refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, text)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("scalar", [s for s in AGREED if s != "-"])
def test_scalars_mean_what_dvc_reads(tmp_path: Path, scalar: str) -> None:
    text = f"dataset: {scalar}\n"
    ours = _load_scalar(tmp_path, text)
    theirs = parse_yaml(text, "params.yaml")["dataset"]
    assert (type(ours), ours) == (type(theirs), theirs)


def _load_scalar(tmp_path: Path, text: str) -> Any:
    rest = "".join(f"{section}: {{}}\n" for section in params.SECTIONS if section != "dataset")
    return _load(tmp_path, text + rest)["dataset"]


@pytest.mark.parametrize("scalar", REFUSED)
def test_scalars_that_mislead_are_refused_unless_quoted(tmp_path: Path, scalar: str) -> None:
    with pytest.raises(ConfigError, match="line 1"):
        _load_scalar(tmp_path, f"dataset: {scalar}\n")
    assert _load_scalar(tmp_path, f"dataset: '{scalar}'\n") == scalar


def test_the_committed_file_reads_alike_here_and_in_dvc() -> None:
    path = ROOT / "params.yaml"
    assert params.load(path) == parse_yaml(path.read_text(), "params.yaml")


@pytest.mark.parametrize(
    ("section", "model"),
    [
        ("dataset", DatasetParams),
        ("split", SplitParams),
        ("model", ModelParams),
        ("embed", EmbedParams),
        ("prompts", PromptsParams),
        ("gda", GDAParams),
        ("linear_probe", LinearProbeParams),
        ("mlp_probe", TrainingParams),
        ("projection", TrainingParams),
        ("corruptions", CorruptionParams),
    ],
)
def test_every_committed_section_is_complete(section: str, model: type) -> None:
    assert isinstance(params.read(params.load(ROOT / "params.yaml"), section, model), model)


def test_every_section_is_known_and_a_typo_gets_a_suggestion(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text()
    assert tuple(params.load(ROOT / "params.yaml")) == params.SECTIONS
    assert "did you mean prompts?" in _refused(tmp_path, text + "\npromts: {}\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dataset: 1\ndataset: 2\n", "'dataset' is given twice"),
        ("dataset: {name: a, name: b}\n", "'name' is given twice"),
        ("dataset: !!python/object/apply:os.system ['true']\n", "line 1"),
        ("dataset: &a [*a]\n", "contains itself"),
        ("dataset: {1: x}\n", "is not text"),
        ("dataset: !!int abc\n", "the tag !!int"),
        ("dataset: !!float x\n", "the tag !!float"),
        ("dataset: !!timestamp foo\n", "the tag !!timestamp"),
        ("dataset: !!bool maybe\n", "the tag !!bool"),
        (f"dataset: {'1' * 5000}\n", "cannot read"),
        ("dataset: [\n", "not valid YAML"),
        ("\tdataset: 1\n", "not valid YAML"),
        ("templates:\n  - [big|small] {classname}\n", "begins with [ or {"),
        ("templates:\n  - photo: a {classname}: b\n", "or holds a colon, stands in quotes"),
        ("- a\n- b\n", "not a mapping"),
        ("", "not a mapping"),
    ],
)
def test_broken_files_are_refused_with_the_place(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in _refused(tmp_path, text)


def test_an_alias_bomb_is_refused_before_it_grows(tmp_path: Path) -> None:
    lines = ["a: &a [x,x,x,x,x,x,x,x,x,x]"] + [
        f"{c}: &{c} [{','.join(f'*{p}' for _ in range(10))}]"
        for p, c in zip("abcdefg", "bcdefgh", strict=True)
    ]
    assert "expands to more than" in _refused(tmp_path, "dataset:\n  " + "\n  ".join(lines) + "\n")


def test_files_that_are_not_text_missing_or_huge_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(ConfigError):
        params.load(path)
    path.write_bytes(b"dataset: \xff\n")
    with pytest.raises(ConfigError):
        params.load(path)
    path.write_text("dataset: " + "x" * (strict_yaml.MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than"):
        params.load(path)


@dataclass(frozen=True)
class _Model:
    count: Annotated[int, Range(1)]
    rate: Annotated[float, Range(0, 1)]
    kind: Literal["a", "b"]
    flag: bool
    grid: Annotated[tuple[float, ...], Range(0)]
    name: str | None


GOOD: dict[str, Any] = {"count": 2, "rate": 1, "kind": "a", "flag": True, "grid": [1, 0.5], "name": None}


def test_a_section_becomes_its_dataclass() -> None:
    found = params.read({"s": GOOD}, "s", _Model)
    assert found == _Model(2, 1.0, "a", True, (1.0, 0.5), None)
    assert type(found.rate) is float


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"count": True}, "count is True (bool), expected a whole number"),
        ({"count": 1.0}, "expected a whole number"),
        ({"count": "2"}, "expected a whole number"),
        ({"count": None}, "expected a whole number"),
        ({"count": 0}, "count is 0, expected 1 or more"),
        ({"rate": True}, "expected a number"),
        ({"rate": float("nan")}, "expected a finite number"),
        ({"rate": float("-inf")}, "expected a finite number"),
        ({"rate": 10**400}, "expected a finite number"),
        ({"rate": "0.5"}, "expected a number"),
        ({"rate": 1.5}, "expected 0 to 1"),
        ({"kind": True}, "one of a, b"),
        ({"kind": ["a"]}, "one of a, b"),
        ({"flag": "yes"}, "true or false"),
        ({"grid": 1}, "at least one item"),
        ({"grid": [True]}, "grid[0] is True (bool), expected a number"),
        ({"kind": "c"}, "one of a, b"),
        ({"flag": 1}, "true or false"),
        ({"grid": []}, "at least one item"),
        ({"grid": [1, "x"]}, "grid[1] is 'x'"),
        ({"grid": [-1]}, "expected 0 or more"),
        ({"name": 3}, "expected text"),
        ({"cuont": 3}, "did you mean count?"),
    ],
)
def test_wrong_values_are_refused_with_key_and_expectation(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        params.read({"s": {**GOOD, **change}}, "s", _Model)
    assert expected in str(caught.value)
    assert "s" in caught.value.where


def test_missing_keys_have_no_default() -> None:
    for key in GOOD:
        with pytest.raises(ConfigError, match=f"'{key}' is missing"):
            params.read({"s": {k: v for k, v in GOOD.items() if k != key}}, "s", _Model)
    with pytest.raises(ConfigError, match="section 's'"):
        params.read({}, "s", _Model)


@pytest.mark.parametrize("values", [None, [], "text", 3])
def test_a_section_that_is_no_mapping_is_refused(values: Any) -> None:
    with pytest.raises(ConfigError, match="section 's' is missing or is not a mapping"):
        params.read({"s": values}, "s", _Model)


def test_bounds_belong_to_the_range() -> None:
    for rate in (0, 1):
        assert params.read({"s": {**GOOD, "rate": rate}}, "s", _Model).rate == rate
    assert params.read({"s": {**GOOD, "count": 1}}, "s", _Model).count == 1


def test_a_long_wrong_value_is_shown_in_part() -> None:
    with pytest.raises(ConfigError) as caught:
        params.read({"s": {**GOOD, "count": ["x" * 1000] * 100}}, "s", _Model)
    assert len(str(caught.value)) < 300
    assert "(list)" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "key", "expected"),
    [
        ("val_fraction: 0.1", "val_fraction: 0", "split.val_fraction", "0.001 to 0.9"),
        ("val_fraction: 0.1", "val_fraction: yes", "split.val_fraction", "a number"),
        ("val_fraction: 0.1", "val_fracton: 0.1", "split", "did you mean val_fraction?"),
        ("max_per_class: null", "max_per_class: 0", "dataset.max_per_class", "1 "),
        ("max_per_class: null", "max_per_class: true", "dataset.max_per_class", "a whole number"),
        ("on_bad_image: error", "on_bad_image: ignore", "dataset.on_bad_image", "error, skip"),
        ("allow_pickle: false", "allow_pickle: no", "model.allow_pickle", "true or false"),
        ("allow_pickle: false", "allow_pickle: 0", "model.allow_pickle", "true or false"),
        ("precision: fp32", "precision: fp64", "embed.precision", "fp32, bf16, fp16"),
        ("max_iter: 2000", "max_iter: 2e3", "linear_probe.max_iter", "a whole number"),
        ("c_grid: [", "c_grid: [ten, ", "linear_probe.c_grid[0]", "a number"),
        ("active: photo", "active: null", "prompts.active", "text"),
    ],
)
def test_a_wrong_edit_of_the_committed_file_is_refused(
    tmp_path: Path, old: str, new: str, key: str, expected: str
) -> None:
    before, name, rest = (ROOT / "params.yaml").read_text().partition(f"\n{key.split('.')[0]}:\n")
    assert old in rest.split("\n\n")[0]
    edited = _load(tmp_path, before + name + rest.replace(old, new, 1))
    models: dict[str, type] = {
        "dataset": DatasetParams,
        "split": SplitParams,
        "model": ModelParams,
        "embed": EmbedParams,
        "linear_probe": LinearProbeParams,
        "prompts": PromptsParams,
    }
    section = key.split(".")[0]
    with pytest.raises(ConfigError) as caught:
        params.read(edited, section, models[section])
    assert caught.value.where == f"params.yaml: {key}"
    assert expected in str(caught.value)
    for other in models.keys() - {section}:
        params.read(edited, other, models[other])


def test_a_section_that_is_missing_or_misspelt_is_named(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text()
    assert "did you mean mlp_probe?" in _refused(tmp_path, text.replace("\nmlp_probe:", "\nmlp_prob:"))
    only = "dataset: {}\nsplit: {}\n"
    assert "the section 'model' is missing" in _refused(tmp_path, only)


def test_a_suggestion_is_the_nearest_name_or_all_of_them() -> None:
    assert params.suggestion("aeroplane", ["bird", "airplane"]) == "did you mean airplane?"
    assert params.suggestion("zzz", ["bird", "airplane"]) == "use one of: bird, airplane"
    assert "add it" in params.suggestion("zzz", [])


def test_a_key_that_came_later_may_be_absent_and_is_checked_like_any_other_where_it_is_given() -> None:
    @dataclass(frozen=True)
    class Section:
        old: int
        new: Annotated[float, Range(0, 1)] = 0.5

    assert params.read({"s": {"old": 1}}, "s", Section) == Section(1, 0.5)
    assert params.read({"s": {"new": 1, "old": 1}}, "s", Section) == Section(1, 1.0)
    for values, message in (
        ({"old": 1, "new": 2}, "s.new is 2.0, expected 0 to 1"),
        ({"old": 1, "news": 1}, "unknown key 'news'"),
        ({"new": 1}, "the key 'old' is missing"),
    ):
        with pytest.raises(ConfigError, match=message):
            params.read({"s": values}, "s", Section)
