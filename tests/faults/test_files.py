"""The files of a real run: flipped bits, truncations, and files of another run in their place."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipcifar.store import container
from clipcifar.store.images import read_images
from tests.support import faults
from tests.support.faults import IMAGES, MANIFEST, PART
from tests.support.stage_runs import Ended
from tests.support.waiting import PATIENCE_S
from tests.support.workspace import ROOT, Workspace

pytestmark = pytest.mark.pipeline

# Flips of the image embeddings and of every other file by night, 2,000 of each by `make faults`; and by day.
FLIPS, OTHER_FLIPS = 2000, int(os.environ.get("CLIPCIFAR_TEST_FLIPS", "300"))
FEW_FLIPS = 100
# Every checked file of a run, and what reads it.
READERS = {
    PART: "part",
    MANIFEST: "manifest",
    "data/embeddings/texts/photo.h5": "texts",
    "data/embeddings/pool.h5": "texts",
    "data/dataset.h5": "dataset",
    "data/splits.h5": "splits",
    "data/predictions/zero_shot.h5": "predictions",
    "data/predictions/prompt_sets.h5": "set predictions",
    "data/heads/linear_probe.h5": "head",
    "data/heads/projection.h5": "head",
}


@pytest.mark.parametrize(
    ("path", "flips"),
    [
        *((path, FEW_FLIPS) for path in READERS),
        *(
            pytest.param(path, FLIPS if path == PART else OTHER_FLIPS, marks=pytest.mark.nightly)
            for path in READERS
        ),
    ],
)
def test_no_bit_flip_and_no_truncation_of_a_real_file_gives_wrong_data_or_a_crash(
    little: Workspace, tmp_path: Path, path: str, flips: int
) -> None:
    command = [sys.executable, "-m", "tests.support.mutants", str(little.folder / path)]
    done = subprocess.run(
        [*command, str(tmp_path / "mutant"), READERS[path], str(flips)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    last = done.stdout.splitlines()[-1]
    assert done.returncode == 0, (last, done.stderr)
    num_refused, num_same, num_lengths = map(int, last.removeprefix("done ").split())
    print(f"{path}: {num_refused} flips refused, {num_same} without effect, {num_lengths} lengths refused")
    assert num_refused + num_same == flips
    assert num_refused > flips / 10  # the rest are bytes that HDF5 does not use


# Each file, the stage that a user would run next, and an array of the file.
CONSUMERS = {
    PART: ("linear_probe", "embeddings"),
    MANIFEST: ("linear_probe", "train/labels"),
    "data/embeddings/active/photo.h5": ("zero_shot", "embeddings"),
    "data/embeddings/texts/photo.h5": ("prompt_sets", "embeddings"),
    "data/embeddings/pool.h5": ("rank_prompts", "embeddings"),
    "data/dataset.h5": ("embed_images", "test/content"),
    "data/splits.h5": ("mlp_probe", "is_val"),
    "data/predictions/zero_shot.h5": ("report", "scores"),
    "data/predictions/prompt_sets.h5": ("report", "scores/photo"),
}


@pytest.mark.parametrize("path", CONSUMERS)
def test_a_flipped_bit_stops_the_stage_that_reads_the_file_and_names_it(
    little: Workspace, tmp_path: Path, path: str
) -> None:
    workspace = little.copy(tmp_path / "w")
    stage, name = CONSUMERS[path]
    file = workspace.folder / path
    whole = file.read_bytes()
    data = container.read(file, kind=KINDS[path]).arrays[name].tobytes()
    # Larger arrays are stored in chunks: the first bytes are together in any case.
    at = whole.index(data[: min(len(data), 32)])
    file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    ended = faults.run_here(workspace, stage)
    assert ended.code == 3, ended
    assert f"where: {path}" in ended.error
    assert "run `clipcifar doctor`, which names the command" in ended.error
    assert ended.output == ""


KINDS = {
    PART: "part of image embeddings",
    MANIFEST: "image embeddings",
    "data/embeddings/active/photo.h5": "text embeddings",
    "data/embeddings/texts/photo.h5": "text embeddings",
    "data/embeddings/pool.h5": "text embeddings",
    "data/dataset.h5": "dataset",
    "data/splits.h5": "splits",
    "data/predictions/zero_shot.h5": "predictions",
    "data/predictions/prompt_sets.h5": "prompt set predictions",
}


def another_model(workspace: Workspace, tiny_clip: Path) -> None:
    model = {"name": f"local-dir:{tiny_clip}", "path": str(tiny_clip)}
    workspace.edit(lambda settings: settings["model"].update(model))


def other_preprocessing(workspace: Workspace, tiny_clip: Path) -> None:
    config = workspace.folder / "data/demo/clip/open_clip_config.json"
    content = json.loads(config.read_text())
    content["preprocess_cfg"]["mean"] = [0.5, 0.5, 0.5]
    config.write_text(json.dumps(content))


def fewer_images(workspace: Workspace, tiny_clip: Path) -> None:
    workspace.edit(lambda settings: settings["dataset"].update(max_per_class=5))


def another_class_list(workspace: Workspace, tiny_clip: Path) -> None:
    """The same ten photographs' classes under other names."""
    classes = json.loads((workspace.folder / "data/classes.json").read_text())
    classes["class_names"][0] = "nought"
    (workspace.folder / "data/classes.json").write_text(json.dumps(classes))


@pytest.fixture(scope="module")
def made_otherwise(little: Workspace, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs with one thing changed, made when first asked for."""
    made: dict[str, Workspace] = {}

    def make(change: Callable[[Workspace, Path], None]) -> Workspace:
        if change.__name__ not in made:
            other = little.copy(tmp_path_factory.mktemp(change.__name__) / "w")
            change(other, tiny_clip)
            if change is fewer_images:
                assert faults.run_here(other, "prepare").code == 0
            texts = ["embed_active", "embed_texts", "embed_pool"]
            stages = ["prompts", "fetch_model", "embed_images", *texts, "zero_shot"]
            if change is another_class_list:
                stages = ["prompts", *texts]
            for stage in stages:
                ended = faults.run_here(other, stage)
                assert ended.code == 0, (stage, ended)
            made[change.__name__] = other
        return made[change.__name__]

    return make


SWAPS: list[tuple[Callable[[Workspace, Path], None], str, str, str]] = [
    (another_model, IMAGES, "zero_shot", "model"),
    (another_model, IMAGES, "rank_prompts", "model"),
    (another_model, IMAGES, "linear_probe", "model"),
    (another_model, "data/embeddings/texts", "prompt_sets", "model"),
    (another_model, "data/embeddings/active", "projection", "model"),
    (another_model, "data/embeddings/pool.h5", "rank_prompts", "model"),
    (another_model, "data/weights", "embed_images", "sha256"),
    (another_model, "data/weights", "embed_pool", "sha256"),
    (another_model, "data/predictions/zero_shot.h5", "report", "model"),
    (other_preprocessing, IMAGES, "zero_shot", "preprocess"),
    (other_preprocessing, "data/embeddings/active", "projection", "preprocess"),
    (other_preprocessing, "data/weights", "embed_images", "sha256"),
    (fewer_images, IMAGES, "zero_shot", "dataset_digest"),
    (fewer_images, IMAGES, "mlp_probe", "dataset_digest"),
    (fewer_images, "data/splits.h5", "linear_probe", "dataset_digest"),
    (fewer_images, "data/predictions/zero_shot.h5", "report", "dataset_digest"),
    (another_class_list, "data/embeddings/active", "zero_shot", "class_names"),
    (another_class_list, "data/embeddings/pool.h5", "rank_prompts", "class_names"),
]


@pytest.mark.parametrize(
    ("change", "path", "stage", "field"), SWAPS, ids=[f"{c.__name__}-{p}-{s}" for c, p, s, _ in SWAPS]
)
def test_a_file_of_another_run_is_refused_with_both_sides_of_the_field_that_differs(
    little: Workspace,
    made_otherwise: Any,
    tmp_path: Path,
    change: Callable[[Workspace, Path], None],
    path: str,
    stage: str,
    field: str,
) -> None:
    workspace, other = little.copy(tmp_path / "w"), made_otherwise(change)
    source, target = other.folder / path, workspace.folder / path
    if source.is_dir():
        shutil.rmtree(target)
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
    # Where all of them are known, the weights are not even opened.
    faults.forget_sentences(workspace, outputs=stage == "embed_pool")
    ended: Ended = faults.run_here(workspace, stage)
    assert ended.code == 3, ended
    assert field in ended.error
    for side in sides(workspace, other, field):
        assert side in ended.error, (side, ended.error)
    assert "fix: " in ended.error


def sides(one: Workspace, other: Workspace, field: str) -> list[str]:
    """What the message must show of the field, for both runs."""
    if field == "sha256":  # of the weights or of their config: what is there and what model.json says
        described = [json.loads((w.folder / "data/model.json").read_text()) for w in (one, other)]
        key = (
            "weights_sha256"
            if described[0]["weights_sha256"] != described[1]["weights_sha256"]
            else "config_sha256"
        )
        return [item[key] for item in described]
    if field == "class_names":
        return ['"zero"', '"nought"']
    attributes = [read_images(w.folder / IMAGES).attributes for w in (one, other)]
    return [str(item[field]) for item in attributes]
