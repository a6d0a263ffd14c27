"""A small folder and archive in the format of the published CIFAR-10-C: 12 test images of 3 classes."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np

IMAGES = 12
LABELS = np.arange(IMAGES) % 3
NAMES = ("fog", "gaussian_noise")


def pixels(name: str) -> np.ndarray:
    """(5 N, 32, 32, 3) uint8."""
    return np.random.default_rng(len(name)).integers(0, 256, (5 * IMAGES, 32, 32, 3), dtype=np.uint8)


def write_folder(folder: Path) -> Path:
    folder.mkdir()
    for name in NAMES:
        np.save(folder / f"{name}.npy", pixels(name))
    np.save(folder / "labels.npy", np.tile(LABELS, 5).astype(np.uint8))
    return folder


def write_archive(folder: Path) -> Path:
    path = folder.with_suffix(".tar")
    with tarfile.open(path, "w") as tar:
        tar.add(write_folder(folder), arcname="CIFAR-10-C")
    return path
