"""Whether a row's bytes depend on its image alone: an architecture of each kind of image tower, here.

`python benchmarks/rows_alone.py [NAME ...]` prints a line of a table for each. Weights are random, and drawn
so widely that images differ; nothing is downloaded.
"""

from __future__ import annotations

import sys

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray

from clipcifar.backbone.device import choose
from clipcifar.backbone.preprocess import Preprocess
from clipcifar.backbone.towers import Backbone

# The lightest of each kind of image tower that open_clip 3 knows.
KINDS = (
    *("ViT-B-32", "ViT-B-32-quickgelu", "ViT-B-16", "ViT-M-16-alt", "ViT-L-14-CLIPA", "coca_ViT-B-32"),
    *("ViT-B-16-SigLIP", "PE-Core-T-16-384", "RN50", "convnext_tiny", "convnext_large_d", "MobileCLIP-S1"),
    *("MobileCLIP-B", "EVA02-B-16", "swin_base_patch4_window7_224", "vit_medium_patch16_gap_256"),
    *("vit_relpos_medium_patch16_cls_224", "ViTamin-S"),
)
IMAGES, BATCH, SHORT = 32, 16, 5


def drawn(name: str) -> Backbone:
    """An architecture with random weights."""
    torch.manual_seed(0)
    model = open_clip.create_model(name, load_weights=False, pretrained_text=False)
    for parameter_name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        elif "gamma" in parameter_name:  # beginning near zero, it would leave nothing of what an image has
            torch.nn.init.ones_(parameter)
    preprocess = Preprocess.from_config(open_clip.get_model_preprocess_cfg(model))
    device = choose("auto", key="")
    return Backbone(model.to(device), preprocess, open_clip.get_tokenizer("ViT-B-32"), device)


def rows(tower: Backbone, images: torch.Tensor, size: int) -> NDArray[np.float32]:
    """(N, D) rows of images in batches of one size, the last padded by repetition."""
    made = []
    for batch in images.split(size):
        padded = torch.cat([batch, batch[-1:].expand(size - len(batch), -1, -1, -1)])
        made.append(tower.encode_images(padded)[: len(batch)].cpu().numpy())
    return np.concatenate(made)


def compared(name: str) -> str:
    """A line of the table: rows whose bytes are those of the first pass, and the largest difference."""
    tower, rng = drawn(name), np.random.default_rng(0)
    height, width = tower.preprocess.size
    images = torch.from_numpy(rng.integers(0, 256, (IMAGES, 3, height, width), dtype=np.uint8))
    first, order = rows(tower, images, BATCH), torch.from_numpy(rng.permutation(IMAGES))
    shuffled = np.empty_like(first)
    shuffled[order.numpy()] = rows(tower, images[order], BATCH)
    others = {"shuffled": shuffled, "short": rows(tower, images[-SHORT:], BATCH)}
    others |= {f"of {size}": rows(tower, images, size) for size in (1, 8, 32)}
    cells = [name, f"{np.abs(first - first[::-1]).max():.0e}"]  # that images differ at all
    for other in others.values():
        same, gap = (other == first[-len(other) :]).all(axis=1), np.abs(other - first[-len(other) :]).max()
        cells.append(f"{same.sum()} of {len(other)}" + ("" if same.all() else f", {gap:.0e}"))
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(
        f"| tower | images | shuffled | {SHORT}, padded | batches of 1 | of 8 | of 32 |\n" + "|---" * 7 + "|"
    )
    for tower_name in sys.argv[1:] or KINDS:
        print(compared(tower_name), flush=True)
