"""Random crops and flips of a batch on its device, as `torchvision` has them for one image.

The random numbers are drawn on the host, one row per image, before the batches are made up. So an
image's augmentation depends neither on the device nor on the batch size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from clipcifar.studies.finetune.params import Crop, Flip

NUMBERS = 5  # uniform ones per image: flip, area, shape, top, left
_SHIFT = 8  # "pad" shifts by up to an eighth of the side: 4 pixels of 32 (He et al. 2016, CIFAR-10)
_LONGEST = 4 / 3  # of "resized": side by side, as torchvision's RandomResizedCrop has it


def draw(n: int, generator: torch.Generator) -> torch.Tensor:
    """(n, NUMBERS) float32 on the host, uniform in [0, 1)."""
    return torch.rand((n, NUMBERS), generator=generator)


@torch.no_grad()
def augment(
    images: torch.Tensor, numbers: torch.Tensor, *, crop: Crop, smallest_crop: float, flip: Flip
) -> torch.Tensor:
    """Crop and flip each image its own way.

    Args:
        images: (B, 3, H, W) uint8.
        numbers: (B, NUMBERS) from `draw`.
        crop: "pad" lays black around the image and cuts at a random place; "resized" cuts out a part
            and enlarges it by bicubic interpolation to the whole.
        smallest_crop: the least share of the area that "resized" cuts out.
        flip: "horizontal" mirrors where the first number is below a half.

    Returns:
        (B, 3, H, W) uint8; the very same images where both are "none".
    """
    numbers = numbers.to(images.device)
    if crop == "pad":
        images = _shifted(images, numbers[:, 3:])
    elif crop == "resized":
        images = _resized(images, numbers[:, 1:], smallest_crop)
    if flip == "horizontal":
        images = torch.where((numbers[:, 0] < 0.5).view(-1, 1, 1, 1), images.flip(3), images)
    return images


def _shifted(images: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Each image cut out of itself with a black border, at one of the whole-pixel places."""
    height, width = images.shape[-2:]
    down, across = height // _SHIFT, width // _SHIFT
    padded = F.pad(images, (across, across, down, down))
    rooms = torch.tensor([2 * down + 1, 2 * across + 1], device=images.device)
    corners = (places * rooms).long().clamp_max(rooms - 1)  # a product just below may round up
    rows = corners[:, :1] + torch.arange(height, device=images.device)
    columns = corners[:, 1:] + torch.arange(width, device=images.device)
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _resized(images: torch.Tensor, numbers: torch.Tensor, smallest: float) -> torch.Tensor:
    """Each image's part of random area, shape and place, enlarged to the whole.

    A part longer than the image is cut to it, where torchvision draws again.
    """
    area, shape, places = numbers[:, 0], numbers[:, 1], numbers[:, 2:]
    side = (smallest + (1 - smallest) * area).sqrt()  # as a share of the image's
    stretch = _LONGEST ** (shape - 0.5)  # the square root of height by width, log-uniform
    shares = torch.stack([side * stretch, side / stretch], dim=1).clamp_max(1)
    corners = places * (1 - shares)
    # grid_sample counts from -1 to 1, across before down
    scale, centre = shares, 2 * corners + shares - 1
    grids = torch.zeros((len(images), 2, 3), device=images.device)
    grids[:, 0, 0], grids[:, 0, 2] = scale[:, 1], centre[:, 1]
    grids[:, 1, 1], grids[:, 1, 2] = scale[:, 0], centre[:, 0]
    grid = F.affine_grid(grids, list(images.shape), align_corners=False)
    enlarged = F.grid_sample(images.float(), grid, mode="bicubic", padding_mode="border", align_corners=False)
    return enlarged.round_().clamp_(0, 255).to(torch.uint8)
