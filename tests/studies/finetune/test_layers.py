"""Layers of a tower, which of them are trained, and their rates."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from torch import nn

from clipcifar.backbone import kernels
from clipcifar.backbone.preprocess import model_input
from clipcifar.backbone.towers import Backbone
from clipcifar.core.errors import ConfigError, DataError, EnvironmentFault
from clipcifar.studies.finetune.train import (
    layers as tower_layers,
    optimiser as finetune_optimiser,
)
from clipcifar.studies.finetune.train.tower import ImageTower, checkpoint_activations, load_image_tower

CPU = torch.device("cpu")
RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "head_width": 16}


@pytest.fixture
def tower(tiny_clip: Path) -> ImageTower:
    return load_image_tower(tiny_clip, CPU, precision="fp32")


def resnet() -> nn.Module:
    torch.manual_seed(0)
    text = {"context_length": 8, "width": 16, "heads": 1, "layers": 1}
    visual: nn.Module = open_clip.CLIP(embed_dim=8, vision_cfg=RESNET, text_cfg=text).visual
    return visual


def images(n: int = 5) -> torch.Tensor:
    return torch.randint(
        0, 256, (n, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def test_the_tower_embeds_as_the_frozen_backbone_does(tiny_clip: Path, tower: ImageTower) -> None:
    expected = Backbone.load(tiny_clip, CPU).encode_images(images())
    found = tower(images()).detach()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(tower(images().flip(3)).detach(), expected, atol=1e-3)  # it is not all the same


def test_gradients_are_those_of_plain_open_clip(tiny_clip: Path, tower: ImageTower) -> None:
    plain = open_clip.create_model(f"local-dir:{tiny_clip}", require_pretrained=True).eval()
    weights = torch.randn(5, 32, generator=torch.Generator().manual_seed(2))
    pixels = model_input(images(), tower.preprocess)
    (plain.encode_image(pixels, normalize=True) * weights).sum().backward()
    (tower(images()) * weights).sum().backward()
    expected = {name: one.grad for name, one in plain.visual.named_parameters()}
    found = {name: one.grad for name, one in tower.visual.named_parameters()}
    assert set(found) == set(expected)
    for name, gradient in found.items():
        assert gradient is not None
        assert float(gradient.abs().max()) > 0 or name.endswith("in_proj_bias"), name
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-3)


def test_gradients_of_the_backbones_own_attention_are_torchs_too(tiny_clip: Path, tower: ImageTower) -> None:
    """What `kernels.py` replaces is for inference; a gradient through it would still be right."""
    replaced = load_image_tower(tiny_clip, CPU, precision="fp32")
    kernels.replace_attention(replaced.visual)
    for one in (tower, replaced):
        one(images())[:, :3].sum().backward()
    for ours, theirs in zip(replaced.parameters(), tower.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-3)


def test_checkpointed_activations_change_no_gradient(tiny_clip: Path, tower: ImageTower) -> None:
    sparing = load_image_tower(tiny_clip, CPU, precision="fp32")
    checkpoint_activations(sparing)
    passes = []
    block = sparing.visual.transformer.resblocks[0]  # type: ignore[union-attr, index]
    block.register_forward_pre_hook(lambda *_: passes.append(1))  # type: ignore[union-attr]
    for one in (tower, sparing):
        one(images())[:, :3].sum().backward()
    assert len(passes) == 2  # once more for the gradient
    for ours, theirs in zip(sparing.parameters(), tower.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_tower_without_checkpointing_is_refused_instead_of_ignored(tower: ImageTower) -> None:
    other = ImageTower(resnet(), tower.preprocess, precision="fp32")
    with pytest.raises(ConfigError, match="does not offer checkpointing") as caught:
        checkpoint_activations(other)
    assert caught.value.where == "params.yaml: finetune.checkpoint_activations"


def test_the_tower_stays_in_evaluation_mode(tower: ImageTower) -> None:
    other = ImageTower(resnet(), tower.preprocess, precision="fp32")
    before = {name: value.clone() for name, value in other.visual.named_buffers()}
    nn.Sequential(other).train()
    assert not any(module.training for module in other.modules())
    other(torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)).sum().backward()
    assert len(before) > 10
    for name, value in other.visual.named_buffers():  # batch norm's running statistics
        assert torch.equal(value, before[name])


def test_damaged_weights_are_named(tmp_path: Path, tiny_clip: Path) -> None:
    (tmp_path / "open_clip_config.json").write_bytes((tiny_clip / "open_clip_config.json").read_bytes())
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"0" * 40)
    with pytest.raises(DataError, match="weights cannot be loaded"):
        load_image_tower(tmp_path, CPU, precision="fp32")


def names_by_layer(visual: nn.Module) -> dict[str, set[str]]:
    return {layer.name: set(layer.parameters) for layer in tower_layers.layers(visual)}


def test_the_layers_of_a_transformer_by_hand(tower: ImageTower) -> None:
    found = names_by_layer(tower.visual)
    assert list(found) == ["input", "block 1", "block 2", "output"]
    stem = {"class_embedding", "positional_embedding", "conv1.weight", "ln_pre.weight", "ln_pre.bias"}
    assert found["input"] == stem
    assert found["output"] == {"proj", "ln_post.weight", "ln_post.bias"}
    assert all(name.startswith("transformer.resblocks.1.") for name in found["block 2"])
    assert [layer.depth for layer in tower_layers.layers(tower.visual)] == [3, 2, 1, 0]


def test_the_layers_of_a_resnet_are_its_stages() -> None:
    visual = resnet()
    found = names_by_layer(visual)
    assert list(found) == ["input", "block 1", "block 2", "block 3", "block 4", "output"]
    assert {name.split(".")[0] for name in found["input"]} == {
        f"{kind}{i}" for kind in ("conv", "bn") for i in (1, 2, 3)
    }
    assert {name.split(".")[0] for name in found["output"]} == {"attnpool"}
    everything = [name for names in found.values() for name in names]
    assert sorted(everything) == sorted(name for name, _ in visual.named_parameters())


def test_an_unknown_tower_is_one_block_and_fixed_parameters_stay_fixed() -> None:
    visual = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    visual[0].bias.requires_grad_(False)
    (layer,) = tower_layers.unfreeze(visual, None)
    assert (layer.name, layer.depth) == ("block 1", 1)
    assert set(layer.parameters) == {"0.weight", "1.weight", "1.bias"}
    assert not visual[0].bias.requires_grad
    with pytest.raises(ConfigError, match="not known") as caught:
        tower_layers.unfreeze(visual, 1)
    assert "null" in caught.value.fix


@pytest.mark.parametrize(
    ("blocks", "trained"),
    [
        (None, {"input", "block 1", "block 2", "output"}),
        (2, {"block 1", "block 2", "output"}),
        (1, {"block 2", "output"}),
        (0, set()),
    ],
)
def test_exactly_the_unfrozen_layers_get_gradients(
    tower: ImageTower, blocks: int | None, trained: set[str]
) -> None:
    by_layer = names_by_layer(tower.visual)
    assert {layer.name for layer in tower_layers.unfreeze(tower.visual, blocks)} == trained
    head = nn.Linear(32, 3)
    head(tower(images())).square().sum().backward()
    moved = {name for name, one in tower.visual.named_parameters() if one.grad is not None}
    assert moved == {name for layer in trained for name in by_layer[layer]}


def test_more_blocks_than_there_are_is_an_error(tower: ImageTower) -> None:
    with pytest.raises(ConfigError, match="has 2 blocks, 3 are asked for"):
        tower_layers.unfreeze(tower.visual, 3)


def test_rates_by_hand(tower: ImageTower) -> None:
    """Two blocks and a decay of a half: output and head 1, then 1/2, 1/4, and the input 1/8."""
    layers, head = tower_layers.unfreeze(tower.visual, None), nn.Linear(32, 3)
    optimiser = finetune_optimiser.build(layers, head, learning_rate=0.8, layer_decay=0.5, weight_decay=0.1)
    found = {id(one): group for group in optimiser.param_groups for one in group["params"]}
    named = dict(tower.visual.named_parameters())
    for name, rate, decay in [
        ("conv1.weight", 0.1, 0.1),
        ("class_embedding", 0.1, 0.0),
        ("transformer.resblocks.0.mlp.c_fc.weight", 0.2, 0.1),
        ("transformer.resblocks.0.mlp.c_fc.bias", 0.2, 0.0),
        ("transformer.resblocks.1.ln_1.weight", 0.4, 0.0),
        ("transformer.resblocks.1.attn.in_proj_weight", 0.4, 0.1),
        ("ln_post.bias", 0.8, 0.0),
        ("proj", 0.8, 0.1),
    ]:
        group = found[id(named[name])]
        assert (group["lr"], group["weight_decay"]) == (pytest.approx(rate), decay), name
    assert [found[id(one)]["weight_decay"] for one in (head.weight, head.bias)] == [0.1, 0.0]
    assert len(found) == len(named) + 2
    finetune_optimiser.set_rates(optimiser, 0.25)
    assert found[id(named["conv1.weight"])]["lr"] == pytest.approx(0.025)
    finetune_optimiser.set_rates(optimiser, 1.0)  # of the full rate, not of the last one
    assert found[id(named["conv1.weight"])]["lr"] == pytest.approx(0.1)


def test_the_schedule_by_hand() -> None:
    found = [finetune_optimiser.schedule(step, steps=6, warmup=2) for step in range(1, 7)]
    cosine = [1.0, 0.853553, 0.5, 0.146447, 0.0]
    assert found == pytest.approx([0.5, *cosine], abs=1e-6)
    assert finetune_optimiser.schedule(1, steps=1, warmup=0) == pytest.approx(0, abs=1e-12)
    assert finetune_optimiser.schedule(4, steps=4, warmup=4) == pytest.approx(1)
    long = [finetune_optimiser.schedule(step, steps=50, warmup=7.5) for step in range(1, 51)]
    assert all(0 <= factor <= 1 for factor in long)
    assert long[:7] == sorted(long[:7])
    assert long[8:] == sorted(long[8:], reverse=True)


def test_cocas_tower_hands_out_its_embedding_only(tmp_path: Path, tiny_clip: Path) -> None:
    config = json.loads((tiny_clip / "open_clip_config.json").read_text())["model_cfg"]["vision_cfg"]
    vision = {**config, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
    text = {"context_length": 8, "width": 16, "heads": 1, "layers": 1}
    torch.manual_seed(0)
    tower = load_image_tower(tiny_clip, CPU, precision="fp32")
    visual = open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text, output_dict=True).visual
    found = ImageTower(visual, tower.preprocess, precision="fp32")(images())
    assert found.shape == (5, 16)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(5))


def test_a_head_without_biases_makes_no_empty_group(tower: ImageTower) -> None:
    head = nn.Linear(32, 3, bias=False)
    optimiser = finetune_optimiser.build([], head, learning_rate=0.8, layer_decay=0.5, weight_decay=0.1)
    assert [group["params"] for group in optimiser.param_groups] == [[head.weight]]


def test_memory_that_runs_out_while_the_tower_is_loaded_is_told_as_such(
    tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(open_clip, "create_model", fail)
    with pytest.raises(EnvironmentFault, match="out of memory") as caught:
        load_image_tower(tiny_clip, CPU, precision="fp32")
    assert "finetune.device" in caught.value.fix


def test_a_package_that_the_model_needs_is_named(tiny_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'transformers'")

    monkeypatch.setattr(open_clip, "create_model", missing)
    with pytest.raises(ConfigError, match="No module named 'transformers'") as caught:
        load_image_tower(tiny_clip, CPU, precision="fp32")
    assert caught.value.fix.startswith("pip install")
