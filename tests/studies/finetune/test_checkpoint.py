"""Checkpoints: what is written comes back, what is damaged or cut short never does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from clipcifar.core.errors import DataError, EnvironmentFault
from clipcifar.core.files import sha256_of
from clipcifar.methods.trained.training import Epoch
from clipcifar.studies.finetune.train import checkpoint
from clipcifar.studies.finetune.train.checkpoint import Checkpoints, Parts
from clipcifar.studies.finetune.train.state import TrainingState

FINGERPRINT = "0123456789abcdef" * 4


def parts(seed: int) -> Parts:
    drawn = torch.Generator().manual_seed(seed)
    square = torch.randn(4, 3, generator=drawn)
    return {
        "parameters": {"w": square, "scalar": torch.tensor(float(seed))},
        "best": {"w": square.T, "curve": torch.randn(2, 3, generator=drawn, dtype=torch.float64)},
    }


def same(found: Parts | None, expected: Parts) -> bool:
    if found is None or {part: set(held) for part, held in found.items()} != {
        part: set(held) for part, held in expected.items()
    }:
        return False
    pairs = [(found[part][name], one) for part, held in expected.items() for name, one in held.items()]
    return all(ours.dtype == theirs.dtype and torch.equal(ours, theirs) for ours, theirs in pairs)


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*/*") if path.is_file())


def test_what_is_written_comes_back_bit_for_bit(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path, FINGERPRINT).read() is None
    Checkpoints(tmp_path, FINGERPRINT).write(1, parts(1))
    found = Checkpoints(tmp_path, FINGERPRINT).read()
    assert same(found, parts(1))
    assert not same(found, parts(2))


def test_a_part_that_is_not_given_is_that_of_the_checkpoint_before(tmp_path: Path) -> None:
    Checkpoints(tmp_path, FINGERPRINT).write(1, parts(1))
    resumed = Checkpoints(tmp_path, FINGERPRINT)
    assert resumed.read() is not None
    resumed.write(2, {"parameters": parts(2)["parameters"]})
    expected = {"parameters": parts(2)["parameters"], "best": parts(1)["best"]}
    assert same(Checkpoints(tmp_path, FINGERPRINT).read(), expected)
    names = {path.name for path in files(tmp_path)}
    assert names == {"0002-parameters.safetensors", "0001-best.safetensors", "manifest.json"}


def test_a_kill_between_any_two_writes_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three files are written: nothing of a checkpoint counts until the last of them is there."""
    whole = checkpoint.write_atomically
    for allowed in range(4):
        root = tmp_path / str(allowed)
        Checkpoints(root, FINGERPRINT).write(1, parts(1))
        left = [allowed]

        def limited(path: Path, content: bytes, left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            whole(path, content)

        monkeypatch.setattr(checkpoint, "write_atomically", limited)
        if allowed < 3:
            with pytest.raises(KeyboardInterrupt):
                Checkpoints(root, FINGERPRINT).write(2, parts(2))
        else:
            Checkpoints(root, FINGERPRINT).write(2, parts(2))
        monkeypatch.setattr(checkpoint, "write_atomically", whole)
        assert same(Checkpoints(root, FINGERPRINT).read(), parts(2 if allowed == 3 else 1)), allowed
    assert len(files(tmp_path / "3")) == 3


def test_every_damaged_byte_counts_as_missing(tmp_path: Path) -> None:
    Checkpoints(tmp_path, FINGERPRINT).write(1, parts(1))
    for path in files(tmp_path):
        content = path.read_bytes()
        for place in range(0, len(content), 3):
            path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
            found = Checkpoints(tmp_path, FINGERPRINT).read()
            assert found is None or (path.name == "manifest.json" and same(found, parts(1)))
        path.write_bytes(content[: len(content) // 2])
        assert Checkpoints(tmp_path, FINGERPRINT).read() is None
        path.write_bytes(content)
    assert same(Checkpoints(tmp_path, FINGERPRINT).read(), parts(1))


@pytest.mark.parametrize("manifest", ["[]", "{}", '{"fingerprint": 1, "sha256": 2}', "null", "no", "", "9"])
def test_a_strange_manifest_counts_as_missing(tmp_path: Path, manifest: str) -> None:
    Checkpoints(tmp_path, FINGERPRINT).write(1, parts(1))
    (tmp_path / FINGERPRINT[:32] / "manifest.json").write_text(manifest)
    assert Checkpoints(tmp_path, FINGERPRINT).read() is None


def test_a_manifest_cannot_point_out_of_its_folder(tmp_path: Path) -> None:
    Checkpoints(tmp_path / "a", FINGERPRINT).write(1, parts(1))
    folder = tmp_path / "a" / FINGERPRINT[:32]
    (folder / "0001-best.safetensors").rename(tmp_path / "a" / "0001-best.safetensors")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["best"][0] = "../0001-best.safetensors"
    del manifest["sha256"]
    manifest["sha256"] = sha256_of(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert Checkpoints(tmp_path / "a", FINGERPRINT).read() is None


def test_another_training_starts_afresh_and_one_run_holds_the_folder(tmp_path: Path) -> None:
    mine = Checkpoints(tmp_path, FINGERPRINT)
    mine.write(1, parts(1))
    other = "1123456789abcdef" * 4
    assert Checkpoints(tmp_path, other).read() is None
    alike = FINGERPRINT[:32] + "f" * 32  # the same folder by accident
    assert Checkpoints(tmp_path, alike).read() is None
    with mine.locked():
        with pytest.raises(EnvironmentFault, match="another run is training the same model"):
            Checkpoints(tmp_path, FINGERPRINT).locked().__enter__()
        with Checkpoints(tmp_path, other).locked():
            pass
    mine.remove()
    assert Checkpoints(tmp_path, FINGERPRINT).read() is None


def _state(folder: Path, *, scale: float, size: int = 3) -> tuple[TrainingState, torch.amp.GradScaler]:
    model = torch.nn.Linear(size, 2)
    optimiser = torch.optim.AdamW(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    scaler.scale(model(torch.ones(4, size)).sum()).backward()
    scaler.step(optimiser)
    scaler.update()
    return TrainingState(model, optimiser, scaler, Checkpoints(folder, FINGERPRINT), START), scaler


START = Epoch(0, 1.0, 1.0, 0.5)


def test_a_run_that_goes_on_has_the_loss_scale_of_the_one_that_was_stopped(tmp_path: Path) -> None:
    """As fp16 on cuda needs it; the scaler is the same on a CPU."""
    first, _ = _state(tmp_path, scale=1024.0)
    first.finish(Epoch(1, 0.9, 0.9, 0.6))
    second, scaler = _state(tmp_path, scale=2.0)
    assert scaler.get_scale() == 1024.0
    assert scaler.state_dict()["_growth_tracker"] == 1
    assert [epoch.val_accuracy for epoch in second.curve] == [0.5, 0.6]


def test_a_checkpoint_of_other_parameters_names_its_own_folder_alone(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "my trainings", FINGERPRINT)
    checkpoints.write(1, {"best": {"other": torch.zeros(1)}, "parameters": {"other": torch.zeros(1)}})
    model = torch.nn.Linear(2, 2)
    optimiser, scaler = torch.optim.AdamW(model.parameters()), torch.amp.GradScaler("cpu", enabled=False)
    with pytest.raises(DataError, match="other parameters") as caught:
        TrainingState(model, optimiser, scaler, checkpoints, Epoch(0, 1.0, 1.0, 0.5))
    assert caught.value.where == str(tmp_path / "my trainings" / FINGERPRINT[:32])
    assert caught.value.fix == f"rm -r '{caught.value.where}'"
