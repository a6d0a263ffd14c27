"""Sets of equally sized images, held as arrays: CIFAR and scikit-learn's digits."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError
from clipcifar.core.files import fault_behind
from clipcifar.datasets.archives import unpack
from clipcifar.datasets.source import Sample, Source, Split

DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# The fixed division of scikit-learn's 1,797 digits: the stand-in model under data/demo was
# trained on the reserved ones, so no image that the pipeline sees was seen in training.
DIGITS_SEED, DIGITS_RESERVED, DIGITS_TEST = 0, 700, 397


@dataclass(frozen=True)
class ImageArrays:
    """One official split in memory.

    Attributes:
        images: (N, H, W, 3) uint8, RGB.
        labels: (N,) int64, indices into the class names.
        ids: N stable sample ids, unique within the dataset.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    ids: list[str]


@dataclass(frozen=True)
class ArrayDataset:
    """A dataset in memory: its official splits and its class names in label order."""

    train: ImageArrays
    test: ImageArrays
    class_names: list[str]


def stream(arrays: ArrayDataset, *, where: str) -> Source:
    """A set in memory as a source of images; `where` is for messages."""
    parts: tuple[tuple[Split, ImageArrays], ...] = (("train", arrays.train), ("test", arrays.test))
    names = arrays.class_names
    items = (
        Sample(split, names[label], sample_id, image)
        for split, part in parts
        for image, label, sample_id in zip(part.images, part.labels.tolist(), part.ids, strict=True)
    )
    return Source(where, names, items, frozenset((split, name) for split, _ in parts for name in names))


def _numbered(split: str, indices: NDArray[np.int64] | range) -> list[str]:
    return [f"{split}/{index:05d}" for index in indices]


def _load_cifar(class_name: str, archive: Path | None) -> ArrayDataset:
    """Read an official CIFAR archive through torchvision, which checks the md5 of every file in it.

    Unpacked here, because torchvision downloads over an archive that is not the one it knows.
    """
    import torchvision

    assert archive is not None
    dataset_class = getattr(torchvision.datasets, class_name)
    with tempfile.TemporaryDirectory(prefix="clipcifar-") as folder:
        try:
            base = PurePosixPath(dataset_class.base_folder)
            (Path(folder) / base).mkdir()
            unpack(archive, Path(folder), keep=lambda name: name.parent == base)
            train = dataset_class(folder, train=True)
            test = dataset_class(folder, train=False)
        except (RuntimeError, OSError, DataError) as error:
            reason = error.what if isinstance(error, DataError) else error
            raise fault_behind(error, archive) or DataError(
                f"the archive does not hold the official {class_name} files: {reason}",
                where=str(archive),
                fix="name the official archive in dataset.path, or fetch it with `dvc repro -f download`",
            ) from error
    splits = [
        ImageArrays(
            images=part.data,
            labels=np.asarray(part.targets, dtype=np.int64),
            ids=_numbered(name, range(len(part.data))),
        )
        for name, part in (("train", train), ("test", test))
    ]
    return ArrayDataset(splits[0], splits[1], list(train.classes))


def load_cifar10(archive: Path | None) -> ArrayDataset:
    """CIFAR-10 from its python archive: 50,000 train and 10,000 test images, 32 x 32."""
    return _load_cifar("CIFAR10", archive)


def load_cifar100(archive: Path | None) -> ArrayDataset:
    """CIFAR-100 (fine labels) from its python archive: 50,000 train and 10,000 test images."""
    return _load_cifar("CIFAR100", archive)


def _enlarged_digits(indices: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    gray = np.round(digits.images[indices] * (255 / 16)).astype(np.uint8)  # scanned levels are 0..16
    enlarged = gray.repeat(4, axis=1).repeat(4, axis=2)  # 8 x 8 -> 32 x 32, no interpolation library
    rgb = np.repeat(enlarged[..., None], 3, axis=-1)
    return rgb, digits.target[indices].astype(np.int64)


def _digits_division() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    order = np.random.default_rng(DIGITS_SEED).permutation(1797)
    reserved, test, train = np.split(order, [DIGITS_RESERVED, DIGITS_RESERVED + DIGITS_TEST])
    return np.sort(reserved), np.sort(test), np.sort(train)


def reserved_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The digits that `load_digits` leaves out: what the stand-in model was trained on.

    Returns:
        images (700, 32, 32, 3) uint8 and labels (700,) int64.
    """
    return _enlarged_digits(_digits_division()[0])


def load_digits(archive: Path | None = None) -> ArrayDataset:
    """Scikit-learn's handwritten digits as RGB at 32 x 32: 700 train and 397 test images."""
    splits = []
    _, test, train = _digits_division()
    for name, indices in (("train", train), ("test", test)):
        images, labels = _enlarged_digits(indices)
        splits.append(ImageArrays(images, labels, _numbered(name, indices)))
    return ArrayDataset(splits[0], splits[1], list(DIGIT_NAMES))
