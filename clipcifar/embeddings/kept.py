"""Embeddings of images that are wanted, and where whole ones are kept that may be them.

A file of embeddings says what determined it, so any whole file that says the same is the one that is
wanted: one in the user's cache folder, or one that DVC keeps of the last run, whose copy in the workspace it
deletes before a stage runs. Whatever else has changed since, no image goes through the tower a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core import files
from clipcifar.core.errors import DataError
from clipcifar.core.files import Attribute
from clipcifar.embeddings import provenance
from clipcifar.project.dvc_cache import kept_objects
from clipcifar.store import container
from clipcifar.store.container import Container, fingerprint_of
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.images import MANIFEST, read_images
from clipcifar.store.parts import Parts

if TYPE_CHECKING:  # torch, which nobody waits for where everything is found
    from clipcifar.backbone.preprocess import Preprocess
    from clipcifar.embeddings.sources import ImageSource


# What a manifest shall say of the contents of images whose parts are written.
Contents = Callable[[Parts], Mapping[str, NDArray[np.uint8]]]


@dataclass(frozen=True)
class Wanted:
    """Embeddings to have in a file, or in a folder of parts, and how to come by them where nobody has them.

    Attributes:
        path: where they shall be.
        kind: of the container; in a folder, of its manifest.
        attributes: all that determines their content.
        recorded: what DVC may have recorded them as: an output's path in the project, or a file of one.
        ids: N names of the images, for messages.
        images: of some of the N rows, what makes them anywhere, given the preprocessing of the loaded model
            and how many processes may decode there.
        write: writes the embeddings from their rows in order, (n, D) float32 unit rows at a time; asks the
            second argument what a manifest shall say of the images' contents, when all parts are there.
        gather: writes them from parts that lie in a folder; None where `write` is the only way.
        beside: of a folder, what its manifest holds besides its parts, by the name of the array.
        digests: of a folder, what each image is, as a manifest keeps it by the name of the array.
        contents: for `write` and `gather`.
        what: is done to come by them, for the progress bar.
    """

    path: Path
    kind: str
    attributes: Mapping[str, Attribute]
    recorded: Path
    ids: Sequence[str]
    images: Callable[[range | NDArray[np.int64]], Callable[[Preprocess, int], ImageSource]]
    write: Callable[[Iterator[NDArray[np.float32]], Contents], None]
    gather: Callable[[Path, Parts, Contents], None] | None = None
    beside: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    digests: Callable[[], Mapping[str, NDArray[np.uint8]]] = dict
    contents: Contents = lambda _: {}
    what: str = "embedding images"

    @property
    def main(self) -> Path:
        """The file that says what determined the embeddings, relative to their place."""
        return Path(MANIFEST) if self.beside else Path()


@dataclass(frozen=True)
class Kept:
    """Whole embeddings as they are wanted, kept somewhere.

    Attributes:
        files: where each file of them lies, by its path relative to their place.
        content: of the main file.
    """

    files: Mapping[Path, Path]
    content: Container

    def images(self, *, as_stored: bool = False) -> ImageEmbeddings:
        """Those of a folder, verified as `read_images` does."""
        return read_images(
            self.files[Path(MANIFEST)],
            part_of=lambda name: self.files.get(Path(name), Path(name)),
            as_stored=as_stored,
        )


def in_cache_folder(attributes: Mapping[str, Attribute]) -> Path:
    """The place in the user's cache folder for embeddings that these attributes determine."""
    determined = fingerprint_of(provenance.determining(attributes))
    return files.cache_folder("embeddings") / determined[:32]


def find(wanted: Wanted, repository: Path) -> Kept | None:
    """Whole embeddings that are what is wanted, in the user's cache folder or else in DVC's cache.

    Their attributes may call the same weights by another name: the path that they had on another machine.

    Raises:
        EnvironmentFault: a file is there and cannot be read. It may be the one that is wanted, and the tower
            can take an hour: whoever reads the message gives a right or mounts a disk in less.
    """
    fingerprint = container.fingerprint_in_file(provenance.determining(wanted.attributes), kind=wanted.kind)
    for kept in _places(wanted, repository):
        if wanted.main not in kept:
            continue
        with suppress(DataError):  # damaged: the next, and at last the tower
            content = container.read(kept[wanted.main], kind=wanted.kind)
            if fingerprint_of(provenance.determining(content.attributes)) == fingerprint:
                whole = Kept(kept, content)
                if wanted.beside:
                    whole.images().verify()
                return whole
    return None


def _places(wanted: Wanted, repository: Path) -> Iterator[dict[Path, Path]]:
    """Where files of the embeddings may lie, by their path relative to their place."""
    cached = in_cache_folder(wanted.attributes)
    yield {path.relative_to(cached): path for path in (cached, *cached.glob("*.h5")) if path.is_file()}
    yield recorded_objects(wanted, repository)


def recorded_objects(wanted: Wanted, repository: Path) -> dict[Path, Path]:
    """What DVC keeps of the last run, where each file lies by its path relative to the embeddings' place.

    Raises:
        EnvironmentFault: the cache is there and cannot be read.
    """
    recorded = kept_objects(repository, wanted.recorded).items()
    return {Path(path).relative_to(wanted.recorded): kept for path, kept in recorded}
