"""Augmentation of a batch: every image its own, nothing invented, nothing where nothing is asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from clipcifar.studies.finetune.train.augment import NUMBERS, augment, draw

IMAGES = torch.randint(0, 256, (6, 3, 16, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
OFF = {"crop": "none", "smallest_crop": 0.5, "flip": "none"}


def numbers(**columns: list[float]) -> torch.Tensor:
    """(6, NUMBERS), a half each but for what is given."""
    names = ("flip", "area", "shape", "top", "left")
    found = torch.full((6, NUMBERS), 0.5)
    for name, values in columns.items():
        found[:, names.index(name)] = torch.tensor(values)
    return found


def test_nothing_is_done_where_nothing_is_asked_for() -> None:
    drawn = draw(6, torch.Generator().manual_seed(1))
    assert augment(IMAGES, drawn, **OFF) is IMAGES  # type: ignore[arg-type]


def test_a_flip_mirrors_the_images_it_was_drawn_for_and_no_other() -> None:
    drawn = numbers(flip=[0.0, 0.49, 0.5, 0.9, 0.2, 0.99])
    found = augment(IMAGES, drawn, **{**OFF, "flip": "horizontal"})  # type: ignore[arg-type]
    for i, flipped in enumerate([True, True, False, False, True, False]):
        expected = IMAGES[i].numpy()[..., ::-1] if flipped else IMAGES[i].numpy()
        np.testing.assert_array_equal(found[i].numpy(), expected)


def test_a_shift_is_a_cut_out_of_the_image_with_a_black_border() -> None:
    """By hand: an eighth of 16 x 24 is 2 x 3 pixels, so there are 5 x 7 places; the middle moves nothing."""
    top, left = [0.0, 0.999999, 0.5, 0.2, 0.7, 0.5], [0.0, 0.999999, 0.5, 0.99, 0.0, 0.15]
    found = augment(IMAGES, numbers(top=top, left=left), **{**OFF, "crop": "pad"})  # type: ignore[arg-type]
    padded = np.pad(IMAGES.numpy(), ((0, 0), (0, 0), (2, 2), (3, 3)))
    for i in range(6):
        row, column = int(top[i] * 5), int(left[i] * 7)
        np.testing.assert_array_equal(found[i].numpy(), padded[i, :, row : row + 16, column : column + 24])
    assert torch.equal(found[2], IMAGES[2])
    assert not torch.equal(found[0], IMAGES[0])


def test_a_place_next_to_one_stays_inside() -> None:
    edge = float(np.nextafter(np.float32(1), np.float32(0)))
    for crop in ("pad", "resized"):
        augment(IMAGES, numbers(top=[edge] * 6, left=[edge] * 6), **{**OFF, "crop": crop})  # type: ignore[arg-type]


def test_a_resized_crop_is_torchvisions_of_the_same_part() -> None:
    """A part of whole pixels: a quarter of the area of 16 x 24 and its shape, 8 x 12 pixels."""
    smooth = F.gaussian_blur(IMAGES, [5, 5], [1.5, 1.5])
    top, left = [0.0, 1.0, 0.5, 0.25, 0.75, 0.0], [0.0, 1.0, 0.5, 0.25, 0.5, 1.0]
    drawn = numbers(area=[0.0] * 6, top=top, left=left)
    found = augment(smooth, drawn, crop="resized", smallest_crop=0.25, flip="none")
    for i in range(6):
        row, column = round(top[i] * 8), round(left[i] * 12)
        expected = F.resized_crop(
            smooth[i].float(), row, column, 8, 12, [16, 24], InterpolationMode.BICUBIC, antialias=False
        ).clamp(0, 255)
        # Beside the part's edge torchvision repeats its pixels, ours sees the image: the inside agrees.
        inside = (slice(None), slice(4, -4), slice(4, -4))
        assert (found[i].float() - expected)[inside].abs().max() <= 0.51
    control = augment(smooth, numbers(area=[1.0] * 6), crop="resized", smallest_crop=0.25, flip="none")
    assert float((control.float() - found.float()).abs().mean()) > 1


def test_the_whole_image_as_its_part_is_the_image() -> None:
    drawn = numbers(area=[1.0] * 6)
    assert torch.equal(augment(IMAGES, drawn, crop="resized", smallest_crop=0.3, flip="none"), IMAGES)


@pytest.mark.parametrize("crop", ["pad", "resized"])
def test_an_image_is_treated_alike_whatever_batch_it_is_in(crop: str) -> None:
    drawn = draw(6, torch.Generator().manual_seed(2))
    options = {"crop": crop, "smallest_crop": 0.5, "flip": "horizontal"}
    together = augment(IMAGES, drawn, **options)  # type: ignore[arg-type]
    assert together.dtype == torch.uint8
    assert together.shape == IMAGES.shape
    for i in range(6):
        alone = augment(IMAGES[i : i + 1], drawn[i : i + 1], **options)  # type: ignore[arg-type]
        assert torch.equal(alone[0], together[i])


def test_parts_have_areas_and_shapes_as_drawn() -> None:
    """A ramp from left to right: the part's width is the range of levels that is left of it."""
    ramp = torch.arange(0, 240, 2, dtype=torch.uint8).expand(6, 3, 120, 120).contiguous()
    shape, area = [0.0, 0.25, 0.5, 0.75, 1.0, 1.0], [0.0, 0.0, 0.0, 0.5, 0.0, 1.0]
    drawn = numbers(area=area, shape=shape)
    found = augment(ramp, drawn, crop="resized", smallest_crop=0.25, flip="none").float()
    spans = (found[:, 0, 60, -1] - found[:, 0, 60, 0]) / 238
    for span, s, a in zip(spans.tolist(), shape, area, strict=True):
        width = min(1.0, np.sqrt(0.25 + 0.75 * a) * (4 / 3) ** (0.5 - s))
        assert span == pytest.approx(width, abs=0.02)
