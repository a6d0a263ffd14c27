"""Files of sentences and of names: where they may lie, how strictly they are read, what they speak of."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from clipcifar.core import class_files, strict_yaml
from clipcifar.core.errors import ConfigError
from clipcifar.core.faults import Faults

WHERE = "params.yaml: prompts.sets.s.sentences_file"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "project" / "data" / "sentences"
    folder.mkdir(parents=True)
    return folder


def read(folder: Path, name: object) -> Any:
    return class_files.read(name, where=WHERE, folder=folder)[1]


def refused(folder: Path, name: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(folder, name)
    return caught.value


@pytest.mark.parametrize("name", ["a.json", "a.yaml", "a.yml", "deep/a.json", "A.JSON"])
def test_json_and_yaml_give_the_same_by_either_way_of_naming_the_file(folder: Path, name: str) -> None:
    content = {"cat": ["a cat: one.", "café"], "hot dog": ["null"]}
    (folder / "deep").mkdir()
    (folder / name).write_text(json.dumps(content, ensure_ascii=name != "a.json"), encoding="utf-8")
    assert read(folder, name) == content
    assert class_files.read(f"data/sentences/{name}", where=WHERE, folder=folder) == (
        f"data/sentences/{name}",
        content,
    )


def test_a_misspelt_file_is_told_the_nearest_that_is_there(folder: Path) -> None:
    (folder / "deep").mkdir()
    for name in ("deep/scenes.json", "other.yaml"):
        (folder / name).write_text("{}")
    (folder / "seens.json").symlink_to("nowhere.json")
    fix = refused(folder, "deep/scens.json").fix
    assert fix.startswith("did you mean deep/scenes.json? Else put it into data/sentences/, which has deep/")
    for far in ("seens.json", "zzz.yml"):  # a link that leads nowhere is no file to be meant
        assert "did you mean seens.json" not in refused(folder, far).fix
    assert refused(folder, "zzz.yml").fix == (
        "put it into data/sentences/, which has deep/scenes.json, other.yaml"
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/etc/passwd.json", "does not lie in data/sentences/"),
        ("../secret.json", "does not lie in data/sentences/"),
        ("data/sentences/../../secret.json", "does not lie in data/sentences/"),
        ("deep/../../../secret.json", "does not lie in data/sentences/"),
        ("..\\secret.json", "does not lie in data/sentences/"),
        ("\x1b[2J.json", "does not lie in data/sentences/"),
        ("secret.txt", "neither JSON nor YAML"),
        ("secret", "neither JSON nor YAML"),
        ("absent.json", "there is no file data/sentences/absent.json"),
        ("folder.json", "there is no file data/sentences/folder.json"),
        ("dead.json", "there is no file"),
        ("loop.json", "there is no file"),
        ("out.json", "a link that leads out of data/sentences/"),
        ("out/secret.json", "a link that leads out of data/sentences/"),
        ("", "expected the name of a file"),
        (3, "expected the name of a file"),
        (None, "expected the name of a file"),
        (["a.json"], "expected the name of a file"),
    ],
)
def test_nothing_but_a_file_of_that_folder_is_read(folder: Path, name: object, expected: str) -> None:
    (folder.parents[1] / "secret.json").write_text('{"cat": ["secret"]}')
    (folder / "folder.json").mkdir()
    (folder / "here.json").write_text("{}")
    (folder / "out.json").symlink_to(folder.parents[1] / "secret.json")
    (folder / "out").symlink_to(folder.parents[1])
    (folder / "dead.json").symlink_to("nowhere.json")
    (folder / "loop.json").symlink_to("loop.json")
    error = refused(folder, name)
    assert expected in error.what
    assert error.where == WHERE
    assert error.fix
    if "no file" in expected:
        assert "here.json" in error.fix


@pytest.mark.parametrize(
    "filed",
    [f"files/md5/ab/{'c' * 30}", f"ab/{'c' * 30}", f"blobs/{'d' * 40}"],
    ids=["DVC 3", "DVC 2", "hub"],
)
def test_links_within_the_folder_and_into_a_cache_are_read(folder: Path, filed: str) -> None:
    (folder / "real.json").write_text('{"cat": ["x"]}')
    (folder / "same.json").symlink_to("real.json")
    cached = folder.parents[2] / "cache" / filed
    cached.parent.mkdir(parents=True)
    cached.write_text('{"dog": ["y"]}')
    (folder / "kept.json").symlink_to(cached)
    assert (read(folder, "same.json"), read(folder, "kept.json")) == ({"cat": ["x"]}, {"dog": ["y"]})


JSON_FAULTS = {
    '{"cat": ["a"], "cat": ["b"]}': "the key 'cat' is given twice",
    '{"cat": ["a"],}': "not valid JSON",
    "": "not valid JSON",
    "[" * 100_000: "cannot read",
}
YAML_FAULTS = {
    "cat: [a]\ncat: [b]\n": "the key 'cat' is given twice",
    "cat: &x [a]\ndog: *x\n": "anchors and aliases are not read here",
    "cat: !!python/object:os.system [a]\n": "the tag",
    "%YAML 1.1\n---\ncat: [a]\n": "the file asks for a YAML version",
    "cat: [a]\n---\ndog: [b]\n": "more than one document",
    "1: [a]\n": "the key '1' is not text",
    "cat: [0x1f]\n": "means different things",
    "cat: {a: {b: c}}\n": "nest too deep",
    "[" * 100_000: "nest too deep",
    "cat: [a": "not valid YAML",
    "cat: [a\u2028b]": "ends a line for some YAML readers only",
    "cat:\n<<<<<<< HEAD\n- a\n=======\n- b\n>>>>>>> x\n": "git has merged two versions",
}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [("f.json", *fault) for fault in JSON_FAULTS.items()]
    + [("f.yaml", *fault) for fault in YAML_FAULTS.items()],
)
def test_files_are_read_as_strictly_as_params_yaml(folder: Path, name: str, text: str, expected: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")
    error = refused(folder, name)
    assert expected in error.what
    assert name in error.where


def test_a_sentence_that_yaml_takes_for_a_mapping_is_told_to_go_in_quotes(folder: Path) -> None:
    (folder / "f.yaml").write_text("cat:\n  - a cat: on a mat\n")
    assert "one with a colon goes in quotes" in refused(folder, "f.yaml").fix


@pytest.mark.parametrize("name", ["f.json", "f.yaml"])
def test_what_is_not_utf8_or_too_large_is_refused(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / name).write_bytes(b'{"cat": ["caf\xe9"]}')
    error = refused(folder, name)
    assert "cannot read" in error.what
    assert "UTF-8" in error.fix
    monkeypatch.setattr(class_files, "MAX_CHARACTERS", 10)
    (folder / name).write_text('{"cat": ["a cat"]}')
    assert "is larger than 10 characters" in refused(folder, name).what


def test_a_byte_order_mark_is_no_fault(folder: Path) -> None:
    for name in ("f.json", "f.yaml"):
        (folder / name).write_text('{"cat": ["a"]}', encoding="utf-8-sig")
        assert read(folder, name) == {"cat": ["a"]}


TEXTS = [
    "a: [b, 'c d', \"e\", 3, -1.5, true, null, ~]",
    "- a\n- no\n- 'null'\n",
    "a: 1e3\nb: ''\nc:\n",
    "x",
    "",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("loader", ["CSafeLoader", "SafeLoader"])
def test_the_fast_reader_means_what_the_one_of_params_yaml_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, loader: str
) -> None:
    """With libyaml and without."""
    if loader == "SafeLoader":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    path = tmp_path / "f.yaml"
    path.write_text(text)
    fast = strict_yaml.load_lists(path, max_characters=1000)
    path.write_text("all:" + ("\n  " + text.replace("\n", "\n  ") if text else ""))
    assert fast == strict_yaml.load_mapping(path)["all"]


def test_many_sentences_are_read_by_libyaml_where_there_is_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which takes a hundredth of the time: the reader in Python is not touched."""
    if not hasattr(yaml, "CSafeLoader"):
        pytest.skip("PyYAML without libyaml")
    monkeypatch.delattr(yaml.scanner.Scanner, "fetch_more_tokens")
    (folder / "f.yaml").write_text("cat: [a, b]\n")
    assert read(folder, "f.yaml") == {"cat": ["a", "b"]}
    with pytest.raises(AttributeError):  # the control: that is what params.yaml goes through
        strict_yaml.load_mapping(folder / "f.yaml")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("hot_dog", "hot dog"),
        ("hot  dog ", "hot dog"),
        ("cafe\u0301", "café"),
        ("hot\u200bdog", "hotdog"),
        ("\ufeffcat", "cat"),
        ("hot\u00a0dog", "hot dog"),
    ],
)
def test_what_reads_alike(one: str, other: str) -> None:
    assert class_files.reading(one) == class_files.reading(other)


@pytest.mark.parametrize(("one", "other"), [("hot-dog", "hot dog"), ("Turkey", "turkey"), ("café", "cafe")])
def test_what_reads_otherwise(one: str, other: str) -> None:
    assert class_files.reading(one) != class_files.reading(other)


def test_keys_find_their_class_by_name_and_by_reading() -> None:
    faults = Faults()
    content = {"hot dog": 1, "cafe\u0301": 2, "tench": 3}
    known = ["café", "hot_dog", "eel"]
    assert class_files.by_class(content, known, where="f", faults=faults) == (
        {"café": 2, "hot_dog": 1},
        ["tench"],
    )
    faults.raise_all("nothing")
    class_files.by_class({"hot_dog": 1, "hot dog": 2}, known, where="f", faults=faults)
    with pytest.raises(ConfigError, match="'hot_dog' and 'hot dog' are both the class 'hot_dog'"):
        faults.raise_all("f")


def test_a_pipe_is_no_file(folder: Path) -> None:
    os.mkfifo(folder / "f.json")
    assert "there is no file" in refused(folder, "f.json").what
