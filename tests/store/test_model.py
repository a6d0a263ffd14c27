"""What data/model.json says, and what holds an embeddings file to it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from clipcifar.core import params
from clipcifar.core.errors import ConfigError, DataError
from clipcifar.store.embeddings import SHARED_FIELDS
from clipcifar.store.model import (
    RANDOM,
    ModelDescription,
    ModelParams,
    check_described,
    check_requested,
    embedding_dim,
    known_as,
    pretrained_label,
)

SECTION: dict[str, Any] = {
    "name": "ViT-B-32",
    "pretrained": "laion2b_s34b_b79k",
    "path": "data/none",
    "seed": 0,
    "allow_pickle": False,
}
DESCRIBED = ModelDescription(
    model="ViT-B-32",
    pretrained="laion2b_s34b_b79k",
    source="hf-hub:org/name",
    revision="c" * 40,
    weights_sha256="0123456789abcdef" * 4,
    config_sha256="f" * 64,
    preprocess={"size": [224, 224], "mean": [0.1, 0.2, 0.3], "interpolation": "bicubic"},
    context_length=77,
    logit_scale=100.00000762939453,
    libraries=[],
)


def test_a_description_comes_back_as_it_was_written(tmp_path: Path) -> None:
    DESCRIBED.write(tmp_path / "model.json")
    assert ModelDescription.read(tmp_path / "model.json") == DESCRIBED


@pytest.mark.parametrize(
    "content",
    [
        {key: value for key, value in dataclasses.asdict(DESCRIBED).items() if key != "config_sha256"},
        {**dataclasses.asdict(DESCRIBED), "surprise": 1},
        [],
        "text",
        None,
    ],
    ids=["a key is missing", "a key too many", "list", "text", "null"],
)
def test_another_json_file_is_not_taken_for_a_description(tmp_path: Path, content: Any) -> None:
    (tmp_path / "model.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="not a model description") as caught:
        ModelDescription.read(tmp_path / "model.json")
    assert caught.value.where == str(tmp_path / "model.json")


def test_a_missing_or_damaged_description_is_bad_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no nope\.json"):
        ModelDescription.read(tmp_path / "nope.json")
    DESCRIBED.write(tmp_path / "model.json")
    whole = (tmp_path / "model.json").read_bytes()
    (tmp_path / "model.json").write_bytes(whole[:-5])
    with pytest.raises(DataError, match="cannot read"):
        ModelDescription.read(tmp_path / "model.json")


def test_the_attributes_hold_every_field_that_files_are_compared_by() -> None:
    """What `store` compares is described here, save the class names, which are the dataset's."""
    assert set(DESCRIBED.attributes()) == set(SHARED_FIELDS) - {"class_names"}


def test_preprocessing_is_compared_whatever_the_order_of_its_keys() -> None:
    turned = dict(reversed(list(DESCRIBED.preprocess.items())))
    assert list(turned) != list(DESCRIBED.preprocess)
    check_described(dataclasses.replace(DESCRIBED, preprocess=turned).attributes(), DESCRIBED)


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("model", "ViT-L-14"),
        ("pretrained", ""),
        ("weights_sha256", "a" * 64),
        ("config_sha256", "a" * 64),
        ("preprocess", {**DESCRIBED.preprocess, "mean": [0.1, 0.2, 0.30001]}),
        ("logit_scale", 100.0),
    ],
)
def test_a_file_of_another_model_is_refused_by_the_field(field: str, other: Any) -> None:
    check_described(DESCRIBED.attributes(), DESCRIBED)
    changed = dataclasses.replace(DESCRIBED, **{field: other})
    with pytest.raises(DataError, match=f"made with {field} ") as caught:
        check_described(changed.attributes(), DESCRIBED)
    for side in (changed, DESCRIBED):
        assert repr(side.attributes()[field]) in caught.value.what


@pytest.mark.parametrize("field", ["source", "revision", "context_length"])
def test_where_the_same_weights_came_from_makes_no_other_model(field: str) -> None:
    other = 64 if field == "context_length" else "elsewhere"
    changed = dataclasses.replace(DESCRIBED, **{field: other})
    check_described(changed.attributes(), DESCRIBED)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"name": "ViT-L-14"}, "'ViT-L-14'"),
        ({"pretrained": "openai"}, "'openai'"),
        ({"pretrained": None}, "''"),
    ],
)
def test_a_file_of_a_model_that_is_not_asked_for_is_refused(change: dict[str, Any], expected: str) -> None:
    check_requested(DESCRIBED.attributes(), ModelParams(**SECTION))
    with pytest.raises(DataError, match=f"params.yaml asks for {expected}"):
        check_requested(DESCRIBED.attributes(), ModelParams(**{**SECTION, **change}))


def test_a_file_that_says_nothing_of_its_model_is_refused() -> None:
    with pytest.raises(DataError, match="model None"):
        check_requested({}, ModelParams(**SECTION))
    with pytest.raises(DataError, match="made with model None"):
        check_described({}, DESCRIBED)


def test_no_tag_is_the_empty_text() -> None:
    assert (pretrained_label(None), pretrained_label("openai")) == ("", "openai")


def test_the_label_tells_random_weights_and_which_weights() -> None:
    assert DESCRIBED.label == "ViT-B-32 laion2b_s34b_b79k, weights sha256 0123456789ab"
    random = dataclasses.replace(DESCRIBED, pretrained="", source=f"{RANDOM}, seed 7")
    assert random.label == f"ViT-B-32, {RANDOM}, seed 7, weights sha256 0123456789ab"


def test_a_description_of_before_there_were_remarks_is_read(tmp_path: Path) -> None:
    older = {key: value for key, value in dataclasses.asdict(DESCRIBED).items() if key != "remarks"}
    (tmp_path / "model.json").write_text(json.dumps(older))
    assert ModelDescription.read(tmp_path / "model.json") == DESCRIBED
    said = dataclasses.replace(DESCRIBED, remarks=["preprocessing: x"])
    assert said.attributes() == DESCRIBED.attributes()  # words make no other embeddings


def test_a_name_and_tag_are_known_in_every_spelling() -> None:
    known = ("ViT-B-32", "laion2b_s34b_b79k")
    for name, tag in (known, ("ViT-B/32", "LAION2B-S34B-B79K")):
        assert known_as(name, tag) == known
    for name in ("local-dir:/a/b-c", "hf-hub:Org/Name"):
        assert known_as(name, "") == (name, "")


def test_the_section_is_read_strictly() -> None:
    assert params.read({"model": SECTION}, "model", ModelParams) == ModelParams(**SECTION)
    wrong: list[tuple[str, Any]] = [
        ("name", 32),
        ("pretrained", 0),
        ("seed", -1),
        ("seed", True),
        ("seed", 2**63),
        ("allow_pickle", "yes"),
        ("path", None),
    ]
    for key, value in wrong:
        with pytest.raises(ConfigError) as caught:
            params.read({"model": {**SECTION, key: value}}, "model", ModelParams)
        assert f"model.{key}" in str(caught.value)


def test_the_embedding_dimension_is_read_from_the_config_alone(tiny_clip: Path, tmp_path: Path) -> None:
    assert embedding_dim(tiny_clip) == 32
    for content in ("{}", '{"model_cfg": []}', '{"model_cfg": {"embed_dim": "many"}}', "{"):
        (tmp_path / "open_clip_config.json").write_text(content)
        with pytest.raises(DataError) as caught:
            embedding_dim(tmp_path)
        assert str(tmp_path) in caught.value.where
