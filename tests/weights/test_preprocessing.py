"""How weights without a tag take images is agreed on, stated or asked for, never guessed, and is said."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
from open_clip import factory, pretrained

from clipcifar.core import params
from clipcifar.core.errors import ConfigError, DataError
from clipcifar.core.params import NO_PATH
from clipcifar.store.model import CONFIG_FILE, WEIGHTS_FILE, ModelDescription, ModelParams
from clipcifar.studies.models.params import ModelsParams, listed
from clipcifar.weights import preprocessing
from clipcifar.weights.registry import tags_of
from stages import fetch_model
from tests.conftest import TINY_CONFIG

OPENAI = open_clip.transform.PreprocessCfg()
MINE = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear", "resize_mode": "squash"}
OTHER_THAN_OPENAI = 51


def _own(name: str, preprocess: str | dict[str, Any] | None = None) -> ModelParams:
    return ModelParams(name, None, "/w/own.safetensors", 0, False, preprocess)


def _settled(name: str, preprocess: str | dict[str, Any] | None = None) -> tuple[dict[str, Any], str]:
    return preprocessing.of_architecture(_own(name, preprocess))


def _refused(name: str, preprocess: str | dict[str, Any] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        _settled(name, preprocess)
    assert caught.value.where == "params.yaml: model.preprocess"
    return caught.value


@pytest.fixture
def tiny(tiny_clip: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """The miniature as an architecture of open_clip's, and its tags."""
    tags: dict[str, dict[str, Any]] = {}
    monkeypatch.setitem(factory._MODEL_CONFIGS, "tiny", TINY_CONFIG["model_cfg"])
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny", tags)
    return tags


def _run(model: ModelParams, folder: Path) -> ModelDescription:
    fetch_model.main({"model": asdict(model)}, folder / "w", folder / "m.json")
    return ModelDescription.read(folder / "m.json")


# Weights of one's own for an architecture


def test_what_all_known_weights_of_an_architecture_agree_on_is_taken() -> None:
    stated, remark = _settled("ViT-B-16-SigLIP")
    assert stated == {
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "interpolation": "bicubic",
        "resize_mode": "squash",
    }
    assert remark == "preprocessing: that of ViT-B-16-SigLIP's known weights (webli)"
    assert _settled("MobileCLIP-S1")[0]["mean"] == (0.0, 0.0, 0.0)
    assert _settled("ViT-L-14-CLIPA")[0]["interpolation"] == "bilinear"
    assert _settled("ViT-B/32")[0]["mean"] == OPENAI.mean


def test_every_architecture_gives_what_its_tags_say_or_asks() -> None:
    """The 51 that would have had OpenAI's without a word, the 3 that disagree, the 29 that have no tag."""
    other, asked = 0, []
    for name in open_clip.list_models():
        try:
            stated, _ = _settled(name)
        except ConfigError:
            asked.append(name)
            continue
        for tag in tags_of(name).values():
            assert all(stated[key] == tag[key] for key in preprocessing.KEYS), name
        other += any(stated[key] != getattr(OPENAI, key) for key in preprocessing.KEYS)
    without = [name for name in open_clip.list_models() if not tags_of(name)]
    assert set(asked) == {*without, "ViT-L-14", "ViT-H-14", "ViT-H-14-quickgelu"}
    assert (other, len(without)) == (OTHER_THAN_OPENAI, 29)


def test_where_known_weights_disagree_or_there_are_none_it_is_asked_for() -> None:
    error = _refused("ViT-L-14")
    assert "2 kinds of preprocessing" in error.what
    assert "; laion2b_s32b_b82k" in error.what
    assert "<architecture>:<tag>" in error.fix
    assert "knows no weights of ViT-S-16" in _refused("ViT-S-16").what


@pytest.mark.parametrize(
    ("asked", "mean"),
    [
        ("laion2b_s32b_b82k", 0.5),
        ("LAION2B-s32b-b82k", 0.5),
        ("openai", OPENAI.mean[0]),
        ("MobileCLIP-S1:datacompdr", 0.0),
        (MINE, 0.1),
    ],
)
def test_what_was_asked_for_is_taken_and_said(asked: str | dict[str, Any], mean: float) -> None:
    stated, remark = _settled("ViT-L-14", asked)
    assert stated["mean"][0] == mean
    assert set(stated) == set(preprocessing.KEYS)
    assert remark.startswith("preprocessing: model.preprocess, ")
    if isinstance(asked, str):
        assert remark.endswith(asked)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("opnai", "did you mean openai"),
        ("ViT-B-16-SigLIP:web", "did you mean webli"),
        ("nothing:openai", "no weights 'nothing:openai'"),
        ("", "no weights ''"),
        ({}, "'mean' is missing"),
        ({**MINE, "crop": 1}, "unknown key 'crop'"),
        ({**MINE, "std": [0.0, 1.0, 1.0]}, "not positive"),
        ({**MINE, "mean": [float("nan")] * 3}, "finite"),
        ({**MINE, "mean": "abc"}, "cannot be read"),
        ({**MINE, "resize_mode": "crop"}, "resize mode crop"),
    ],
)
def test_what_cannot_be_meant_is_refused(asked: str | dict[str, Any], message: str) -> None:
    assert message in str(_refused("ViT-L-14", asked))


def test_the_page_and_the_last_line_say_what_was_taken(
    tiny: dict[str, Any], tiny_clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny["first"] = {**MINE, "hf_hub": "org/a/"}
    tiny["second"] = {**MINE, "hf_hub": "org/b/"}
    file = str(tiny_clip / WEIGHTS_FILE)
    description = _run(ModelParams("tiny", None, file, 0, False), tmp_path)
    remark = "preprocessing: that of tiny's known weights (first, second)"
    assert description.remarks == [remark]
    assert capsys.readouterr().out == f"tiny: {file}; {remark}\n"
    for key, value in MINE.items():
        assert description.preprocess[key] == value
    tiny["second"]["mean"] = (0.5, 0.5, 0.5)
    with pytest.raises(ConfigError, match="2 kinds"):
        _run(ModelParams("tiny", None, file, 0, False), tmp_path)
    tagged = _run(ModelParams("tiny", "second", file, 0, False), tmp_path)
    assert (tagged.preprocess["mean"], tagged.remarks) == ([0.5] * 3, [])


def test_a_tag_is_not_overruled(tiny: dict[str, Any], tiny_clip: Path, tmp_path: Path) -> None:
    tiny["first"] = {**MINE, "hf_hub": "org/a/"}
    model = ModelParams("tiny", "first", str(tiny_clip / WEIGHTS_FILE), 0, False, {**MINE, "std": [1, 1, 1]})
    with pytest.raises(ConfigError, match=re.escape("std [0.4, 0.5, 0.6], model.preprocess [1, 1, 1]")):
        _run(model, tmp_path)
    assert _run(replace(model, preprocess=MINE), tmp_path).preprocess["std"] == MINE["std"]


def test_random_weights_have_open_clips_default_and_it_is_said(tiny: dict[str, Any], tmp_path: Path) -> None:
    description = _run(ModelParams("tiny", None, NO_PATH, 3, False), tmp_path)
    assert description.preprocess["mean"] == list(OPENAI.mean)
    assert description.remarks == ["preprocessing: open_clip's default, for random weights"]
    asked = _run(ModelParams("tiny", None, NO_PATH, 3, False, MINE), tmp_path)
    assert asked.preprocess["mean"] == MINE["mean"]


# A folder or a repository in open_clip's format


def _folder(tiny_clip: Path, folder: Path, stated: dict[str, Any] | None) -> ModelParams:
    folder.mkdir()
    config = {**TINY_CONFIG, "preprocess_cfg": stated}
    if stated is None:
        del config["preprocess_cfg"]
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    (folder / WEIGHTS_FILE).write_bytes((tiny_clip / WEIGHTS_FILE).read_bytes())
    return ModelParams(f"local-dir:{folder}", None, str(folder), 0, False)


def test_a_config_that_states_all_leaves_nothing_to_say(tiny_clip: Path, tmp_path: Path) -> None:
    assert _run(_folder(tiny_clip, tmp_path / "f", MINE), tmp_path).remarks == []


@pytest.mark.parametrize(
    ("stated", "lacking"),
    [
        ({"mean": MINE["mean"]}, "no std"),
        ({"std": MINE["std"], "mean": None}, "no mean"),
    ],
)
def test_a_config_with_mean_or_std_alone_asks_for_the_other(
    tiny_clip: Path, tmp_path: Path, stated: dict[str, Any] | None, lacking: str
) -> None:
    model = _folder(tiny_clip, tmp_path / "f", stated)
    with pytest.raises(ConfigError, match=lacking) as caught:
        _run(model, tmp_path)
    assert caught.value.where == "params.yaml: model.preprocess"
    assert not (tmp_path / "m.json").exists()
    given = {**MINE, **{key: value for key, value in (stated or {}).items() if value is not None}}
    description = _run(replace(model, preprocess=given), tmp_path)
    assert {key: description.preprocess[key] for key in given} == given
    assert "of model.preprocess" in description.remarks[0]


@pytest.mark.parametrize("stated", [None, {}, {"interpolation": "bilinear"}])
def test_what_a_config_does_not_state_is_the_default_of_its_format_and_that_is_said(
    tiny_clip: Path, tmp_path: Path, stated: dict[str, Any] | None
) -> None:
    description = _run(_folder(tiny_clip, tmp_path / "f", stated), tmp_path)
    assert tuple(description.preprocess["mean"]) == open_clip.OPENAI_DATASET_MEAN
    assert tuple(description.preprocess["std"]) == open_clip.OPENAI_DATASET_STD
    left = ", ".join(
        key for key in ("mean", "std", "interpolation", "resize_mode") if key not in (stated or {})
    )
    assert description.remarks == [
        f"preprocessing: {left} as open_clip's default, where its config states none"
    ]


def test_a_config_of_an_older_open_clip_states_mean_and_std_alone(tiny_clip: Path, tmp_path: Path) -> None:
    stated = {key: MINE[key] for key in ("mean", "std")}
    description = _run(_folder(tiny_clip, tmp_path / "f", stated), tmp_path)
    assert (description.preprocess["interpolation"], description.preprocess["resize_mode"]) == (
        "bicubic",
        "shortest",
    )
    assert description.remarks == [
        "preprocessing: interpolation, resize_mode as open_clip's default, where its config states none"
    ]


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"interpolation": "lanczos"}, "lanczos interpolation"),
        ({"mean": [0, 0, 0], "std": [0, 1, 1]}, "not positive"),
    ],
)
def test_preprocessing_that_cannot_be_done_is_told_of_the_config_and_not_of_the_weights(
    stated: dict[str, Any], said: str, tiny_clip: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said) as caught:
        _run(_folder(tiny_clip, tmp_path / "f", stated), tmp_path)
    assert CONFIG_FILE in caught.value.where
    assert "weights" not in caught.value.fix


def test_a_config_is_not_overruled(tiny_clip: Path, tmp_path: Path) -> None:
    model = replace(_folder(tiny_clip, tmp_path / "f", MINE), preprocess="ViT-B-16-SigLIP:webli")
    with pytest.raises(ConfigError, match=r"states .*, model\.preprocess"):
        _run(model, tmp_path)


# The setting


SECTION = {"name": "ViT-L-14", "pretrained": None, "path": "x", "seed": 0, "allow_pickle": False}


def test_the_setting_may_be_left_out_and_is_read_strictly() -> None:
    def read(**more: Any) -> str | dict[str, Any] | None:
        return params.read({"model": {**SECTION, **more}}, "model", ModelParams).preprocess

    assert read() is None
    assert read(preprocess=None) is None
    assert read(preprocess="openai") == "openai"
    assert read(preprocess=MINE) == MINE
    for wrong in (3, True, [0.5]):
        with pytest.raises(ConfigError, match=r"model\.preprocess is .*, expected"):
            read(preprocess=wrong)
    with pytest.raises(ConfigError, match="'seed' is missing"):
        params.read({"model": {"name": "x", "pretrained": None, "path": "x"}}, "model", ModelParams)


def test_each_model_of_a_list_has_its_own(tmp_path: Path) -> None:
    own = ModelParams("ViT-L-14", None, "x", 0, False, "openai")
    entry = {"name": "ViT-L-14", "pretrained": None, "path": "y"}
    section = ModelsParams({"a": entry, "b": {**entry, "preprocess": MINE}})
    models = listed(section, own)
    assert (models["a"].preprocess, models["b"].preprocess) == (None, MINE)
