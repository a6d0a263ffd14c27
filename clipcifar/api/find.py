"""The images of the cache that are nearest to a sentence or to an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipcifar.api.classifier import Picture
from clipcifar.api.given import checked_number, checked_text
from clipcifar.api.images import PARTS, Images, images_of
from clipcifar.api.opened import Opened, check_name
from clipcifar.api.pictures import PictureEmbedder
from clipcifar.core.class_files import holds_control, reading
from clipcifar.core.errors import ConfigError, DataError
from clipcifar.core.params import suggestion
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.places import IMAGES, MODEL, SPLITS

MAX_CHARACTERS = 5_000  # of a query, far beyond any context
_ROWS = 4096  # that are gone through in float64 at once


@dataclass(frozen=True)
class Hit:
    """One image near a query; see `Project.find`.

    Attributes:
        rank: from 1.
        cosine: of the two embeddings, in [-1, 1].
        split: train, val or test.
        label: the name of its class.
        id: of the image.
    """

    rank: int
    cosine: float
    split: str
    label: str
    id: str


def find(
    opened: Opened,
    text: str | None,
    image: Picture | None,
    *,
    top: int,
    split: str | None,
    class_name: str | None,
) -> list[Hit]:
    """The images nearest to a query, see `Project.find`; what is asked is checked before a tower is loaded.

    Raises:
        ConfigError: the query is neither a sentence nor an image or both, or longer than the model reads;
            there is no such split or class; or the embeddings are stale.
        DataError: the image cannot be read, or there is none to look among.
    """
    if (text is None) == (image is None):
        what = "there is nothing to look for" if text is None else "a sentence and an image were given"
        raise ConfigError(what, fix="give a sentence or an image")
    sentence = "" if text is None else checked_query(text)
    top = checked_number(top, what="top")
    if split is not None:
        check_name(split, PARTS, what="split")
    with opened.fresh({IMAGES: IMAGES, SPLITS: SPLITS, MODEL: MODEL}):
        embedded = _embedded(opened)
        images = images_of(embedded, opened.val(embedded), split)
        rows_among(images, class_name)
        if image is not None:
            (query,) = PictureEmbedder.of(opened, embedded)([image])
        else:
            (query,) = opened.embed_sentences(opened.model(embedded), [sentence], where="the query")
    return nearest_images(images, query, top=top, class_name=class_name)


def _embedded(opened: Opened) -> ImageEmbeddings:
    try:
        return opened.images()
    except DataError as error:
        if not (opened.root / IMAGES).exists():  # a search needs no more than these
            error.fix = error.fix.replace("`dvc repro`", "`dvc repro embed_images`")
        raise


def checked_query(query: object) -> str:
    """A sentence without the blanks around it.

    Raises:
        ConfigError: it is no text, is empty, or holds what no sentence holds.
    """
    text = checked_text(query, where="the query")
    if not text.strip():
        raise ConfigError("the query is empty", fix='write what to look for: "two cats on a sofa"')
    if len(text) > MAX_CHARACTERS or holds_control(text):
        what = (
            "holds a control character" if holds_control(text) else f"has over {MAX_CHARACTERS:,} characters"
        )
        raise ConfigError(f"the query {what}", fix="write one short sentence")
    return text.strip()


def nearest(
    rows: NDArray[np.float32], query: NDArray[np.float32], *, top: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The rows of the largest dot products with a query, the largest first; of equals, the first.

    All N products are taken in float32, whose last bits depend on where a row stands. So those that may be
    among the largest, a few more than asked for, are taken again in float64, each in the same order.

    Args:
        rows: (N, D) float32 unit rows.
        query: (D,) float32 unit vector.
        top: how many, at least 1; all where there are fewer.

    Returns:
        Positions (n,) int64 and products (n,) float64, which for unit vectors are cosines.
    """
    top = min(top, len(rows))
    if not top:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    rough = rows @ query
    error = len(query) * np.finfo(np.float32).eps  # twice the bound on a sum of D products of unit vectors
    least = np.partition(rough, len(rows) - top)[len(rows) - top]
    positions = np.flatnonzero(rough >= least - 2 * error)
    exact_query = query.astype(np.float64)
    products = np.concatenate(
        [
            (rows[positions[start : start + _ROWS]] * exact_query).sum(axis=1)
            for start in range(0, len(positions), _ROWS)
        ]
    )
    order = np.argsort(-products, kind="stable")[:top]
    return positions[order], products[order]


def nearest_images(
    images: Images, query: NDArray[np.float32], *, top: int, class_name: str | None = None
) -> list[Hit]:
    """The images nearest to a query, the nearest first; of equally near ones, the first.

    Args:
        images: to look among.
        query: (D,) float32 unit vector.
        top: how many, at least 1; all where there are fewer.
        class_name: of the only class to look in, as it is or as prompts say it; None for all.

    Raises:
        ConfigError, DataError: see `rows_among`.
    """
    among = rows_among(images, class_name)
    embeddings = images.embeddings if class_name is None else images.embeddings[among]
    positions, cosines = nearest(embeddings, query, top=top)
    nearest_rows = zip(among[positions].tolist(), np.clip(cosines, -1, 1).tolist(), strict=True)
    return [
        Hit(rank, cosine, str(images.split[row]), images.class_names[images.labels[row]], images.ids[row])
        for rank, (row, cosine) in enumerate(nearest_rows, start=1)
    ]


def rows_among(images: Images, class_name: str | None) -> NDArray[np.int64]:
    """The rows of a class, by its name as it is or as prompts say it; for None all rows.

    Raises:
        ConfigError: there is no such class.
        DataError: there is no image to look among.
    """
    rows = np.arange(len(images.ids))
    if class_name is not None:
        rows = np.flatnonzero(images.labels == _label_of(class_name, images.class_names))
    if not len(rows):
        where = "" if class_name is None else f" of the class {class_name!r}"
        raise DataError(f"there is no image{where} to look among", fix="ask in another split, or in all")
    return rows


def _label_of(class_name: str, class_names: Sequence[str]) -> int:
    asked = reading(checked_text(class_name, where="class_name"))
    alike = [label for label, name in enumerate(class_names) if reading(name) == asked]
    if not alike:
        raise ConfigError(f"unknown class {class_name!r}", fix=suggestion(class_name, class_names))
    return alike[0]
