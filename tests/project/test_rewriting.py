"""`dvc exp run -S` writes all of params.yaml anew: every value but the one that was set must survive it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import YAMLFileCorruptedError, load_yaml

from clipcifar.core import params, strict_yaml
from clipcifar.core.errors import ConfigError
from clipcifar.project.rewriting import spoiled_sections
from clipcifar.prompts.save import edit_params, overlay
from tests.support.import_closure import ROOT

COMMITTED = (ROOT / "params.yaml").read_text()
LONG = "a photo of [a|the] {classname}, " + "and of many more things, " * 12 + "'all' of them: #1."
SET = (  # a key, as it is typed after -S, and the value that it means
    ("dataset.max_per_class", "100", 100),
    ("split.seed", "4", 4),
    ("split.val_fraction", "1e-3", 0.001),
    ("model.name", "local-dir:data/demo/clip", "local-dir:data/demo/clip"),
    ("model.pretrained", "null", None),
    ("embed.workers", "2", 2),
    ("prompts.active", "wide", "wide"),
    ("prompts.sets.photo.templates", '["a bad photo of a {classname}."]', ["a bad photo of a {classname}."]),
    ("prompts.sets.cifar18.templates", '["[a|the] {classname}: #1","no"]', ["[a|the] {classname}: #1", "no"]),
    ("prompts.sets.wide.templates", f'["{LONG}"]', [LONG]),
    ("prompts.sets.scenes.sentences.cat", '["a: {b}, [c]"]', ["a: {b}, [c]"]),
    ("search.by", "balanced_accuracy", "balanced_accuracy"),
    ("gda.alphas", "[0, 1e-3]", [0, 0.001]),
    ("linear_probe.c_grid", "[1e-3,1,1000]", [0.001, 1, 1000]),
    ("mlp_probe.learning_rate", "0.01", 0.01),
    ("projection.device", "cpu", "cpu"),
    ("report.title", "'Our birds: #1, no [x]'", "Our birds: #1, no [x]"),
    ("few_shot.shots", "[1,2]", [1, 2]),
    ("ensemble.steps", "3", 3),
    ("models.others.b16.pretrained", "null", None),
    ("models.others.b16.name", "hf-hub:org/name", "hf-hub:org/name"),
    ("label_errors.folds", "3", 3),
    ("near_duplicates.threshold", "0.98", 0.98),
    ("corruptions.names", "[fog,snow]", ["fog", "snow"]),
    ("corruptions.naming.fog", "['a {classname}: in fog']", ["a {classname}: in fog"]),
    ("finetune.learning_rate", "1e-5", 0.00001),
    ("finetune.checkpoint_activations", "true", True),
)
ADDED = (
    ("+prompts.sets.mine.template_mode=shared", '+prompts.sets.mine.templates=["a tiny {classname}."]'),
    ('+prompts.sets.mine={template_mode: shared, templates: ["a tiny {classname}."]}',),
)


def at(settings: Any, key: str) -> tuple[dict[str, Any], str]:
    """The mapping that holds a dotted key, and the key's last part."""
    *way, last = key.split(".")
    for name in way:
        settings = settings[name]
    return settings, last


def check_rewritten(path: Path, overrides: list[str], expected: Any) -> None:
    apply_overrides(str(path), overrides)
    for values in (strict_yaml.load_mapping(path), load_yaml(str(path))):
        assert repr(values) == repr(expected)  # of 1, 1.0 and True too, which are equal


def test_every_section_is_among_them() -> None:
    assert {key.partition(".")[0] for key, _, _ in SET} == set(params.SECTIONS)


@pytest.mark.parametrize(("key", "typed", "value"), SET)
def test_one_value_is_set_and_all_others_survive(tmp_path: Path, key: str, typed: str, value: Any) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED)
    expected = strict_yaml.load_mapping(path)
    mapping, last = at(expected, key)
    assert mapping[last] != value
    mapping[last] = value
    check_rewritten(path, [f"{key}={typed}"], expected)


@pytest.mark.parametrize("typed", ADDED)
def test_a_set_is_added_and_all_others_survive(tmp_path: Path, typed: tuple[str, ...]) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED)
    expected = strict_yaml.load_mapping(path)
    expected["prompts"]["sets"]["mine"] = {"template_mode": "shared", "templates": ["a tiny {classname}."]}
    check_rewritten(path, list(typed), expected)
    expected["split"]["seed"] = 4
    check_rewritten(path, ["split.seed=4"], expected)  # what DVC wrote itself


def test_what_our_own_editor_wrote_survives(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED)
    sentences = {"cat": ["re:cat", "- no", "#1", "null", LONG], "10:30": ['"a" ??', "a\ttab", "1e-3"]}
    added = {"prompts": {"sets": {"mine": {"sentences": sentences, "note": None, "share": 1e-5}}}}
    demo = yaml.safe_load((ROOT / "data/demo/params.yaml").read_text())
    edit_params(path, lambda document: [overlay(document, changes) for changes in (demo, added)])
    expected = strict_yaml.load_mapping(path)
    assert expected["prompts"]["sets"]["mine"] == added["prompts"]["sets"]["mine"]
    assert expected["model"] == {**strict_yaml.load_mapping(ROOT / "params.yaml")["model"], **demo["model"]}
    check_rewritten(path, ["split.seed=0"], copy.deepcopy(expected))
    assert spoiled_sections(path) == []


@pytest.mark.parametrize(
    "mapping",
    [
        "{name: 'local-dir:data/clip', pretrained: null, path: data/clip}",  # DVC drops the quotes
        "{name: '???', pretrained: null, path: data/none}",  # which OmegaConf takes for a value to come
        "{name: 'a${b}', pretrained: null, path: data/none}",  # and this for the value of b
    ],
)
def test_a_form_that_does_not_survive_is_told_with_its_section(tmp_path: Path, mapping: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED.replace("  others:", f"  others:\n    mine: {mapping}", 1))
    strict_yaml.load_mapping(path)
    assert spoiled_sections(path) == ["models"]
    path.write_text(COMMITTED)
    assert spoiled_sections(path) == []


def test_quotes_inside_braces_are_what_dvc_loses(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("others: {mine: {name: 'local-dir:data/clip'}}\nseed: 0\n")
    apply_overrides(str(path), ["seed=1"])
    with pytest.raises(YAMLFileCorruptedError):
        load_yaml(str(path))


def test_our_own_editor_writes_nothing_that_dvc_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("sets: {photo: {cat: [a cat]}}\n")
    with pytest.raises(ConfigError, match="one key a line"):
        edit_params(path, lambda document: document["sets"]["photo"].update(dog=["re:dog"]))
    assert path.read_text() == "sets: {photo: {cat: [a cat]}}\n"
    edit_params(path, lambda document: document["sets"]["photo"].update(dog=["a dog"]))
    assert load_yaml(str(path)) == {"sets": {"photo": {"cat": ["a cat"], "dog": ["a dog"]}}}


@pytest.mark.parametrize("break_", ["\n", "\r\n"])
def test_what_is_added_below_a_list_stands_above_what_parts_it_from_the_next_section(
    tmp_path: Path, break_: str
) -> None:
    path, lines = tmp_path / "params.yaml", ["sets:", "  photo:", "    - a {classname}", "    # and no more"]
    below = ["", "# Another matter", "", "search: 1", ""]
    path.write_bytes(break_.join([*lines, *below]).encode())
    for name in ("mine", "yours"):
        edit_params(path, lambda document, name=name: document["sets"].update({name: ["the {classname}"]}))
    added = ["  mine:", "    - the {classname}", "  yours:", "    - the {classname}"]
    assert path.read_bytes().decode().split(break_) == [*lines, *added, *below]


def test_blank_lines_that_are_text_stay_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("sets:\n  photo: |+\n    a\n\n\nsearch: 1\n")
    edit_params(path, lambda document: document["sets"].update(mine=["b"]))
    assert load_yaml(str(path)) == {"sets": {"photo": "a\n\n\n", "mine": ["b"]}, "search": 1}
