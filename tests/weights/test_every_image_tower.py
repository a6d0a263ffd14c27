"""Every kind of image tower that open_clip has, against its own `encode_image` on its own preprocessing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from clipcifar.backbone.towers import Backbone
from clipcifar.weights.resolve import fetch_model
from tests.support.architectures import by_kind, kind_of_image_tower, shallow, write_shallow
from tests.support.backbones import local

KINDS = by_kind(kind_of_image_tower)


def _photograph(height: int, width: int, *, seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 90 * np.sin(x / (9 + c + seed) + y / (14 - c - seed)) for c in range(3)]
    noisy = np.stack(waves, axis=-1) + rng.normal(0, 9, (height, width, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("architecture", [names[0] for names in KINDS.values()])
def test_an_image_is_embedded_as_open_clip_embeds_it(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timm, "create_model", shallow(timm.create_model))
    source, weights = tmp_path / "source", tmp_path / "weights"
    write_shallow(architecture, source)
    model = open_clip.create_model(f"local-dir:{source}", require_pretrained=True).eval()
    config = PreprocessCfg(**model.visual.preprocess_cfg)
    transform = image_transform_v2(config, is_train=False)
    fetch_model(local(source), weights)
    backbone = Backbone.load(weights, torch.device("cpu"))
    fitting = _photograph(*backbone.preprocess.size, seed=1)  # nothing to resize: not a level apart
    for photograph, least in ((fitting, 0.999999), (_photograph(180, 240, seed=2), 0.9999)):
        with torch.no_grad():
            theirs = torch.nn.functional.normalize(model.encode_image(transform(photograph)[None]), dim=-1)
        pixels = torch.from_numpy(np.array(photograph)).permute(2, 0, 1)[None]
        assert (backbone.encode_images(pixels) * theirs).sum() >= least
        assert (backbone.encode_images(255 - pixels) * theirs).sum() < 0.99999  # negative control


def test_the_kinds_are_all_of_open_clips_architectures() -> None:
    assert sum(map(len, KINDS.values())) == len(open_clip.list_models())
    families = " ".join(KINDS)
    for family in ("ModifiedResNet", "siglip", "pe_core", "mci", "vitamin", "eva02", "convnext", "swin"):
        assert family in families
