"""What holds on a CPU holds on a card as well; each test runs on both, so that no card is spent on a typo."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clipcifar.backbone import device
from clipcifar.backbone.params import DeviceName, EmbedParams, Precision
from clipcifar.backbone.preprocess import model_input
from clipcifar.backbone.towers import Backbone
from clipcifar.core.errors import EnvironmentFault
from clipcifar.embeddings import compute, extract
from clipcifar.methods.trained.mlp_probe import MLPProbe
from clipcifar.methods.trained.projection import Projection
from clipcifar.methods.trained.training import Labelled, TrainingParams, train
from clipcifar.store.dataset import Prepared, PreparedSplit, digest_of
from clipcifar.store.images import read_images
from clipcifar.store.model import ModelDescription
from tests.support.made import clusters

CPU = torch.device("cpu")
KINDS = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
PRECISIONS = [
    ("cpu", "fp32"),
    *(pytest.param("cuda", name, marks=pytest.mark.cuda) for name in ("fp32", "bf16", "fp16")),
]
NAMES = ["cat", "dog"]
SENTENCES = [f"a {size} {name}{mark}" for size in ("small", "very large") for name in NAMES for mark in ".!?"]


@pytest.fixture
def shards_of_two_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "SHARD_ROWS", 16)


def pixels(n: int, size: int = 40) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def dataset(n: int) -> Prepared:
    """n images, four of them test."""
    content, labels, ids = pixels(n), np.arange(n) % 2, [f"{i:03d}" for i in range(n)]
    train_split, test = (PreparedSplit(content[s], labels[s], ids[s]) for s in (slice(4, None), slice(4)))
    digest = digest_of(train_split, test, NAMES)
    return Prepared(train_split, test, NAMES, name="made", max_per_class=0, digest=digest)


def embed(
    folder: Path,
    model: tuple[ModelDescription, Path],
    kind: DeviceName,
    *,
    precision: Precision = "fp32",
    batch: int = 8,
) -> dict[str, bytes]:
    """The files of embeddings of 60 images by name, as the stage writes them."""
    params = EmbedParams(kind, precision, batch, workers=0, storage="float32")
    about, weights = model
    wanted = compute.dataset_images(
        folder, dataset(60), about, recorded=folder, photographs=folder, embed=params
    )
    compute.encode([wanted], model=about, weights=weights, embed=params)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(("kind", "precision"), PRECISIONS)
def test_a_run_gives_the_same_bytes_again(
    kind: DeviceName, precision: Precision, model: tuple[ModelDescription, Path], tmp_path: Path
) -> None:
    first, second = (embed(tmp_path / name, model, kind, precision=precision) for name in "ab")
    assert first == second
    attributes = read_images(tmp_path / "a").attributes
    assert (attributes["device"], attributes["precision"]) == (kind, precision)


@pytest.mark.usefixtures("shards_of_two_batches")
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(
    kind: DeviceName,
    model: tuple[ModelDescription, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, encode, batches = embed(tmp_path / "whole", model, kind), Backbone.encode_images, list[int]()

    def stopped_at(last: float) -> Any:
        def encode_some(self: Backbone, images: torch.Tensor) -> torch.Tensor:
            if len(batches) == last:
                raise KeyboardInterrupt
            batches.append(len(images))
            return encode(self, images)

        return encode_some

    monkeypatch.setattr(Backbone, "encode_images", stopped_at(6))
    with pytest.raises(KeyboardInterrupt):
        embed(tmp_path / "stopped", model, kind)
    batches.clear()
    monkeypatch.setattr(Backbone, "encode_images", stopped_at(math.inf))
    assert embed(tmp_path / "stopped", model, kind) == whole
    assert len(batches) == 8 - 4 + 1  # all but two shards, and the sample of the second pass


@pytest.fixture
def little_memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A batch size for which a quarter of a GiB of a card, or any memory, does not suffice."""
    monkeypatch.setattr(device, "short_batch_multiple", lambda _, size: size)  # of a CPU as of a card
    if request.getfixturevalue("kind") == "cpu":
        yield 2**44
        return
    torch.cuda.set_per_process_memory_fraction(2**28 / torch.cuda.mem_get_info()[1])
    yield 2**16
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_that_no_memory_holds_is_one_error_that_names_its_setting(
    kind: DeviceName, little_memory: int, model: tuple[ModelDescription, Path], tmp_path: Path
) -> None:
    with pytest.raises(EnvironmentFault, match="out of memory") as caught:
        embed(tmp_path / "large", model, kind, batch=little_memory)
    assert caught.value.where == "params.yaml: embed.batch_size"
    assert len(embed(tmp_path / "usual", model, kind)) == 2  # and nothing is left of it


@pytest.mark.parametrize(("kind", "precision"), PRECISIONS)
def test_vectors_are_those_of_a_cpu_in_fp32(
    kind: str, precision: Precision, model: tuple[ModelDescription, Path]
) -> None:
    images = torch.from_numpy(pixels(16)).permute(0, 3, 1, 2)
    here, there = (
        Backbone.load(model[1], torch.device(where), name)
        for where, name in (("cpu", "fp32"), (kind, precision))
    )
    rows, expected = there.encode_images(images).cpu(), here.encode_images(images)
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(16))
    least: dict[str, float] = {"fp32": 0.99999, "bf16": 0.999, "fp16": 0.9999}
    assert float((rows * expected).sum(dim=1).min()) > least[precision]
    for (places, ours), (others, theirs) in zip(
        there.encode_sentences(SENTENCES), here.encode_sentences(SENTENCES), strict=True
    ):
        assert places == others
        np.testing.assert_allclose(ours, theirs, atol=1e-5)  # in fp32 whatever the precision of images


@pytest.mark.parametrize("kind", KINDS)
def test_a_sentence_has_the_same_bytes_whatever_its_neighbours(
    kind: str, model: tuple[ModelDescription, Path]
) -> None:
    tower = Backbone.load(model[1], torch.device(kind))
    rows = {
        SENTENCES[place]: row
        for places, some in tower.encode_sentences(SENTENCES)
        for place, row in zip(places, some, strict=True)
    }
    for sentence in SENTENCES:
        ((_, alone),) = tower.encode_sentences([sentence])
        assert alone[0].tobytes() == rows[sentence].tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [20, 32, 61])
def test_pixels_are_those_of_a_cpu_to_two_levels(
    kind: str, size: int, model: tuple[ModelDescription, Path]
) -> None:
    preprocess = Backbone.load(model[1], CPU).preprocess
    images = torch.from_numpy(pixels(3, size)).permute(0, 3, 1, 2)
    gap = model_input(images.to(kind), preprocess).cpu() - model_input(images, preprocess)
    levels = gap.abs() * 255 * torch.tensor(preprocess.std).view(3, 1, 1)
    assert float(levels.max()) < 2.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["probe", "projection"])
def test_a_head_is_trained_to_the_same_bytes_again_and_about_as_well_as_on_a_cpu(
    kind: DeviceName, method: str
) -> None:
    rows, labels = clusters(seed=0, n=600, noise=1.5)
    params = TrainingParams(32, 0.2, 1e-3, 1e-4, 64, 4, 4, (0,), kind)
    was = torch.get_deterministic_debug_mode()

    def run(where: str) -> Any:
        there = torch.device(where)
        parts = [Labelled.on(there, rows[part], labels[part]) for part in (slice(400), slice(400, None))]

        def build() -> torch.nn.Module:
            if method == "probe":
                return MLPProbe(parts[0].embeddings, num_classes=3, hidden=32, dropout=0.2)
            return Projection(parts[0].embeddings[:3], logit_scale=20.0, hidden=32, dropout=0.2)

        return train(build, *parts, params=replace(params, device=kind), seed=0)

    try:
        first, second, expected = run(kind), run(kind), run("cpu")
    finally:
        torch.set_deterministic_debug_mode(was)
    assert first.curve == second.curve
    assert all(torch.equal(value, second.state[name]) for name, value in first.state.items())
    assert abs(first.best.val_accuracy - expected.best.val_accuracy) < 0.1
