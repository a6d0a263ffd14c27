"""Training the tower: what moves, what a step is made of, and going on after a kill."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clipcifar.backbone import device
from clipcifar.core.params import read
from clipcifar.methods.trained.mlp_probe import MLPProbe
from clipcifar.methods.trained.training import Epoch, best
from clipcifar.studies.finetune.params import FinetuneParams
from clipcifar.studies.finetune.train import (
    layers as tower_layers,
    training,
)
from clipcifar.studies.finetune.train.checkpoint import Checkpoints
from clipcifar.studies.finetune.train.pixels import ResidentPixels
from clipcifar.studies.finetune.train.tower import load_image_tower
from clipcifar.studies.finetune.train.training import Rows, TowerAndHead
from tests.support import finetuning

CPU = torch.device("cpu")
PIXELS, LABELS = finetuning.pixels(60, seed=3)
TRAIN, VAL = np.arange(48), np.arange(48, 60)
FINGERPRINT = "ab" * 32
START = Epoch(0, 9.0, 9.0, 0.0)  # any epoch is better


def params(**changed: Any) -> FinetuneParams:
    return read({"finetune": {**finetuning.FINETUNE, **changed}}, "finetune", FinetuneParams)


@dataclass
class Outcome:
    curve: list[Epoch]
    before: dict[str, torch.Tensor]
    after: dict[str, torch.Tensor]


def run(clip: Path, root: Path, given: FinetuneParams, *, pixels: Any = None) -> Outcome:
    """Train from the tower in `clip` and a head of fixed random weights."""
    tower = load_image_tower(clip, CPU, precision="fp32")
    torch.manual_seed(5)
    with torch.no_grad():
        embeddings = tower(torch.from_numpy(PIXELS).permute(0, 3, 1, 2))
    head = MLPProbe(embeddings, num_classes=3, hidden=8, dropout=given.dropout)
    model = TowerAndHead(tower, head)
    before = copy.deepcopy(model.state_dict())
    layers = tower_layers.unfreeze(tower.visual, given.unfrozen_blocks)
    optimiser = tower_layers.build_optimiser(
        layers,
        head,
        learning_rate=given.learning_rate,
        layer_decay=given.layer_decay,
        weight_decay=given.weight_decay,
    )
    train, val = (Rows.of(rows, LABELS, CPU) for rows in (TRAIN, VAL))
    curve = training.train(
        model,
        optimiser,
        pixels or ResidentPixels(PIXELS, CPU),
        train,
        val,
        start=START,
        params=given,
        checkpoints=Checkpoints(root, FINGERPRINT),
    )
    return Outcome(curve, before, copy.deepcopy(model.state_dict()))


def changed(outcome: Outcome) -> set[str]:
    return {name for name, one in outcome.after.items() if not torch.equal(one, outcome.before[name])}


@pytest.mark.parametrize("blocks", [None, 1, 0])
def test_what_is_unfrozen_moves_and_nothing_else(tiny_clip: Path, tmp_path: Path, blocks: int | None) -> None:
    outcome = run(tiny_clip, tmp_path, params(unfrozen_blocks=blocks, epochs=1))
    tower = {name for name in outcome.before if name.startswith("tower.")}
    if blocks is None:
        expected = tower
    else:
        beginnings = ("transformer.resblocks.1.", "ln_post.", "proj") if blocks else ()
        expected = {name for name in tower if name.removeprefix("tower.visual.").startswith(beginnings)}
        expected = expected if blocks else set()
    head = {f"head.layers.{i}.{kind}" for i in (0, 3) for kind in ("weight", "bias")}
    assert changed(outcome) == expected | head


def test_the_head_alone_leaves_val_to_the_head(tiny_clip: Path, tmp_path: Path) -> None:
    """Negative control of all of it: the tower's part of the curve is the tower's."""
    alone = run(tiny_clip, tmp_path / "a", params(unfrozen_blocks=0))
    whole = run(tiny_clip, tmp_path / "b", params())
    assert alone.curve[1].val_loss != whole.curve[1].val_loss


def test_a_pass_for_each_half_of_a_batch_is_one_step_of_the_whole(tiny_clip: Path, tmp_path: Path) -> None:
    """48 images: two steps of 20 and one of 8, in passes of 10 or of 20."""
    plain = {"dropout": 0.0, "epochs": 2}
    halves = run(tiny_clip, tmp_path / "a", params(batch_size=10, accumulate=2, **plain))
    whole = run(tiny_clip, tmp_path / "b", params(batch_size=20, accumulate=1, **plain))
    other = run(tiny_clip, tmp_path / "c", params(batch_size=10, accumulate=1, **plain))
    name = "head.layers.0.weight"
    for ours, theirs in zip(halves.curve[1:], whole.curve[1:], strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, abs=1e-4)
        assert ours.val_loss == pytest.approx(theirs.val_loss, abs=1e-4)
    # Adam divides by the gradient's own size, so rounding moves a weight whose gradient is nearly none.
    apart = (halves.after[name] - whole.after[name]).abs()
    assert float((apart > 1e-4).float().mean()) < 0.02
    assert float((other.after[name] - whole.after[name]).abs().mean()) > 20 * float(apart.mean())


def test_an_epoch_is_plain_torch_by_hand(tiny_clip: Path, tmp_path: Path) -> None:
    """One step over all images without augmentation, from the definition."""
    given = params(
        epochs=1, batch_size=48, accumulate=1, crop="none", flip="none", dropout=0.0, warmup_epochs=1,
        weight_decay=0.0, layer_decay=1.0,
    )  # fmt: skip
    outcome = run(tiny_clip, tmp_path, given)
    tower = load_image_tower(tiny_clip, CPU, precision="fp32")
    torch.manual_seed(5)
    images = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
    with torch.no_grad():
        embeddings = tower(images)
    model = TowerAndHead(tower, MLPProbe(embeddings, num_classes=3, hidden=8, dropout=0.0))
    loss = F.cross_entropy(model(images[:48]), torch.from_numpy(LABELS[:48]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert outcome.curve[1].train_loss == pytest.approx(loss.item(), abs=1e-5)
    for name, one in model.named_parameters():
        # Adam's first step is the rate times g / (|g| + eps), whatever the gradient's size.
        assert one.grad is not None
        step = given.learning_rate * one.grad / (one.grad.abs() + 1e-8)
        expected = outcome.before[name] - step
        clear = one.grad.abs() > 1e-5
        torch.testing.assert_close(outcome.after[name][clear], expected[clear], atol=2e-5, rtol=1e-4)


class _Seen:
    """Pixels that note what they were asked for."""

    def __init__(self) -> None:
        self._pixels = ResidentPixels(PIXELS, CPU)
        self.rows: list[list[int]] = []

    def batches(self, rows: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        for batch, images in zip(rows, self._pixels.batches(rows), strict=True):
            self.rows.append(batch.tolist())
            yield images


def test_every_epoch_sees_every_train_image_once_in_an_order_of_its_own(
    tiny_clip: Path, tmp_path: Path
) -> None:
    seen = _Seen()
    run(tiny_clip, tmp_path, params(epochs=2, batch_size=13), pixels=seen)
    flat = [row for batch in seen.rows for row in batch]
    first, val, second = flat[:48], flat[48:60], flat[60:108]
    assert sorted(first) == sorted(second) == list(range(48))
    assert first != second != list(range(48))
    assert val == list(range(48, 60))
    # passes of 13 within steps of 26: 13, 13, 13, 9
    assert [len(batch) for batch in seen.rows[:4]] == [13, 13, 13, 9]


def same(a: Outcome, b: Outcome) -> bool:
    return a.curve == b.curve and all(torch.equal(a.after[name], b.after[name]) for name in a.after)


class _Stopped(Exception):
    pass


@pytest.mark.parametrize("visual", ["transformer", "resnet"])
def test_a_run_stopped_after_any_epoch_ends_with_the_same_bits(
    tiny_clip: Path, tmp_path: Path, visual: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ResNet's filters lie in another order in memory than a checkpoint's."""
    clip = tiny_clip if visual == "transformer" else resnet_clip(tmp_path / "resnet", tiny_clip)
    given = params(batch_size=16, accumulate=1, warmup_epochs=1)
    whole = run(clip, tmp_path / "whole", given)
    assert len(whole.curve) == 4
    write = Checkpoints.write

    def stopping(self: Checkpoints, *arguments: Any) -> None:
        write(self, *arguments)
        raise _Stopped

    monkeypatch.setattr(Checkpoints, "write", stopping)
    for _ in range(3):
        with pytest.raises(_Stopped):
            run(clip, tmp_path / "cut", given)
    monkeypatch.setattr(Checkpoints, "write", write)
    assert same(run(clip, tmp_path / "cut", given), whole)
    assert not same(run(clip, tmp_path / "other", replace(given, seed=1)), whole)


@pytest.mark.parametrize("forgotten", ["means", "squares", "steps"])
def test_a_resumed_run_needs_all_of_the_optimisers_state(
    tiny_clip: Path, tmp_path: Path, forgotten: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: with any part of it lost the result is another."""
    given = params(epochs=2)
    whole = run(tiny_clip, tmp_path / "whole", given)
    write, read_back = Checkpoints.write, Checkpoints.read

    def stopping(self: Checkpoints, *arguments: Any) -> None:
        write(self, *arguments)
        raise _Stopped

    def losing(self: Checkpoints) -> Any:
        parts = read_back(self)
        if parts is not None:
            parts[forgotten] = {name: torch.zeros_like(one) for name, one in parts[forgotten].items()}
        return parts

    monkeypatch.setattr(Checkpoints, "write", stopping)
    with pytest.raises(_Stopped):
        run(tiny_clip, tmp_path / "cut", given)
    monkeypatch.setattr(Checkpoints, "write", write)
    monkeypatch.setattr(Checkpoints, "read", losing)
    assert not same(run(tiny_clip, tmp_path / "cut", given), whole)


def resnet_clip(folder: Path, tiny_clip: Path) -> Path:
    """A random miniature CLIP with a ResNet for its image tower."""
    import json

    import open_clip
    import safetensors.torch

    config = json.loads((tiny_clip / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"] = {
        "image_size": 32,
        "layers": [1, 1, 1, 1],
        "width": 8,
        "head_width": 8,
    }
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    state = open_clip.CLIP(**config["model_cfg"]).state_dict()
    safetensors.torch.save_file({name: one.contiguous() for name, one in state.items()},
                                folder / "open_clip_model.safetensors")  # fmt: skip
    return folder


def test_training_stops_by_patience_and_returns_to_the_best_epoch(tiny_clip: Path, tmp_path: Path) -> None:
    """A rate far too high: no epoch is better than a perfect start, which is what is left."""
    given = params(learning_rate=3.0, epochs=9, patience=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.studies.finetune.test_training.START", Epoch(0, 0.0, 0.0, 1.0))
        outcome = run(tiny_clip, tmp_path, given)
    assert [point.epoch for point in outcome.curve] == [0, 1, 2]
    assert not changed(outcome)
    assert best(outcome.curve).epoch == 0


def test_the_best_epoch_is_the_first_of_equals_and_never_one_that_diverged() -> None:
    curve = [
        Epoch(0, 1.0, 1.0, 0.5),
        Epoch(1, 1.0, 0.9, 0.7),
        Epoch(2, 1.0, 0.9, 0.7),
        Epoch(3, 1.0, float("nan"), 0.9),
    ]
    assert best(curve).epoch == 1


def test_a_diverged_curve_survives_a_checkpoint(tiny_clip: Path, tmp_path: Path) -> None:
    given = params(learning_rate=10.0, layer_decay=1.0, epochs=3, patience=3, warmup_epochs=0)
    outcome = run(tiny_clip, tmp_path, given)
    again = run(tiny_clip, tmp_path, given)  # all epochs are finished: nothing is trained
    assert repr(again.curve) == repr(outcome.curve)


@pytest.mark.cuda
def test_fp16_scales_the_loss() -> None:
    assert device.gradient_scaler(torch.device("cuda"), "fp16").is_enabled()


def test_the_loss_is_scaled_for_fp16_on_cuda_alone() -> None:
    assert not device.gradient_scaler(CPU, "fp16").is_enabled()
    assert not device.gradient_scaler(CPU, "fp32").is_enabled()
