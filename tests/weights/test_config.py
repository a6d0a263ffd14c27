"""A config says nothing that would make a library fetch or run what we have not seen."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import pytest

from clipcifar.core.errors import DataError
from clipcifar.weights.config import read_config
from tests.conftest import TINY_CONFIG


def _written(folder: Path, side: str, values: dict[str, Any]) -> Path:
    config: dict[str, Any] = deepcopy(TINY_CONFIG)
    config["model_cfg"][side].update(values)
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "config.json"


def test_a_config_is_read_as_it_is(tmp_path: Path) -> None:
    assert read_config(_written(tmp_path, "text_cfg", {})) == TINY_CONFIG


@pytest.mark.parametrize(
    ("side", "values", "part"),
    [
        ("text_cfg", {"tokenizer_kwargs": {"clean": "x", "trust_remote_code": True}}, "trust_remote_code"),
        ("text_cfg", {"tokenizer_kwargs": ["trust_remote_code"]}, "trust_remote_code"),
        ("text_cfg", {"tokenizer_kwargs": {"subfolder": ".."}}, "subfolder"),
        ("vision_cfg", {"timm_model_name": "hf-hub:org/name"}, "'hf-hub:org/name'"),
        ("vision_cfg", {"timm_model_name": "org/name"}, "'org/name'"),
        ("vision_cfg", {"timm_model_name": ["vit"]}, "not text"),
        ("text_cfg", {"hf_model_name": {"a": 1}}, "not text"),
        ("text_cfg", {"hf_tokenizer_name": 3}, "not text"),
    ],
)
def test_what_would_reach_other_repositories_or_their_code_is_refused(
    tmp_path: Path, side: str, values: dict[str, Any], part: str
) -> None:
    path = _written(tmp_path, side, values)
    with pytest.raises(DataError) as caught:
        read_config(path)
    assert part in caught.value.what
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("side", "values"),
    [
        ("text_cfg", {"tokenizer_kwargs": {"clean": "canonicalize", "strip_sep_token": True}}),
        ("text_cfg", {"tokenizer_kwargs": {"clean": "lower", "reduction_mask": "random"}}),
        ("text_cfg", {"hf_model_name": "org/words", "hf_tokenizer_name": "org/words"}),
        ("vision_cfg", {"timm_model_name": "vit_base_patch16_siglip_384"}),
    ],
)
def test_what_known_models_need_is_allowed(tmp_path: Path, side: str, values: dict[str, Any]) -> None:
    assert read_config(_written(tmp_path, side, values))["model_cfg"][side].items() >= values.items()


def test_every_architecture_that_open_clip_brings_would_be_allowed(tmp_path: Path) -> None:
    for name in open_clip.list_models():
        (tmp_path / "config.json").write_text(json.dumps({"model_cfg": open_clip.get_model_config(name)}))
        read_config(tmp_path / "config.json")
