"""The registry of datasets: how each is obtained, its classes, and its official test split.

A dataset is one row of `REGISTRY`. Sets of equally sized images are loaded as arrays; sets of
photographs are unpacked into the folder layout that `clipcifar.datasets.imagefolder` lists without holding a
pixel, which is also how a person's own folder comes in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clipcifar.core.errors import ConfigError
from clipcifar.core.files import read_json
from clipcifar.core.params import NO_PATH, suggestion
from clipcifar.datasets import array_sets, download, photo_sets
from clipcifar.datasets.archives import Archive
from clipcifar.datasets.array_sets import ArrayDataset
from clipcifar.datasets.imagefolder import image_folder
from clipcifar.datasets.params import IMAGEFOLDER, TARFOLDER, DatasetParams, photograph_folder
from clipcifar.datasets.photo_sets import Photo
from clipcifar.datasets.source import Source
from clipcifar.datasets.tarfolder import tar_folder


@dataclass(frozen=True)
class Dataset:
    """One row of the registry.

    Attributes:
        archives: what to download.
        load: reads a set of arrays from its one archive.
        photographs: lists the files of an unpacked set of photographs.
    """

    archives: tuple[Archive, ...] = ()
    load: Callable[[Path | None], ArrayDataset] | None = None
    photographs: Callable[[Path], list[Photo]] | None = None


_CIFAR_HOME = "https://www.cs.toronto.edu/~kriz/"
_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data/"
_EUROSAT = (
    "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/"
)
_FOUND = "found in several independent public sources, not checked at the origin"


def _known_to_torchvision(filename: str, home: str, md5: str, *, folder: str) -> Archive:
    return Archive(filename, home + filename, md5, "the source of torchvision 0.29", "md5", folder)


_OURS = (download.SOURCE_FILE,)
_UNLISTED = "not named in the lists of the set"

REGISTRY: dict[str, Dataset] = {
    "cifar10": Dataset(
        archives=(
            Archive(
                filename="cifar-10-python.tar.gz",
                url=_CIFAR_HOME + "cifar-10-python.tar.gz",
                digest="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
                digest_source=_FOUND,
            ),
        ),
        load=array_sets.load_cifar10,
    ),
    "cifar100": Dataset(
        archives=(
            Archive(
                filename="cifar-100-python.tar.gz",
                url=_CIFAR_HOME + "cifar-100-python.tar.gz",
                digest="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
                digest_source=_FOUND,
            ),
        ),
        load=array_sets.load_cifar100,
    ),
    "digits": Dataset(load=array_sets.load_digits),
    IMAGEFOLDER: Dataset(),
    TARFOLDER: Dataset(),
    "pets": Dataset(
        archives=tuple(
            _known_to_torchvision(name, _OXFORD + "pets/data/", md5, folder="oxford-iiit-pet")
            for name, md5 in (
                ("images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c"),
                ("annotations.tar.gz", "95a8c909bbe2e81eed6a22bccdf3f68f"),
            )
        ),
        photographs=photo_sets.pets,
    ),
    "flowers102": Dataset(
        archives=tuple(
            _known_to_torchvision(name, _OXFORD + "flowers/102/", md5, folder="flowers-102")
            for name, md5 in (
                ("102flowers.tgz", "52808999861908f626f3c1f4e79d11fa"),
                ("imagelabels.mat", "e0620be6f572b9609742df49c70aed4d"),
                ("setid.mat", "a5357ecc9cb78c4bef273ce3793fc85c"),
            )
        ),
        photographs=photo_sets.flowers102,
    ),
    "food101": Dataset(
        archives=(
            _known_to_torchvision(
                "food-101.tar.gz",
                "http://data.vision.ee.ethz.ch/cvl/",
                "85eeb15f3717b99a5da872d97d918f87",
                folder="",
            ),
        ),
        photographs=photo_sets.food101,
    ),
    "eurosat": Dataset(
        archives=(
            _known_to_torchvision(
                "EuroSAT.zip", _EUROSAT, "c8fa014336c82ac7804f0398fcb19387", folder="eurosat"
            ),
        ),
        photographs=photo_sets.eurosat,
    ),
    "dtd": Dataset(
        archives=(
            _known_to_torchvision(
                "dtd-r1.0.1.tar.gz",
                _OXFORD + "dtd/download/",
                "fff73e5086ae6bdbea199a49dfb8a4c1",
                folder="dtd",
            ),
        ),
        photographs=photo_sets.dtd,
    ),
}


def registered(name: str) -> Dataset:
    """The registry's row of that name; ConfigError when there is none."""
    if name not in REGISTRY:
        raise ConfigError(
            f"unknown dataset {name!r}", where="params.yaml: dataset.name", fix=suggestion(name, REGISTRY)
        )
    return REGISTRY[name]


def located(archive: Archive, dataset: DatasetParams, raw: Path) -> Path:
    """Where an archive should be: at `dataset.path` (or in it, where that is a folder), or in `raw`."""
    path = Path(dataset.path)
    if dataset.path == NO_PATH:
        return raw / archive.filename
    return path / archive.filename if path.is_dir() else path


def source_of(dataset: DatasetParams, raw: Path) -> Source:
    """The images that params.yaml asks for, as a stream.

    Args:
        raw: what the `download` stage made.

    Raises:
        DataError: the archive is not the known one, or the folder is not laid out as one of images.
    """
    entry = registered(dataset.name)
    if dataset.name == TARFOLDER:
        return tar_folder(photograph_folder(dataset, raw), max_megapixels=dataset.max_megapixels)
    if entry.load is None:
        folder = image_folder(
            photograph_folder(dataset, raw), max_megapixels=dataset.max_megapixels, ours=_OURS
        )
        unlisted = read_json(raw / download.SOURCE_FILE)["unlisted"] if entry.photographs else 0
        folder.left_out.kinds += Counter({_UNLISTED: unlisted})  # which drops what there is none of
        return folder
    archive = None
    for known in entry.archives:
        archive = located(known, dataset, raw)
        download.check(archive, known)
    return array_sets.stream(entry.load(archive), where=str(archive or dataset.name))
