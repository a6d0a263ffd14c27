"""What every question to a project begins with: is the result fresh, the file whole, the model the same?"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.backbone.params import EmbedParams
from clipcifar.core import params
from clipcifar.core.errors import ClipcifarError, ConfigError, DataError
from clipcifar.core.params import suggestion
from clipcifar.embeddings.sentences import SentenceEmbedder
from clipcifar.evaluation.names import LEARNING
from clipcifar.project import freshness, missing
from clipcifar.store import inputs
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.model import ModelDescription, check_described, embedding_dim
from clipcifar.store.places import IMAGES, MODEL, SPLITS, WEIGHTS

if TYPE_CHECKING:
    from clipcifar.backbone.towers import Backbone


class Opened:
    """A project's folder with what was read of it once.

    Args:
        root: the folder, absolute.
        on_note: told what is to be known of a result that is given all the same.
    """

    def __init__(self, root: Path, *, on_note: Callable[[str], object]) -> None:
        self.root = root
        self.on_note = on_note
        self._images: tuple[object, ImageEmbeddings] | None = None
        self._embedder: tuple[ModelDescription, SentenceEmbedder] | None = None
        self._loaded: tuple[ModelDescription, Backbone] | None = None
        self._lock = RLock()

    @property
    def settings(self) -> dict[str, Any]:
        """params.yaml as it is now."""
        return params.load(self.root / "params.yaml")

    @contextmanager
    def fresh(self, results: Mapping[str, str], *, learner: str = "") -> Iterator[None]:
        """Refuse stale results, and explain what goes wrong while they are read.

        Args:
            results: by path from the root what a person calls them.
            learner: whose they are, if a method's.
        """
        with self.explained():
            if learner in LEARNING:  # no run can bring what is stale of an earlier dataset, either
                freshness.refuse_without_train(self.root, f"{learner} needs")
            for said in freshness.refuse_stale(self.root, results):
                self.on_note(said)
            yield

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Let an error about a file that DVC or a remote has say first what brings it."""
        try:
            yield
        except ClipcifarError as error:
            missing.explain(error, self.root)
            raise

    def images(self) -> ImageEmbeddings:
        """The image embeddings, of the model that params.yaml asks for; once while none of its files changes.

        Whether they are stale is for `fresh` to say.
        """
        path = self.root / IMAGES
        states = [file.stat() for file in (path, *sorted(path.glob("*.h5"))) if file.exists()]
        written = [(status.st_ino, status.st_size, status.st_mtime_ns) for status in states]
        if self._images is None or self._images[0] != written:
            self._images = written, inputs.requested_images(path, self.settings)
        return self._images[1]

    def val(self, images: ImageEmbeddings) -> NDArray[np.int64]:
        """The val rows of the official train images, maybe none."""
        return inputs.val_of(images, self.root / SPLITS)

    def model(self, images: ImageEmbeddings | None = None) -> ModelDescription:
        """What was resolved last.

        Raises:
            DataError: it is not what these images went through.
        """
        try:
            model = ModelDescription.read(self.root / MODEL)
        except DataError as error:  # it needs no dataset
            error.fix = error.fix.replace("`dvc repro`", "`dvc repro fetch_model`")
            raise
        if images is not None:
            check_described(images.attributes, model)
        return model

    def sentences(self, model: ModelDescription) -> SentenceEmbedder:
        """What embeds sentences by a model, and holds its towers; not for several threads.

        Raises:
            DataError: another model was resolved since.
        """
        with self._lock:
            if not _is_same(self.model(), model):
                raise DataError(
                    "another model was resolved since this one was opened",
                    where=str(self.root / MODEL),
                    fix="open the project again",
                )
            if self._embedder is None or not _is_same(self._embedder[0], model):
                embed = params.read(self.settings, "embed", EmbedParams)
                embedder = SentenceEmbedder(model, self.root / WEIGHTS, embed, repository=self.root)
                self._embedder = model, embedder
            return self._embedder[1]

    def embed_sentences(
        self, model: ModelDescription, sentences: list[str], *, where: str = "the sentences"
    ) -> NDArray[np.float32]:
        """Embed S sentences, (S, D) float32 unit rows; one thread at a time.

        Args:
            where: they are from, for messages.
        """
        if not sentences:
            return np.zeros((0, self.dim), np.float32)
        with self._lock, _no_word_of_widgets():
            embedder = self.sentences(model)
            embeddings, _ = embedder.embed(dict.fromkeys(sentences, where))
            return embedder.stacked(embeddings, sentences)

    @property
    def dim(self) -> int:
        """D of an embedding."""
        return embedding_dim(self.root / WEIGHTS)

    def backbone(self, model: ModelDescription) -> Backbone:
        """Both towers, loaded once, whichever of several threads comes first.

        Once loaded they serve whatever a later run puts into the folder, or is about to.
        """
        loaded = self._loaded
        if loaded is None or not _is_same(loaded[0], model):
            with self._lock, _no_word_of_widgets():
                self._loaded = loaded = model, self.sentences(model).load()
        return loaded[1]


@contextmanager
def _no_word_of_widgets() -> Iterator[None]:
    """What open_clip imports asks in a notebook for widgets, which nothing here draws."""
    if "tqdm.auto" in sys.modules:
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        yield


def warn_caller(said: str) -> None:
    """Warn of the line outside this package that asked, whatever lies between."""

    def is_inside(namespace: Mapping[str, Any]) -> bool:  # code that is evaluated may have no name
        return str(namespace.get("__name__")).partition(".")[0] in ("clipcifar", "contextlib")

    level, frame = 1, sys._getframe()
    while frame.f_back and is_inside(frame.f_globals):
        level, frame = level + 1, frame.f_back
    warnings.warn(said, stacklevel=level)


def _is_same(a: ModelDescription, b: ModelDescription) -> bool:
    """Whether two descriptions are of the same weights, wherever these came from."""
    return a.attributes() == b.attributes()


def check_name(name: object, known: Iterable[str], *, what: str) -> None:
    """Raise ConfigError, with the nearest of those that are known, for another name."""
    names = list(known)
    if not isinstance(name, str):
        raise ConfigError(
            f"expected text, the name of the {what}; found {type(name).__name__}", fix=suggestion("", names)
        )
    if name not in names:
        raise ConfigError(f"there is no {what} {name!r}", fix=suggestion(name, names))
