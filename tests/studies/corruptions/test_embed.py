"""The stage `embed_corruptions` on a miniature CLIP: what it asks for before the model is loaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clipcifar.backbone.towers import Backbone
from clipcifar.core import run_lock
from clipcifar.core.errors import ClipcifarError, ConfigError, DataError, EnvironmentFault
from clipcifar.store.dataset import PreparedSplit, write_dataset
from clipcifar.store.model import ModelDescription
from clipcifar.studies.corruptions.images.suite import described_preprocess
from stages import fetch_model
from studies.corruptions import embed
from tests.support import finetuning

NAMES = ("darkness", "contrast")
SEVERITIES, PER_CLASS, DIM = (2, 5), 3, 32
ROWS = 4 * DIM * len(SEVERITIES) * PER_CLASS * len(finetuning.NAMES)  # bytes of one corruption


class Loaded(Exception):
    """The model would have been loaded now."""


@pytest.fixture(scope="module")
def made(tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    split = PreparedSplit(*finetuning.pixels(12, seed=0), [f"test/{i:03d}" for i in range(12)])
    write_dataset(
        folder / "dataset.h5", split, split, class_names=finetuning.NAMES, name="digits", max_per_class=0
    )
    fetch_model.main(finetuning.settings(tiny_clip), folder / "weights", folder / "model.json")
    return folder


def run(folder: Path, clip: Path, out: Path, **corruptions: Any) -> None:
    asked = {
        "names": list(NAMES),
        "severities": list(SEVERITIES),
        "path": "data/none",
        "max_per_class": PER_CLASS,
        "published_per_class": None,
        "seed": 0,
        "naming": {},
        **corruptions,
    }
    inputs = (folder / name for name in ("raw", "dataset.h5", "weights", "model.json"))
    embed.main({**finetuning.settings(clip), "corruptions": asked}, *inputs, out)


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        raise Loaded

    monkeypatch.setattr(Backbone, "load", load)


def disk(monkeypatch: pytest.MonkeyPatch, *, free: int) -> None:
    usage = shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)


def test_what_the_description_says_of_the_input_is_what_the_model_says(made: Path) -> None:
    described = ModelDescription.read(made / "model.json")
    assert described_preprocess(described) == Backbone.load(made / "weights", torch.device("cpu")).preprocess
    described.preprocess.pop("fill")
    with pytest.raises(DataError, match="preprocessing cannot be read"):
        described_preprocess(described)


def test_room_is_asked_for_all_corruptions_before_the_model_is_loaded(
    made: Path, tiny_clip: Path, tmp_path: Path, unloaded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scratch and output are on one disk: every row twice."""
    disk(monkeypatch, free=4 * ROWS)
    with pytest.raises(Loaded):
        run(made, tiny_clip, tmp_path / "out")
    disk(monkeypatch, free=4 * ROWS - 1)
    with pytest.raises(EnvironmentFault, match=r"needs 0\.1 MB, has 0\.0 MB at") as caught:
        run(made, tiny_clip, tmp_path / "out")
    assert caught.value.where == str(tmp_path / "out")
    assert caught.value.exit_code == 4


def test_finished_corruptions_need_no_more_room_in_the_scratch_folder(
    made: Path, tiny_clip: Path, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "nobody_waits", lambda: True)  # the DVC that started it has died
    run(made, tiny_clip, tmp_path / "out", names=[NAMES[0]])
    (shard,) = own_cache.rglob("*.shard")
    assert shard.stat().st_size > ROWS
    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "load", lambda *_: pytest.fail("the model was loaded"))
        disk(patch, free=3 * ROWS - 1)
        with pytest.raises(EnvironmentFault, match="needs"):
            run(made, tiny_clip, tmp_path / "out")
    before = (tmp_path / "out" / f"{NAMES[0]}.h5").read_bytes()
    run(made, tiny_clip, tmp_path / "out")
    assert (tmp_path / "out" / f"{NAMES[0]}.h5").read_bytes() == before
    assert len(list(own_cache.rglob("*.shard"))) == 2
    monkeypatch.setattr(Backbone, "load", lambda *_: (_ for _ in ()).throw(Loaded))
    disk(monkeypatch, free=2 * ROWS)
    with pytest.raises(Loaded):
        run(made, tiny_clip, tmp_path / "out")


def test_how_the_datasets_own_embeddings_are_stored_embeds_no_corruption_again(
    made: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(made, tiny_clip, tmp_path / "out")
    settings = finetuning.settings(tiny_clip)
    half = {**settings, "embed": {**settings["embed"], "storage": "float16"}}
    monkeypatch.setattr(finetuning, "settings", lambda _: half)
    run(made, tiny_clip, tmp_path / "half")
    for name in NAMES:
        file = f"{name}.h5"
        assert (tmp_path / "half" / file).read_bytes() == (tmp_path / "out" / file).read_bytes()


def test_another_run_at_one_of_the_corruptions_is_named_before_the_model_is_loaded(
    made: Path, tiny_clip: Path, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "nobody_waits", lambda: True)
    run(made, tiny_clip, tmp_path / "out", names=[NAMES[1]])
    (shard,) = own_cache.rglob("*.shard")
    monkeypatch.setattr(Backbone, "load", lambda *_: pytest.fail("the model was loaded"))
    with (
        run_lock.alone(shard.parent, doing="testing"),
        pytest.raises(EnvironmentFault, match="another run is extracting the same embeddings"),
    ):
        run(made, tiny_clip, tmp_path / "out")


def _output_in_the_way(out: Path, cache: Path) -> dict[str, Any]:
    out.write_text("in the way")
    return {}


def _cache_in_the_way(out: Path, cache: Path) -> dict[str, Any]:
    (cache / "extraction").write_text("in the way")
    return {}


def _published_for_another_dataset(out: Path, cache: Path) -> dict[str, Any]:
    return {"path": "data/demo"}


@pytest.mark.parametrize(
    ("harm", "error", "said"),
    [
        (_output_in_the_way, EnvironmentFault, "cannot use .*out"),
        (_cache_in_the_way, EnvironmentFault, "cannot use .*extraction"),
        (_published_for_another_dataset, ConfigError, "CIFAR-10-C is of cifar10, the dataset is digits"),
    ],
)
def test_what_cannot_work_is_refused_before_the_model_is_loaded(
    harm: Callable[[Path, Path], dict[str, Any]],
    error: type[ClipcifarError],
    said: str,
    made: Path,
    tiny_clip: Path,
    tmp_path: Path,
    own_cache: Path,
    unloaded: None,
) -> None:
    changes = harm(tmp_path / "out", own_cache)
    with pytest.raises(error, match=said):
        run(made, tiny_clip, tmp_path / "out", **changes)
