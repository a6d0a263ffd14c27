"""A small input of a model, for tests that fit images to one."""

from __future__ import annotations

from clipcifar.backbone.preprocess import Preprocess

PREPROCESS = Preprocess(
    size=(8, 8),
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
    interpolation="bicubic",
    resize_mode="shortest",
    fill=(0, 0, 0),
)
