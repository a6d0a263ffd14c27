"""Sets whose sentences or class names lie in files, and reports that name all faults of all sets at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from clipcifar.core.errors import ConfigError
from clipcifar.core.faults import LISTED
from clipcifar.prompts import entries
from clipcifar.prompts.params import PromptsParams
from clipcifar.prompts.sets import expand_set, expand_sets, notes
from clipcifar.store.prompt_set import PromptSet, origin_in_project
from tests.support import stage_runs

NAMES = ["cat", "hot_dog", "eel"]
OWN = {"template_mode": "per_class", "dataset": "imagefolder", "sentences_file": "own.json"}
NAMED = {
    "template_mode": "shared",
    "dataset": "imagefolder",
    "templates": ["a {classname}."],
    "class_names_file": "names.json",
}


def write(folder: Path, name: str, content: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def expanded(folder: Path, values: dict[str, Any], names: list[str] | None = None) -> PromptSet:
    result = expand_set("s", values, class_names=names or NAMES, dataset="imagefolder", folder=folder)
    assert result is not None
    return result


def refused(folder: Path, values: dict[str, Any]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        expanded(folder, values)
    return caught.value


def test_sentences_of_a_file_are_those_of_params_yaml(tmp_path: Path) -> None:
    content = {
        "eel": ["an [eel|eel larva]."],
        "hot dog": ["a {classname} in a bun."],
        "cat": ["a cat.", "it."],
    }
    write(tmp_path, "own.json", content)
    read = expanded(tmp_path, OWN)
    assert read.sentences == ["a cat.", "it.", "a hot dog in a bun.", "an eel.", "an eel larva."]
    assert read.class_index == [0, 0, 1, 2, 2]
    assert read.origins == [
        f"data/sentences/own.json: {at}" for at in ("cat[0]", "cat[1]", "hot_dog[0]", *["eel[0]"] * 2)
    ]
    inline = {**OWN, "sentences": content}
    del inline["sentences_file"]
    written = expanded(tmp_path, inline)
    assert (written.sentences, written.class_index) == (read.sentences, read.class_index)
    assert origin_in_project("s", read.origins[0]) == "data/sentences/own.json: cat[0]"
    assert origin_in_project("s", written.origins[0]) == "params.yaml: prompts.sets.s.sentences.cat[0]"


def test_names_of_a_file_serve_as_those_of_params_yaml(tmp_path: Path) -> None:
    write(tmp_path, "names.json", {"hot dog": ["frankfurter", "wiener"], "cat": "house cat"})
    assert expanded(tmp_path, NAMED).sentences == ["a house cat.", "a frankfurter.", "a wiener.", "a eel."]
    write(tmp_path, "names.json", ["house cat", ["frankfurter", "wiener"], "moray"])
    assert expanded(tmp_path, NAMED).sentences == ["a house cat.", "a frankfurter.", "a wiener.", "a moray."]


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        ({"cta": "x"}, "data/sentences/names.json", "unknown class 'cta'"),
        ({"cat": [" "]}, "data/sentences/names.json: cat[0]", "the sentence is empty"),
        ({"cat": 3}, "data/sentences/names.json: cat[0]", "must be text"),
        ({"cat": []}, "data/sentences/names.json: cat", "at least one entry"),
        ({"cat": "eel"}, "data/sentences/names.json", "two classes read alike: 'cat' and 'eel'"),
        (["cat"], "data/sentences/names.json", "1 name for 3 classes"),
        ("cat", "data/sentences/names.json", "expected a mapping of class to name"),
    ],
)
def test_names_of_a_file_are_checked_and_the_place_is_named(
    tmp_path: Path, content: Any, where: str, what: str
) -> None:
    write(tmp_path, "names.json", content)
    error = refused(tmp_path, NAMED)
    assert error.where == where
    assert what in error.what


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({**OWN, "sentences": {}}, "both sentences and sentences_file are given"),
        ({**NAMED, "class_names": {}}, "both class_names and class_names_file are given"),
        ({key: value for key, value in OWN.items() if key != "dataset"}, "the key 'dataset' is missing"),
        ({key: value for key, value in NAMED.items() if key != "dataset"}, "the key 'dataset' is missing"),
        ({key: value for key, value in OWN.items() if key != "sentences_file"}, "'sentences' is missing"),
        ({**OWN, "class_names_file": "names.json"}, "unknown key 'class_names_file'"),
        ({**NAMED, "sentences_file": "own.json"}, "unknown key 'sentences_file'"),
    ],
)
def test_a_set_has_one_source_for_each_thing(tmp_path: Path, values: dict[str, Any], expected: str) -> None:
    assert expected in refused(tmp_path, values).what


def test_the_file_of_a_set_for_another_dataset_is_not_looked_for(tmp_path: Path) -> None:
    values = {**OWN, "dataset": "pets", "sentences_file": "absent.json"}
    assert expand_set("s", values, class_names=NAMES, dataset="imagefolder", folder=tmp_path) is None


def test_what_a_language_model_wrote_is_told_in_one_report(tmp_path: Path) -> None:
    """Of every kind, in two sets and in the name of the active one."""
    content = {
        "cat": ["a cat.", " ", "a <end_of_text> cat", "a\u0007b", "a {cat}", "a [cat", 7],
        "eel": [],
        "hotdog": ["a sausage."],
    }
    write(tmp_path, "own.json", content)
    sets = {"own": OWN, "photo": {"template_mode": "shared", "templates": ["a photo.", "a {classnam}."]}}
    with pytest.raises(ConfigError) as caught:
        expand_sets(
            PromptsParams("phot", sets, 1000), class_names=NAMES, dataset="imagefolder", folder=tmp_path
        )
    lines = [line.strip() for line in str(caught.value).splitlines()]
    file = "data/sentences/own.json: "
    beginnings = [
        "12 faults in the prompt sets:",
        "params.yaml: prompts.active: there is no prompt set 'phot'; did you mean photo?",
        f"{file}unknown class 'hotdog'; did you mean hot_dog?",
        f"{file}cat[1]: the sentence is empty",
        f"{file}cat[3]: the sentence holds a control character",
        f"{file}cat[4]: only {{classname}} is substituted",
        f"{file}cat[5]: square brackets are unbalanced",
        f"{file}cat[6]: a sentence must be text, found 7; put it in quotes",
        f"{file}the class 'hot_dog' has no sentences; add hot_dog:",
        f"{file}eel: expected a list with at least one entry",
        f"{file}cat[2]: 'a <end_of_text> cat' holds a mark of the tokenizer; remove it",
        "params.yaml: prompts.sets.photo.templates[0]: the template 'a photo.' does not name the class",
        "params.yaml: prompts.sets.photo.templates[1]: only {classname} is substituted",
        "where: params.yaml, data/sentences/own.json",
    ]
    assert [line[: len(start)] for line, start in zip(lines, beginnings, strict=False)] == beginnings


def test_of_a_thousand_wrong_classes_the_first_are_listed_and_only_for_those_a_likeness_is_sought(
    tmp_path: Path,
) -> None:
    """Which is a search through all class names, each."""
    write(tmp_path, "own.json", {f"n{i:08}": ["x"] for i in range(1000)})
    with mock.patch.object(entries, "suggestion", return_value="look") as sought:
        error = refused(tmp_path, OWN)
    assert error.what.startswith("1,003 faults in the prompt set s:\n")
    assert error.what.count("\n") == LISTED + 1
    assert error.what.count("unknown class") == LISTED - 3
    assert error.what.count("has no sentences") == 3
    assert error.what.endswith("and 983 more")
    assert sought.call_count == LISTED


def test_duplicates_and_shared_sentences_are_said_by_the_stage(tmp_path: Path) -> None:
    write(tmp_path / "data", "x", 0)
    write(
        tmp_path / "data" / "sentences",
        "own.json",
        {"cat": ["a cat.", "a  cat.", "a pet."], "eel": ["a pet.", "an eel."]},
    )
    write(tmp_path, "classes.json", {"dataset": "imagefolder", "class_names": ["cat", "eel"]})
    stage_runs.write_params(
        tmp_path, {"dataset": {"name": "imagefolder"}, "prompts": {"active": "own", "sets": {"own": OWN}}}
    )
    from stages import prompts

    ended = stage_runs.run(prompts.main, "classes.json", "prompts", folder=tmp_path)
    assert (ended.code, ended.error) == (0, "")
    assert "own: 1 sentence left out, which its class says already\n" in ended.output
    assert "own: 1 sentence is said of several classes, such as 'a pet.' (cat, eel)\n" in ended.output
    written = json.loads((tmp_path / "prompts" / "own.json").read_text())
    assert written["sentences"] == ["a cat.", "a pet.", "a pet.", "an eel."]
    assert PromptSet.from_json(written).num_repeated == 1


def test_a_set_that_says_each_thing_once_has_no_notes(tmp_path: Path) -> None:
    write(tmp_path, "own.json", {name: [f"a {name}."] for name in NAMES})
    assert notes(expanded(tmp_path, OWN), NAMES) == []
