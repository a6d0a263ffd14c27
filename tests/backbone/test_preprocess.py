from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings, strategies as st
from numpy.typing import NDArray
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from clipcifar.backbone.preprocess import Preprocess, fit, model_input, resize_by_products
from clipcifar.core.errors import DataError

BASE: dict[str, Any] = {
    "size": 224,
    "mean": (0.48, 0.45, 0.40),
    "std": (0.27, 0.26, 0.28),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}


def _photograph(height: int, width: int) -> NDArray[np.uint8]:
    """Smooth shapes and some noise, so that resampling has edges and gradients to work on."""
    rng = np.random.default_rng(height * width)
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 90 * np.sin(x / (5 + c) + y / (7 - c)) for c in range(3)]
    return np.clip(np.stack(waves, axis=-1) + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)


def _theirs(pixels: NDArray[np.uint8], config: dict[str, Any]) -> torch.Tensor:
    transform = image_transform_v2(PreprocessCfg(**config), is_train=False)
    result: torch.Tensor = transform(Image.fromarray(pixels))
    return result


def _batch(pixels: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


@pytest.mark.parametrize("size", [(32, 32), (37, 61), (500, 333), (64, 64), (224, 224), (300, 90)])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"interpolation": "bilinear"},
        {"resize_mode": "squash"},
        {"resize_mode": "longest", "fill_color": 7},
        {"size": 64},
        {"size": (96, 64)},
        {"size": (96, 64), "interpolation": "bilinear"},
        {"size": (96, 64), "resize_mode": "longest"},
    ],
    ids=str,
)
def test_pixels_are_open_clips_to_two_levels(size: tuple[int, int], change: dict[str, Any]) -> None:
    config = {**BASE, **change}
    pixels = _photograph(*size)
    ours = fit(_batch(pixels), Preprocess.from_config(config))[0].to(torch.int32)
    theirs = _theirs(pixels, {**config, "mean": (0, 0, 0), "std": (1, 1, 1)}).mul(255).round().to(torch.int32)
    assert ours.shape == theirs.shape
    difference = (ours - theirs).abs()
    assert difference.max() <= 2
    assert (difference > 1).float().mean() < 1e-4
    if size == (32, 32) and change == {}:  # CIFAR into ViT-B/32
        assert (difference > 0).float().mean() < 1e-3


@pytest.mark.parametrize(
    ("size", "target"),
    [((32, 32), (224, 224)), ((28, 28), (224, 224)), ((61, 37), (40, 24)), ((48, 90), (64, 64))],
)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_products_resize_as_pillow_does(
    size: tuple[int, int], target: tuple[int, int], interpolation: str
) -> None:
    """What other devices than a CPU use; strong edges, where rounding once would show."""
    pixels = _photograph(*size)
    pixels[::7], pixels[:, ::5] = 255, 0
    ours = resize_by_products(_batch(pixels), target, interpolation)[0].permute(1, 2, 0).numpy().astype(int)
    method = getattr(Image.Resampling, interpolation.upper())
    theirs = np.asarray(Image.fromarray(pixels).resize(target[::-1], method)).astype(int)
    difference = np.abs(ours - theirs)
    assert difference.max() <= 2
    assert (difference > 0).mean() < 2e-3
    other = "bilinear" if interpolation == "bicubic" else "bicubic"
    wrong = resize_by_products(_batch(pixels), target, other)[0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(wrong - theirs).max() > 5


def test_normalisation_is_open_clips() -> None:
    pixels = _photograph(224, 224)
    preprocess = Preprocess.from_config(BASE)
    torch.testing.assert_close(
        model_input(_batch(pixels), preprocess)[0], _theirs(pixels, BASE), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(
    "change",
    [
        {"interpolation": "random"},  # for training; evaluated as bicubic
        {"interpolation": ""},
        {"resize_mode": ""},
        {"mean": 0.5, "std": 0.25},
        {"mean": [0.5], "std": [0.25]},
        {"mean": 0, "std": 0.0},  # as if none were given
        {"mean": None, "std": []},
        {"size": [64, 48]},
        {"resize_mode": "longest", "fill_color": 127.9},
        {"resize_mode": "longest", "fill_color": 300},
        {"resize_mode": "longest", "fill_color": -5},
        {"resize_mode": "longest", "fill_color": True},
        {"resize_mode": "longest", "fill_color": [7]},
        {"resize_mode": "longest", "fill_color": [10, 200.5, 30]},
    ],
    ids=str,
)
def test_odd_configs_are_read_as_open_clip_evaluates_them(change: dict[str, Any]) -> None:
    config = {**BASE, **change}
    height, width = (224, 224) if isinstance(config["size"], int) else config["size"]
    pixels = _photograph(height, width)
    pixels = pixels[: height // 2] if config["resize_mode"] == "longest" else pixels
    preprocess = Preprocess.from_config(config)
    theirs = _theirs(pixels, config)
    torch.testing.assert_close(model_input(_batch(pixels), preprocess)[0], theirs, atol=1e-6, rtol=0)
    assert (preprocess.interpolation, len(preprocess.mean), len(preprocess.fill)) == ("bicubic", 3, 3)
    shown = np.asarray(Image.fromarray(_photograph(60, 60)).resize((90, 90)))  # bicubic, and not bilinear
    ours = fit(_batch(_photograph(60, 60)), Preprocess.from_config({**config, "size": 90}))[0]
    assert np.abs(ours.permute(1, 2, 0).numpy().astype(int) - shown).max() <= 2


def test_a_batch_is_its_images_one_by_one() -> None:
    preprocess = Preprocess.from_config(BASE)
    batch = torch.cat([_batch(_photograph(32, 32)), _batch(np.zeros((32, 32, 3), np.uint8))])
    together = fit(batch, preprocess)
    for i in range(2):
        assert torch.equal(together[i], fit(batch[i : i + 1], preprocess)[0])


def test_an_image_of_the_right_size_is_left_alone() -> None:
    batch = _batch(_photograph(224, 224))
    assert torch.equal(fit(batch, Preprocess.from_config(BASE)), batch)


@settings(max_examples=40)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    target=st.tuples(st.integers(8, 48), st.integers(8, 48)) | st.integers(8, 48),
    mode=st.sampled_from(["shortest", "longest", "squash"]),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
)
def test_any_size_is_fitted_as_open_clip_fits_it(
    height: int, width: int, target: int | tuple[int, int], mode: str, interpolation: str
) -> None:
    config = {**BASE, "size": target, "resize_mode": mode, "interpolation": interpolation, "fill_color": 9}
    preprocess = Preprocess.from_config(config)
    rows, columns = preprocess.size
    assume(height * 2 * columns > width or mode != "longest")  # open_clip cannot make less than a pixel
    assume(width * 2 * rows > height or mode != "longest")
    pixels = _photograph(height, width)
    ours = fit(_batch(pixels), preprocess)[0].to(torch.int32)
    theirs = _theirs(pixels, {**config, "mean": (0, 0, 0), "std": (1, 1, 1)}).mul(255).round().to(torch.int32)
    assert ours.shape == theirs.shape == (3, rows, columns)
    # Single values near black and white differ more; a shift by one pixel would change most of them.
    assert ((ours - theirs).abs() > 1).float().mean() < 0.01


@pytest.mark.parametrize("size", [(1, 100), (100, 1)])
def test_a_sliver_keeps_a_row_of_pixels_when_padded(size: tuple[int, int]) -> None:
    config = {**BASE, "size": 32, "resize_mode": "longest", "fill_color": 0}
    fitted = fit(_batch(np.full((*size, 3), 200, np.uint8)), Preprocess.from_config(config))
    assert fitted.shape == (1, 3, 32, 32)
    assert (fitted == 200).sum() == 3 * 32


@pytest.mark.parametrize(
    "change",
    [
        {"mean": (0.5, 0.5)},
        {"mean": "123"},
        {"mean": float("nan")},
        {"std": (0.2, 0.2)},
        {"std": -0.2},
        {"mean": ("a", "b", "c")},
        {"mean": (0.5, 0.5, float("inf"))},
        {"std": (0.2, 0.2, 0.0)},
        {"std": (0.2, -0.2, 0.2)},
        {"size": (224,)},
        {"size": None},
        {"size": (224, 224, 3)},
        {"fill_color": (1, 2)},
        {"fill_color": "red"},
        {"fill_color": float("inf")},
        {"mode": "L"},
    ],
    ids=str,
)
def test_senseless_preprocessing_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        Preprocess.from_config({**BASE, **change})


@pytest.mark.parametrize("missing", list(BASE))
def test_preprocessing_that_leaves_something_open_is_refused(missing: str) -> None:
    with pytest.raises(DataError, match=missing):
        Preprocess.from_config({key: value for key, value in BASE.items() if key != missing})


@pytest.mark.parametrize("change", [{"interpolation": "nearest"}, {"resize_mode": "crop"}])
def test_unknown_preprocessing_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="unknown preprocessing"):
        Preprocess.from_config({**BASE, **change})
