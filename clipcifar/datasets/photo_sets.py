"""Public sets of photographs: their archives unpacked and laid out as `datasets.imagefolder` has it.

torchvision reads the annotations; the files are then moved to `<split>/<class>/<file>`. So every
later stage treats a public set like a person's own folder, and nothing holds a pixel.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import numpy as np

from clipcifar.core.errors import DataError
from clipcifar.core.files import copy_file, explained
from clipcifar.datasets.archives import Archive, unpack
from clipcifar.store.splits import seeded_share

PHOTOGRAPHS = ".jpg"
UNPACKED = frozenset({PHOTOGRAPHS, ".txt", ".json", ".mat"})  # photographs, and annotations that are read
EUROSAT_SEED, EUROSAT_TEST = 0, 0.2  # of the split that the set itself lacks
_SCRATCH = ".unpacking"
_Split = Literal["train", "val", "test"]

# Class names as github.com/openai/CLIP has them in data/prompts.md, where the archive's or
# torchvision's are codes or differ.
_EUROSAT_NAMES = {
    "AnnualCrop": "annual crop land",
    "Forest": "forest",
    "HerbaceousVegetation": "brushland or shrubland",
    "Highway": "highway or road",
    "Industrial": "industrial buildings or commercial buildings",
    "Pasture": "pasture land",
    "PermanentCrop": "permanent crop land",
    "Residential": "residential buildings or homes or apartments",
    "River": "river",
    "SeaLake": "lake or sea",
}
_FLOWER_NAMES = {
    "globe-flower": "globe flower",
    "pink-yellow dahlia?": "pink and yellow dahlia",
    "ball moss": "air plant",
}


@dataclass(frozen=True)
class Photo:
    """One file of an unpacked set, the split it is officially of, and its class name."""

    path: Path
    split: _Split
    class_name: str


def lay_out(
    archives: list[tuple[Archive, Path]], photographs: Callable[[Path], list[Photo]], target: Path
) -> tuple[int, int]:
    """Unpack a set's archives into `target`, as `<split>/<class>/<file>`.

    Args:
        archives: each with the checked file that it is.
        photographs: lists the unpacked set.
        target: a folder; what an earlier set has left in it is removed.

    Returns:
        The number of photographs, and how many more there were that its lists do not name.

    Raises:
        DataError: an archive is damaged or hostile, or is not the set that it should be.
        EnvironmentFault: the disk is full or cannot be written.
    """
    scratch = target / _SCRATCH
    with explained(target):
        for left in (scratch, *(target / split for split in get_args(_Split))):
            if os.path.lexists(
                left
            ):  # of a run by hand; DVC removes it. Of links into its cache only they go
                shutil.rmtree(left)
    for archive, path in archives:
        folder = scratch / archive.folder
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
        if archive.filename.endswith(".mat"):
            copy_file(path, folder / archive.filename)
        else:
            unpack(path, folder, keep=lambda name: name.suffix in UNPACKED)
    where = ", ".join(str(path) for _, path in archives)
    with explained(target):
        try:
            photos = photographs(scratch)
            _move(photos, scratch, target)
            left = scratch.rglob(f"*{PHOTOGRAPHS}")
            unlisted = sum(not path.name.startswith(".") for path in left)
        except FileNotFoundError as error:
            raise DataError(f"it lacks {Path(error.filename or '').name}", where=where) from error
        except DataError as error:
            error.where = where
            raise
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise DataError(f"the annotations cannot be read: {error}", where=where) from error
    with explained(scratch):
        shutil.rmtree(scratch)
    return len(photos), unlisted


def _move(photos: list[Photo], scratch: Path, target: Path) -> None:
    for photo in photos:
        moved = target / photo.split / photo.class_name / photo.path.name
        inside = photo.path.is_relative_to(scratch) and ".." not in photo.path.parts
        plain = PurePosixPath(photo.class_name).name == photo.class_name not in ("", "..")
        if not inside or not plain:
            raise DataError(f"the annotations name {photo.class_name!r}, {photo.path.name!r}: no plain names")
        if moved.exists():
            raise DataError(f"the annotations name {photo.path.name} twice")
        moved.parent.mkdir(parents=True, exist_ok=True)
        os.replace(photo.path, moved)


def _listed(dataset: Any, split: _Split, names: list[str]) -> list[Photo]:
    """The files of a torchvision dataset that was made to load a path as itself."""
    samples = (dataset[row] for row in range(len(dataset)))
    return [Photo(Path(path), split, names[label]) for path, label in samples]


def _itself(path: Any) -> Any:
    return path


def pets(root: Path) -> list[Photo]:
    """Oxford-IIIT Pets, 37 breeds: its official trainval and test."""
    from torchvision.datasets import OxfordIIITPet

    photos: list[Photo] = []
    for official, split in (("trainval", "train"), ("test", "test")):
        part = OxfordIIITPet(str(root), split=official)
        files = zip(part._images, part._labels, strict=True)  # the one set that takes no loader
        photos += [Photo(path, split, part.classes[label]) for path, label in files]  # type: ignore[arg-type]
    return photos


def flowers102(root: Path) -> list[Photo]:
    """Oxford Flowers 102: its official train, val and test."""
    from torchvision.datasets import Flowers102

    names = [_FLOWER_NAMES.get(name, name) for name in Flowers102.classes]
    photos: list[Photo] = []
    for split in ("train", "val", "test"):
        photos += _listed(Flowers102(str(root), split=split, loader=_itself), split, names)
    return photos


def food101(root: Path) -> list[Photo]:
    """Food-101: its official train, whose labels are partly wrong by design, and test."""
    from torchvision.datasets import Food101

    photos: list[Photo] = []
    for split in ("train", "test"):
        part = Food101(str(root), split=split, loader=_itself)
        photos += _listed(part, split, [name.replace("_", " ") for name in part.classes])
    return photos


def eurosat(root: Path) -> list[Photo]:
    """EuroSAT, RGB. It has NO official split: a fifth of each class is test, chosen by file name."""
    from torchvision.datasets import EuroSAT

    part = EuroSAT(str(root), loader=_itself)
    labels = np.array([label for _, label in part.samples])
    ids = [f"{part.classes[label]}/{Path(path).name}" for path, label in part.samples]
    is_test = seeded_share(labels, ids, fraction=EUROSAT_TEST, seed=EUROSAT_SEED, purpose="test")
    return [
        Photo(Path(path), "test" if tested else "train", _EUROSAT_NAMES[part.classes[label]])
        for (path, label), tested in zip(part.samples, is_test, strict=True)
    ]


def dtd(root: Path) -> list[Photo]:
    """Describable Textures, 47 of them: train, val and test of its official partition 1."""
    from torchvision.datasets import DTD

    photos: list[Photo] = []
    for split in ("train", "val", "test"):
        part = DTD(str(root), split=split, partition=1, loader=_itself)
        photos += _listed(part, split, part.classes)
    return photos
