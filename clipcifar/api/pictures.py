"""Images that are not files, as the pipeline sees a file: one rule for every odd kind."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.api.classifier import Inputs, Picture, pictures_of
from clipcifar.api.opened import Opened
from clipcifar.backbone.params import EmbedParams
from clipcifar.core import params
from clipcifar.core.errors import DataError
from clipcifar.datasets.decode import decode
from clipcifar.datasets.params import DatasetParams
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.fields import check_embeddings
from clipcifar.store.model import ModelDescription

if TYPE_CHECKING:
    from clipcifar.backbone.towers import Backbone
    from clipcifar.embeddings.photographs import Batch

_FEW = 16  # files that are decoded before worker processes have started
_IN_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_IN_TIFF = ("I", "I;16B", "F", "CMYK", "YCbCr", "LAB", "RGBX", "PA")


@dataclass(frozen=True)
class PictureEmbedder:
    """Images to embeddings, as those of the project were made; see `Classifier` for what is an image.

    Attributes:
        opened: the project.
        model: that images go through.
        embed: how.
        max_megapixels: of a file.
    """

    opened: Opened
    model: ModelDescription
    embed: EmbedParams
    max_megapixels: int

    @classmethod
    def of(cls, opened: Opened, images: ImageEmbeddings | None = None) -> PictureEmbedder:
        """The one of a project's model and params.yaml as they are now.

        Args:
            images: embeddings that others are to be compared with; DataError where they are of another model.
        """
        settings = opened.settings
        dataset = params.read(settings, "dataset", DatasetParams)
        embed = params.read(settings, "embed", EmbedParams)
        return cls(opened, opened.model(images), embed, dataset.max_megapixels)

    def __call__(self, images: Inputs) -> NDArray[np.float32]:
        """Embed N images, (N, D) float32 unit rows.

        Raises:
            DataError: an image cannot be read, which names it; or another model was resolved since.
        """
        pictures = pictures_of(images)
        if not pictures:
            return np.zeros((0, self.opened.dim), np.float32)
        with self.opened.explained():
            backbone = self.opened.backbone(self.model)
            are_files = all(isinstance(picture, (str, os.PathLike)) for picture in pictures)
            batches = self._files if are_files and len(pictures) > _FEW else self._images
            rows = np.concatenate(list(batches(pictures, backbone)))
            check_embeddings(rows, [f"image {i}" for i in range(len(rows))], what="image")
            return rows

    def batches(
        self, paths: Sequence[Path], *, on_image: Callable[[int], object] = lambda n: None
    ) -> Generator[Batch, None, None]:
        """Embed files in batches that somebody waits for; see `embed_files`."""
        from clipcifar.embeddings.photographs import embed_files, soon

        with self.opened.explained():
            backbone = self.opened.backbone(self.model)
        return embed_files(
            paths,
            backbone,
            embed=self.embed,
            max_megapixels=self.max_megapixels,
            on_image=on_image,
            bounds=soon(len(paths), self.embed),
        )

    def _files(self, pictures: Sequence[Any], backbone: Backbone) -> Iterator[NDArray[np.float32]]:
        from clipcifar.embeddings.photographs import embed_files

        paths = [Path(picture) for picture in pictures]
        for batch in embed_files(paths, backbone, embed=self.embed, max_megapixels=self.max_megapixels):
            for _, error in batch.failed:
                raise error
            yield batch.embeddings

    def _images(self, pictures: Sequence[Picture], backbone: Backbone) -> Iterator[NDArray[np.float32]]:
        import torch

        from clipcifar.backbone.device import out_of_memory_explained
        from clipcifar.embeddings.sources import fitted

        for start in range(0, len(pictures), self.embed.batch_size):
            few = pictures[start : start + self.embed.batch_size]
            images = [
                fitted(
                    _pixels(picture, f"image {i}", max_megapixels=self.max_megapixels), backbone.preprocess
                )
                for i, picture in enumerate(few, start=start)
            ]
            with out_of_memory_explained("embed.batch_size"):
                yield backbone.encode_images(torch.stack(images)).cpu().numpy()


def _pixels(picture: Any, name: str, *, max_megapixels: int) -> NDArray[np.uint8]:
    """One image, (H, W, 3) uint8."""
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            raise DataError(
                f"an image is (H, W, 3) uint8, this array is {picture.shape} {picture.dtype}", where=name
            )
        return picture
    if isinstance(picture, (str, os.PathLike)):
        from clipcifar.embeddings.photographs import read_image

        return read_image(Path(picture), max_megapixels=max_megapixels)
    if isinstance(picture, bytes):
        return decode(picture, name, max_megapixels=max_megapixels)
    return decode(_encoded(picture, name), name, max_megapixels=max_megapixels)


def _encoded(image: Any, name: str) -> bytes:
    """A PIL image as a file of the same levels, so that what decodes files has the word on it."""
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        raise DataError(
            f"not an image: {type(image).__name__}",
            where=name,
            fix="give a path, the bytes of a file, a PIL image or an (H, W, 3) uint8 array; "
            "embeddings are an (N, D) array of floats",
        )
    stream = io.BytesIO()
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode in _IN_PNG:
            upright.save(stream, "PNG", compress_level=1)
        elif upright.mode in _IN_TIFF:
            upright.save(stream, "TIFF")
        else:  # HSV; premultiplied levels; nothing that a file holds
            upright.convert("LA" if upright.mode == "La" else "RGBA").save(stream, "PNG", compress_level=1)
    except Exception as error:  # it was opened and not yet read, and Pillow raises many types then
        raise DataError(f"cannot be decoded: {error}", where=name) from error
    return stream.getvalue()
