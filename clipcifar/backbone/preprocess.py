"""The backbone's own preprocessing, batched and on the device instead of image by image.

Sizes and rounding follow open_clip's evaluation transform. Resizing works on uint8, as Pillow
does, so 32 x 32 images differ from open_clip's by at most two levels. Of 8,000 images of other
sizes, fitted to 224 pixels, fewer than one value in 10,000 differed by more than one level in any,
and none by more than five, near black or white.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from clipcifar.core.errors import DataError

_CACHED_IMAGES = 8  # of 224 pixels, float32: 5 MB
_INTERPOLATION = {"bicubic": InterpolationMode.BICUBIC, "bilinear": InterpolationMode.BILINEAR}
_RESIZE_MODES = ("shortest", "longest", "squash")
# What open_clip takes where a config gives none.
_OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
_OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preprocess:
    """What a checkpoint says about its input.

    Attributes:
        size: (height, width) of the model's input in pixels.
        mean, std: per channel, for levels in 0..1.
        interpolation: "bicubic" or "bilinear".
        resize_mode: "shortest" (then centre crop), "longest" (then pad) or "squash".
        fill: per channel, level 0..255 of the padding.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    resize_mode: str
    fill: tuple[int, ...]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Preprocess:
        """Read open_clip's preprocess config as open_clip evaluates it.

        Raises:
            DataError: it asks for something unknown, or for what open_clip itself would refuse.
        """
        try:
            size, interpolation = config["size"], config["interpolation"] or "bicubic"
            height, width = (size, size) if isinstance(size, int) else size
            preprocess = cls(
                size=(int(height), int(width)),
                mean=_per_channel(config["mean"] or _OPENAI_MEAN),  # there a 0 is none given, too
                std=_per_channel(config["std"] or _OPENAI_STD),
                # A choice at random is for training.
                interpolation="bicubic" if interpolation == "random" else interpolation,
                resize_mode=config["resize_mode"] or "shortest",
                fill=tuple(min(max(int(level), 0), 255) for level in _per_channel(config["fill_color"])),
            )
            space = config.get("mode", "RGB")
            known = preprocess.interpolation in _INTERPOLATION and preprocess.resize_mode in _RESIZE_MODES
        except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
            raise DataError(f"the preprocessing cannot be read: {error}") from error
        if not known or space != "RGB":
            raise DataError(
                f"unknown preprocessing: {preprocess.interpolation} interpolation, "
                f"resize mode {preprocess.resize_mode}, colours {space}"
            )
        mean, std = preprocess.mean, preprocess.std
        if not all(map(math.isfinite, mean + std)):
            raise DataError(f"mean {mean} and std {std} are not three finite numbers each")
        if min(std) <= 0:
            raise DataError(f"the std {std} is not positive")
        return preprocess


def _per_channel(value: Any) -> tuple[float, ...]:
    """Three numbers, of which a config may give one for all; ValueError where it gives something else."""
    numbers = [value] if isinstance(value, int | float) else list(value)
    if len(numbers) not in (1, 3) or not all(isinstance(number, int | float) for number in numbers):
        raise ValueError(f"{value!r} is neither one number nor three")
    return tuple(map(float, numbers * 3 if len(numbers) == 1 else numbers))


def resized_size(height: int, width: int, preprocess: Preprocess) -> tuple[int, int]:
    """(height, width) after resizing and before cropping or padding, rounded as open_clip rounds."""
    target_height, target_width = preprocess.size
    if preprocess.resize_mode == "squash":
        return preprocess.size
    if preprocess.resize_mode == "shortest" and target_height == target_width:
        if width <= height:
            return int(target_height * height / width), target_height
        return target_height, int(target_height * width / height)
    pick = max if preprocess.resize_mode == "longest" else min
    ratio = pick(height / target_height, width / target_width)
    return max(1, round(height / ratio)), max(1, round(width / ratio))  # a sliver keeps one pixel


def _resize(images: torch.Tensor, size: tuple[int, int], interpolation: str) -> torch.Tensor:
    """(B, 3, H, W) uint8 to another size, antialiased, by levels of 8 bits between the two directions."""
    if images.device.type == "cpu":
        mode = _INTERPOLATION[interpolation]
        resized: torch.Tensor = F.resize(images, list(size), interpolation=mode, antialias=True)
        return resized
    return resize_by_products(images, size, interpolation)


def resize_by_products(images: torch.Tensor, size: tuple[int, int], interpolation: str) -> torch.Tensor:
    """The same as two matrix products, for devices that have no kernel for 8-bit levels.

    torchvision would resize in float there and round once at the end, which differs from Pillow by
    up to ten levels beside strong edges.
    """
    height, width = images.shape[-2:]
    down = _resampling_matrix(height, size[0], interpolation, images.device)
    across = _resampling_matrix(width, size[1], interpolation, images.device)
    rows = (images.float() @ across.T).add_(0.5).floor_().clamp_(0, 255)  # half up, as Pillow rounds
    return (down @ rows).add_(0.5).clamp_(0, 255).to(torch.uint8)  # which cuts what floor would


@lru_cache(maxsize=64)
def _resampling_matrix(before: int, after: int, interpolation: str, device: torch.device) -> torch.Tensor:
    """(after, before) float32 weights of Pillow's antialiased resampling, its bicubic with a = -0.5."""
    ratio = before / after
    stretch = max(1.0, ratio)
    reach = (2.0 if interpolation == "bicubic" else 1.0) * stretch
    centres = (torch.arange(after, dtype=torch.float64) + 0.5) * ratio
    pixels = torch.arange(before, dtype=torch.float64)
    first, last = (centres - reach + 0.5).floor(), (centres + reach + 0.5).floor()
    inside = (pixels >= first[:, None]) & (pixels < last[:, None])
    x = ((pixels + 0.5 - centres[:, None]) / stretch).abs()
    if interpolation == "bicubic":
        near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
        weights = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    else:
        weights = (1 - x).clamp_min(0)
    weights = weights * inside
    return (weights / weights.sum(dim=1, keepdim=True)).float().to(device)


def fit(images: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    """Resize, then crop or pad, to the model's input size.

    Args:
        images: (B, 3, H, W) uint8.

    Returns:
        (B, 3, height, width) uint8.
    """
    size = resized_size(images.shape[-2], images.shape[-1], preprocess)
    if size != tuple(images.shape[-2:]):
        # Non-square "shortest" is always bicubic in open_clip.
        square = preprocess.size[0] == preprocess.size[1]
        name = "bicubic" if preprocess.resize_mode == "shortest" and not square else preprocess.interpolation
        images = _resize(images, size, name)
    height, width = preprocess.size
    missing_height, missing_width = max(0, height - size[0]), max(0, width - size[1])
    if missing_height or missing_width:
        left, top = missing_width // 2, missing_height // 2
        padding = [left, top, (missing_width + 1) // 2, (missing_height + 1) // 2]
        images = F.pad(images, padding, fill=[float(level) for level in preprocess.fill])
    cropped: torch.Tensor = F.center_crop(images, [height, width])
    return cropped


@lru_cache(maxsize=8)  # on cuda a copy from the host would wait for the batch before
def _levels(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """(3, 1, 1) float32 each: what to take from a level 0..255, and what to multiply the rest by."""
    centre, spread = (torch.tensor(values, device=device).view(3, 1, 1) * 255 for values in (mean, std))
    return centre, 1 / spread


def model_input(images: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    """Fit and normalise: (B, 3, H, W) uint8 -> (B, 3, height, width) float32 on the same device.

    Levels are scaled to mean 0 and deviation 1 per channel. A CPU works on a few images at a time,
    so that every pass but the first finds them in its cache.
    """
    mean, scale = _levels(preprocess.mean, preprocess.std, images.device)
    prepared = torch.empty((len(images), 3, *preprocess.size), device=images.device)
    rows = _CACHED_IMAGES if images.device.type == "cpu" else max(1, len(images))
    for part, target in zip(torch.split(images, rows), torch.split(prepared, rows), strict=True):
        target.copy_(fit(part, preprocess)).sub_(mean).mul_(scale)
    return prepared
