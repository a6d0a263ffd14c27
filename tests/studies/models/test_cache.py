"""Other backbones in the cache folder: fetched, embedded and measured once, and said before it is costly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch

from clipcifar.backbone.towers import Backbone
from clipcifar.core import files, run_lock
from clipcifar.core.errors import DataError, EnvironmentFault
from clipcifar.datasets import array_sets
from clipcifar.embeddings import extract as extraction
from clipcifar.store.dataset import Prepared, PreparedSplit, read_dataset, write_dataset
from clipcifar.store.model import (
    CONFIG_FILE,
    UNFINISHED,
    WEIGHTS_FILE,
    ModelDescription,
    ModelParams,
    check_weights,
    config_sha256,
)
from clipcifar.store.prompt_set import PromptSet
from clipcifar.studies.models import cache as backbone_cache
from clipcifar.studies.models.cost import images_per_second, size, time
from clipcifar.weights.resolve import fetch_model
from tests.support.backbones import local, shifted
from tests.support.made import EMBED

HERE: dict[str, Any] = {"repository": Path(), "own": Path("data/embeddings/images")}


@pytest.fixture
def digits(tmp_path: Path) -> Prepared:
    found = array_sets.load_digits()
    parts = [PreparedSplit(p.images[:60], p.labels[:60], p.ids[:60]) for p in (found.train, found.test)]
    write_dataset(
        tmp_path / "d.h5", parts[0], parts[1], class_names=found.class_names, name="digits", max_per_class=0
    )
    return read_dataset(tmp_path / "d.h5")


def test_a_local_model_is_read_again_and_a_random_one_is_not(
    tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shifted(tiny_clip, tmp_path / "m", seed=1)
    first, place = backbone_cache.resolved(local(folder))
    assert first.weights_sha256 == files.file_sha256(folder / WEIGHTS_FILE)
    shutil.rmtree(folder)
    shifted(tiny_clip, folder, seed=2)
    second, again = backbone_cache.resolved(local(folder))
    assert again == place
    assert second.weights_sha256 == files.file_sha256(folder / WEIGHTS_FILE) != first.weights_sha256
    asked: list[ModelParams] = []
    real = fetch_model

    def counted(model: ModelParams, target: Path) -> Any:
        asked.append(model)
        return real(replace(local(folder)), target)

    monkeypatch.setattr(backbone_cache, "fetch_model", counted)
    tag = ModelParams("ViT-B-32", "laion2b_s34b_b79k", "data/none", 0, False)
    one, two = backbone_cache.resolved(tag), backbone_cache.resolved(tag)
    assert one == two
    assert len(asked) == 1
    (one[1] / WEIGHTS_FILE).write_bytes(b"damaged")
    assert backbone_cache.resolved(tag) == one
    assert len(asked) == 2


def test_images_are_embedded_once_per_model_and_again_when_the_file_is_damaged(
    tiny_clip: Path, digits: Prepared, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real = extraction.extract

    def counted(*arguments: Any, **named_arguments: Any) -> Any:
        if named_arguments["what"] == "embedding images":  # and not some of them a second time
            calls.append("extract")
        return real(*arguments, **named_arguments)

    monkeypatch.setattr(extraction, "extract", counted)
    a, b = (
        backbone_cache.resolved(local(f)) for f in (tiny_clip, shifted(tiny_clip, tmp_path / "b", seed=1))
    )
    found = [
        backbone_cache.embedded(digits, *model, photographs=tmp_path, embed=EMBED, **HERE)
        for model in (a, b, a, b)
    ]
    assert len(calls) == 2
    np.testing.assert_array_equal(found[0].test.embeddings, found[2].test.embeddings)
    assert not np.allclose(found[0].test.embeddings, found[1].test.embeddings, atol=1e-3)
    assert found[0].train.ids == digits.train.ids
    for path in (own_cache / "embeddings").glob("*/part-*.h5"):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    again = backbone_cache.embedded(digits, *a, photographs=tmp_path, embed=EMBED, **HERE)
    assert len(calls) == 3
    np.testing.assert_array_equal(again.test.embeddings, found[0].test.embeddings)
    assert not list((own_cache / "extraction").glob("*/*.shard"))


def test_a_speed_is_measured_once_and_then_remembered(
    tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = backbone_cache.resolved(local(tiny_clip))
    clock = iter([0.0, 0.7, 1.0, 1.2, 2.0, 2.4])  # batches of 0.7, 0.2 and 0.4 seconds
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    assert images_per_second(*model, embed=EMBED) == pytest.approx(16 / 0.2)
    assert images_per_second(*model, embed=EMBED) == pytest.approx(16 / 0.2)
    with pytest.raises(StopIteration):
        images_per_second(*model, embed=replace(EMBED, batch_size=8))


def test_sizes_are_those_of_the_loaded_model(tiny_clip: Path) -> None:
    model, folder = backbone_cache.resolved(local(tiny_clip))
    state = safetensors.torch.load_file(tiny_clip / WEIGHTS_FILE)
    assert size(model, folder, dimension=32) == {
        "n_parameters": sum(tensor.numel() for tensor in state.values()),
        "n_image_parameters": sum(t.numel() for name, t in state.items() if name.startswith("visual.")),
        "n_bytes": (tiny_clip / WEIGHTS_FILE).stat().st_size,
        "input_height": 32,
        "input_width": 32,
        "dimension": 32,
    }


def test_the_classifier_is_the_zero_shot_stages(tiny_clip: Path, tmp_path: Path) -> None:
    model, folder = backbone_cache.resolved(local(tiny_clip))
    said = PromptSet(
        "p",
        class_index=[0, 0, 1],
        sentences=["a cat", "one cat", "a dog"],
        template_index=[0, 1, 0],
        templates=["a {classname}", "one {classname}"],
        origins=["templates[0]", "templates[1]", "templates[0]"],
    )
    found = backbone_cache.zero_shot_classifier(
        said, model, folder, class_names=["cat", "dog"], embed=EMBED, repository=tmp_path
    )
    rows = backbone_cache.SentenceEmbedder(model, folder, EMBED).embed_rows(said.sentences)
    mean = (rows[0] + rows[1]) / np.linalg.norm(rows[0] + rows[1])
    np.testing.assert_allclose(found, np.stack([mean, rows[2]]), atol=1e-6)


@pytest.fixture
def foreign(tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose text tower is of another library, which is not asked here: nothing is loaded."""
    folder = tmp_path / "foreign"
    shutil.copytree(tiny_clip, folder)
    (folder / "text" / "config.json").parent.mkdir()
    (folder / "text" / "config.json").write_text("{}")
    config = json.loads((folder / CONFIG_FILE).read_text())
    config["model_cfg"]["text_cfg"]["hf_model_name"] = str(folder / "text")
    (folder / CONFIG_FILE).write_text(json.dumps(config))

    def described(model: ModelParams, resolved: Any, made: Path) -> ModelDescription:
        assert (named(made) / "config.json").is_file()  # as the library would read it
        weights, config = files.file_sha256(made / WEIGHTS_FILE), config_sha256(made)
        return ModelDescription(model.name, "", resolved.source, "", weights, config, {}, 32, 1.0, [])

    monkeypatch.setattr(backbone_cache, "describe", described)
    monkeypatch.setattr("clipcifar.weights.resolve._require_working", lambda config, folder: None)
    return folder


def named(folder: Path) -> Path:
    """Where the config of a model says that its text tower's config lies."""
    return Path(json.loads((folder / CONFIG_FILE).read_text())["model_cfg"]["text_cfg"]["hf_model_name"])


def test_a_text_tower_of_another_library_is_named_where_it_stays(foreign: Path) -> None:
    found, place = backbone_cache.resolved(local(foreign))
    assert named(place) == place / "text_config"
    assert (named(place) / "config.json").read_text() == "{}"
    check_weights(found, place)
    assert backbone_cache.resolved(local(foreign)) == (found, place)  # nor is it another model next time


def test_a_model_of_a_cache_folder_that_moved_is_made_again(
    foreign: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fetch_model
    monkeypatch.setattr(backbone_cache, "fetch_model", lambda _, target: real(local(foreign), target))
    tag = ModelParams("ViT-B-32", "laion2b_s34b_b79k", "data/none", 0, False)
    before, _ = backbone_cache.resolved(tag)
    own_cache.rename(tmp_path / "moved")
    monkeypatch.setenv("CLIPCIFAR_CACHE", str(tmp_path / "moved"))
    after, place = backbone_cache.resolved(tag)
    assert tmp_path / "moved" in place.parents
    assert named(place) == place / "text_config"
    assert replace(after, config_sha256="") == replace(before, config_sha256="")


def test_a_model_that_cannot_be_fetched_leaves_the_one_before_and_no_litter(
    tiny_clip: Path, tmp_path: Path, own_cache: Path
) -> None:
    folder = shifted(tiny_clip, tmp_path / "m", seed=1)
    _, place = backbone_cache.resolved(local(folder))
    before = (place / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(b"damaged")
    with pytest.raises(DataError):
        backbone_cache.resolved(local(folder))
    assert (place / WEIGHTS_FILE).read_bytes() == before
    assert not [path for path in (own_cache / "models").iterdir() if path.is_dir() and path != place.parent]


def test_what_a_killed_run_had_fetched_is_cleared_away_and_a_second_run_waits(tiny_clip: Path) -> None:
    _, place = backbone_cache.resolved(local(tiny_clip))
    scratch = place.parent.with_name(UNFINISHED + place.parent.name)
    (scratch / "weights").mkdir(parents=True)
    (scratch / "weights" / "vocab.json").write_text("of a run that was killed")
    _, again = backbone_cache.resolved(local(tiny_clip))
    assert again == place
    assert not (place / "vocab.json").exists()
    assert not scratch.exists()
    with (
        run_lock.alone(scratch, doing="testing"),
        pytest.raises(EnvironmentFault, match="another run is fetching the same model") as caught,
    ):
        backbone_cache.resolved(local(tiny_clip))
    assert caught.value.exit_code == 4


def _no_space(_: Path, patch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    patch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1))


def _no_folder(cache: Path, patch: pytest.MonkeyPatch) -> None:
    (cache / "embeddings").write_text("in the way")


@pytest.mark.parametrize(
    ("harm", "said"),
    [(_no_space, r"needs 0\.1 MB, has 0\.0 MB at .*embeddings"), (_no_folder, "cannot use .*embeddings")],
)
def test_room_and_folder_are_asked_for_before_the_model_is_loaded(
    harm: Callable[[Path, pytest.MonkeyPatch], None],
    said: str,
    tiny_clip: Path,
    digits: Prepared,
    tmp_path: Path,
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = backbone_cache.resolved(local(tiny_clip))
    monkeypatch.setattr(Backbone, "load", lambda *_: pytest.fail("the model was loaded"))
    harm(own_cache, monkeypatch)
    with pytest.raises(EnvironmentFault, match=said) as caught:
        backbone_cache.embedded(digits, *model, photographs=tmp_path, embed=EMBED, **HERE)
    assert caught.value.exit_code == 4


def test_a_run_at_the_same_embeddings_is_named_before_the_model_is_loaded(
    tiny_clip: Path, digits: Prepared, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = backbone_cache.resolved(local(tiny_clip))
    backbone_cache.embedded(digits, *model, photographs=tmp_path, embed=EMBED, **HERE)
    (made,) = (own_cache / "embeddings").iterdir()
    shutil.rmtree(made)
    monkeypatch.setattr(Backbone, "load", lambda *_: pytest.fail("the model was loaded"))
    with (
        run_lock.alone(own_cache / "extraction" / made.name, doing="testing"),
        pytest.raises(EnvironmentFault, match="another run is extracting the same embeddings"),
    ):
        backbone_cache.embedded(digits, *model, photographs=tmp_path, embed=EMBED, **HERE)
