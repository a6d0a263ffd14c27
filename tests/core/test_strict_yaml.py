"""What tests/core/test_params.py leaves open: whole files rather than single scalars, and hostile ones."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import ParseError, parse_yaml
from hypothesis import given, settings, strategies as st
from ruamel.yaml import YAML

from clipcifar.core import strict_yaml
from clipcifar.core.errors import ConfigError


def load(folder: Path, text: str) -> dict[str, Any]:
    path = folder / "params.yaml"
    path.write_bytes(text.encode())
    return strict_yaml.load_mapping(path)


def refusal(folder: Path, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    assert "params.yaml" in caught.value.where
    return caught.value


def test_the_marks_of_an_unfinished_merge_are_named_and_not_what_yaml_makes_of_them(tmp_path: Path) -> None:
    error = refusal(tmp_path, "a:\n<<<<<<< HEAD\n  - 1\n=======\n  - 2\n>>>>>>> other\n")
    assert "merged" in error.what
    assert error.where.endswith("params.yaml, line 2")
    assert "remove the lines" in error.fix


def read_by_dvc(text: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an anchor that is used twice, which ours refuses
        return parse_yaml(text, "params.yaml")


# Pieces of YAML, chosen where its two versions, or two readers, part.
WORDS = r"""
    a b 1 0 07 7e5 e . .5 - + _ : , [ ] { } # ! ' " | > % ~ null true no .inf .nan << = @ 0x 0o é \ \n \x41
    2024-01-01 12:30 !!int !!str !!float !!set <<: ---
"""
BREAKS = [" ", "\n", "\n  ", "\t", "\r", "\x85", "\u2028", "\ufeff", "\x00", ": ", "- ", "? ", " #"]
BLOCKS = ["&x ", "*x ", "!!int ", "|-\n", ">\n", "---\n", "...\n", "%YAML 1.1\n", "\U0001f408"]


@settings(max_examples=400, derandomize=True)
@given(
    st.sampled_from(["k: ", "k:\n  ", ""]),
    st.lists(st.sampled_from(WORDS.split() + BREAKS + BLOCKS), max_size=7).map("".join),
)
def test_whatever_is_read_at_all_means_the_same_to_dvc(
    tmp_path_factory: pytest.TempPathFactory, start: str, rest: str
) -> None:
    text = start + rest + "\n"
    try:
        ours = load(tmp_path_factory.getbasetemp(), text)
    except ConfigError:
        return
    try:
        theirs = read_by_dvc(text.replace("\r\n", "\n").replace("\r", "\n"))
    except ParseError:
        return  # DVC says so itself, before any stage runs
    assert repr(ours) == repr(theirs)  # of 1, 1.0 and True too, which are equal


def test_the_comparison_with_dvc_would_see_a_difference(tmp_path: Path) -> None:
    import yaml

    text = "k: no\n"
    assert repr(yaml.safe_load(text)) != repr(read_by_dvc(text)) == repr(load(tmp_path, text))


@pytest.mark.parametrize(
    "value",
    [
        "!!omap [a: 1]",
        "!!int 1:30",
        "!!int '010'",
        "!!int ''",
        "!!float",
        "!!bool maybe",
        "!!set {a}",
        "!!binary aGk=",
        "!!python/object/apply:os.system [exit]",
        "!!python/name:os.system",
        "!own 3",
        "!<tag:yaml.org,2002:int> 3",
        "! 12",
        "[1, !!str 2]",
        "{a: !!null x}",
        "{!!str a: 1}",
    ],
)
def test_a_tag_is_refused_with_its_place(tmp_path: Path, value: str) -> None:
    error = refusal(tmp_path, f"first: 1\nsecond: {value}\n")
    assert "the tag !" in error.what
    assert "line 2" in error.where
    assert error.fix == "remove the tag"


@pytest.mark.parametrize("character", ["\x85", "\u2028", "\u2029"])
def test_line_ends_that_only_some_readers_know_are_refused(tmp_path: Path, character: str) -> None:
    error = refusal(tmp_path, f"a: 1\nb: x{character}c: 2\n")
    assert f"U+{ord(character):04X}" in error.what
    assert error.where.endswith("line 2")
    escaped = f'a: "\\u{ord(character):04x}"\n'
    assert load(tmp_path, escaped) == {"a": character} == read_by_dvc(escaped)


def test_a_file_cannot_ask_for_another_yaml_version(tmp_path: Path) -> None:
    text = "%YAML 1.1\n---\na: yes\n"
    pure, compiled = (YAML(typ="safe", pure=pure).load(text) for pure in (True, False))
    assert (pure, compiled) == ({"a": True}, {"a": "yes"})  # why it matters: DVC uses either
    assert "version" in refusal(tmp_path, text).what
    assert load(tmp_path, "---\na: yes\n") == {"a": "yes"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: 2\na: 3\n", 3),
        ("a: 1\n'a': 2\n", 2),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", 4),
        ("a: 1\nb: {c: [{d: 1, d: 2}]}\n", 2),
    ],
)
def test_a_key_given_twice_is_refused_at_its_second_place(tmp_path: Path, text: str, line: int) -> None:
    error = refusal(tmp_path, text)
    assert "given twice" in error.what
    assert f"line {line}," in error.where


def test_the_same_key_in_two_mappings_is_no_duplicate(tmp_path: Path) -> None:
    assert load(tmp_path, "a: {x: 1}\nb: {x: 1}\n") == {"a": {"x": 1}, "b": {"x": 1}}


def test_a_merge_key_is_refused_and_quoted_is_a_key_like_any_other(tmp_path: Path) -> None:
    assert "'<<'" in refusal(tmp_path, "a: &a {x: 1}\nb:\n  <<: *a\n").what
    assert load(tmp_path, "a: {'<<': {x: 1}}\n") == {"a": {"<<": {"x": 1}}}


@pytest.mark.parametrize("key", ["1", "1.5", "true", "null", "~", "[a]", "{a: 1}", "[]"])
def test_a_key_that_is_not_text_is_refused(tmp_path: Path, key: str) -> None:
    assert "is not text" in refusal(tmp_path, f"a:\n  ? {key}\n  : 1\n").what
    assert load(tmp_path, f"'{key}': 1\n") == {key: 1}


@pytest.mark.parametrize("text", ["&a [*a]", "&a {b: *a}", "&a [[[*a]]]", "[&a {b: [1, *a]}]"])
def test_a_value_that_contains_itself_is_refused(tmp_path: Path, text: str) -> None:
    assert "contains itself" in refusal(tmp_path, f"k: {text}\n").what


def test_a_modest_alias_is_the_value_it_stands_for(tmp_path: Path) -> None:
    text = "a: &a [1, x]\nb: [*a, *a]\n"
    assert load(tmp_path, text) == {"a": [1, "x"], "b": [[1, "x"], [1, "x"]]} == read_by_dvc(text)


def bomb(levels: int) -> str:
    """`levels` lists, each of ten times the one before."""
    lines = ["n0: &n0 [x]"]
    lines += [f"n{i}: &n{i} [{', '.join([f'*n{i - 1}'] * 10)}]" for i in range(1, levels + 1)]
    return "\n".join(lines) + "\n"


def test_an_alias_bomb_is_refused_at_once_and_a_firecracker_is_not(tmp_path: Path) -> None:
    assert len(load(tmp_path, bomb(3))) == 4
    start = time.process_time()
    assert "expands to more than" in refusal(tmp_path, bomb(300)).what
    assert time.process_time() - start < 5


def test_a_bomb_as_a_key_is_not_even_printed(tmp_path: Path) -> None:
    error = refusal(tmp_path, bomb(4) + "? *n4\n: 1\n")
    assert "is not text" in error.what
    assert len(str(error)) < 500


@pytest.mark.parametrize(
    "text", ["[" * 20_000, "k: " + "{a: " * 20_000, "\n".join(" " * i + "a:" for i in range(1200))]
)
def test_bottomless_nesting_is_refused(tmp_path: Path, text: str) -> None:
    refusal(tmp_path, text)


def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigError, match="larger than"):
        strict_yaml.load_mapping(Path("/dev/zero"))


@pytest.mark.parametrize(
    "content",
    [
        b"a: \xff\n",
        "a: 1\n".encode("utf-16"),
        "a: é\n".encode("latin-1"),
        b"a: \xed\xa0\x80\n",
        b"a: \x00\n",
        b"a: \x1b\n",
    ],
)
def test_what_is_not_printable_utf_8_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        strict_yaml.load_mapping(path)
    assert str(path) in caught.value.where
    assert caught.value.fix
    path.write_bytes("a: é\n".encode())
    assert strict_yaml.load_mapping(path) == {"a": "é"}


@pytest.mark.parametrize(
    "text", ["", "\n", "# only a comment\n", "---\n", "~\n", "3\n", "text\n", "- a\n", "[]\n"]
)
def test_a_file_without_a_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert "not a mapping" in refusal(tmp_path, text).what


def test_a_second_document_is_refused(tmp_path: Path) -> None:
    assert "line 2" in refusal(tmp_path, "a: 1\n---\nb: 2\n").where


def test_a_character_beyond_unicode_is_refused(tmp_path: Path) -> None:
    assert "cannot read" in refusal(tmp_path, 'k: "\\UFFFFFFFF"\n').what  # found by fuzzing: OverflowError


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        strict_yaml.load_mapping(tmp_path)


@pytest.mark.parametrize(
    "text", [r'a: "\ud83d\ude00"', r'"\ud83d\ude00": 1', r'a: ["\udc80"]', r'"a\uD800": 1']
)
def test_half_a_character_is_refused(tmp_path: Path, text: str) -> None:
    r"""A JSON writer escapes an emoji as two halves; YAML has \U0001F600 for it."""
    assert "halves of characters" in refusal(tmp_path, text).what  # found by fuzzing: no way to print it
    assert load(tmp_path, r'a: "\U0001F600"') == {"a": "😀"}
