"""A finished project from Python: what its stages left, and what can be asked of it."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.api import sides
from clipcifar.api.classifier import Classifier, Inputs, of_labels, zero_shot
from clipcifar.api.given import texts
from clipcifar.api.images import PARTS, Images, images_of
from clipcifar.api.opened import IMAGES, MODEL, SPLITS, Opened, check_name
from clipcifar.api.pictures import PictureEmbedder
from clipcifar.core import params
from clipcifar.core.errors import ConfigError
from clipcifar.core.files import read_json
from clipcifar.evaluation import headline
from clipcifar.evaluation.names import METHODS
from clipcifar.project.root import find_root
from clipcifar.prompts.params import PromptsParams
from clipcifar.prompts.typed import expand_typed
from clipcifar.store import inputs
from clipcifar.store.embeddings import TextEmbeddings
from clipcifar.store.model import ModelDescription
from clipcifar.store.predictions import Predictions, read_predictions

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

    from clipcifar.api.comparing import Compared

_RANKING = "data/ranking.json"


def open(folder: str | os.PathLike[str] = ".") -> Project:
    """Open the project that a folder lies in, found upward as git finds its own.

    Nothing is read yet, and no file stays open: `dvc repro` may run beside it.

    Raises:
        ConfigError: there is no such folder, or none from it upward holds params.yaml and dvc.yaml.
    """
    try:
        place = Path(folder).expanduser().resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:  # also of a current folder that was deleted
        raise ConfigError(
            f"there is no such folder: {error}", where=str(folder), fix="name the folder of a project"
        ) from error
    return Project(Opened(find_root(place), on_note=_warn))


def _warn(said: str) -> None:
    """Warn of the line outside this package that asked, whatever lies between."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in (
        "clipcifar",
        "contextlib",
    ):
        level, frame = level + 1, frame.f_back
    warnings.warn(said, stacklevel=level)


class Project:
    """A project with results; `clipcifar.open` makes one.

    Whatever is asked for is read then, and checked as the commands check it: files against their digests,
    results against params.yaml and dvc.lock. What is damaged or stale raises a `ClipcifarError`, whose text
    names the command that mends it; where nothing but code has changed since, a warning says so.
    """

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    def __repr__(self) -> str:
        return f"clipcifar.open({str(self.root)!r})"

    @property
    def root(self) -> Path:
        """The project's folder, absolute."""
        return self._opened.root

    @property
    def class_names(self) -> list[str]:
        """The C class names in label order."""
        with self._opened.fresh({IMAGES: IMAGES}):
            return self._opened.images().class_names

    @property
    def prompt_sets(self) -> list[str]:
        """Names of the embedded prompt sets."""
        return sides.embedded_sets(self.root)

    @property
    def methods(self) -> list[str]:
        """The methods whose predictions are here."""
        return [name for name in METHODS if (self.root / sides.PREDICTIONS / f"{name}.h5").is_file()]

    @property
    def provenance(self) -> dict[str, Any]:
        """What the image embeddings were made of: model, weights, preprocessing, data, libraries, digests."""
        with self._opened.fresh({IMAGES: IMAGES, MODEL: MODEL}):
            images, model = self._opened.images(), ModelDescription.read(self.root / MODEL)
            more = {"weights_source": model.source, "remarks": model.remarks}
            return {**images.attributes, "class_names": images.class_names, **more}

    def images(self, split: str | None = None) -> Images:
        """The embedded images.

        Args:
            split: "train" (what val leaves of the official train images), "val" or "test"; None for all.
        """
        if split is not None:
            check_name(split, PARTS, what="split")
        with self._opened.fresh({IMAGES: IMAGES, SPLITS: SPLITS}):
            images = images_of(self._opened.images(), self._opened.val())
        return images if split is None else images.of(split)

    def prompt_set(self, name: str) -> TextEmbeddings:
        """An embedded prompt set: its sentences, their embeddings and the classes that they speak for."""
        if isinstance(name, str) and name not in self.prompt_sets:
            with self._opened.explained():
                sides.check_embedded(name, self.root)
        check_name(name, self.prompt_sets, what="embedded prompt set")
        path = sides.texts_of(name, self.root)
        with self._opened.fresh({path: f"the set {name}", IMAGES: IMAGES}):
            return inputs.matching_texts(self.root / path, self._opened.images())

    def scored(self, method: str) -> Predictions:
        """What a method says of the test images: (N, C) scores, (N,) labels, N ids, and attributes."""
        check_name(method, METHODS, what="method")
        path = f"{sides.PREDICTIONS}/{method}.h5"
        with self._opened.fresh({path: method}, learner=method):
            return read_predictions(self.root / path)

    def metrics(self, method: str) -> dict[str, Any]:
        """All numbers of a method, the headline first; docs/metrics.md says what they mean."""
        check_name(method, METHODS, what="method")
        of_method = {f"{folder}/{method}.json": method for folder in ("metrics", "metrics/details")}
        with self._opened.fresh(of_method, learner=method):
            return headline.read(self.root / "metrics", method)

    def classifier(self, method: str) -> Classifier:
        """What a method made: `zero_shot` is of the active set, `rank_prompts` of the prompts it chose."""
        check_name(method, METHODS, what="method")
        if method == "zero_shot":
            return self.zero_shot()
        temperature = float(self.scored(method).attributes["temperature"])
        if method == "rank_prompts":
            with self._opened.fresh({_RANKING: "the ranking"}):
                values = read_json(self.root / _RANKING)["set"]
            return self._typed(values, name=method)
        from clipcifar.methods.classifiers import head  # scipy, which images and sentences do without

        path = f"data/heads/{method}.h5"
        with self._opened.fresh({path: f"the head of {method}", IMAGES: IMAGES}):
            embed = PictureEmbedder.of(self._opened)
            logits = head(self.root / path, embed.images, method=method)
        dim = embed.images.test.embeddings.shape[1]
        return Classifier(method, embed.images.class_names, temperature, dim, logits, embed)

    def zero_shot(
        self,
        prompt_set: str | None = None,
        *,
        templates: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
    ) -> Classifier:
        """The zero-shot classifier of any sentences.

        Args:
            prompt_set: an embedded set, by default the active one; or
            templates: with `{classname}`, for the dataset's classes; or
            labels: classes of one's own, each a sentence.
        """
        if sum(given is not None for given in (prompt_set, templates, labels)) > 1:
            raise ConfigError("give a prompt set, templates or labels, not several of them")
        if labels is not None:
            labels = texts(labels, what="label")
            rows, embed = self.embed_sentences(labels), PictureEmbedder.of(self._opened)
            return of_labels(labels, rows, logit_scale=embed.images.logit_scale, embed=embed)
        if templates is not None:
            given = texts(templates, what="template")
            return self._typed({"template_mode": "shared", "templates": given}, name="templates")
        if prompt_set is None:
            prompt_set = params.read(self._opened.settings, "prompts", PromptsParams).active
        of_set = self.prompt_set(prompt_set)
        return self._zero_shot(prompt_set, of_set.embeddings, of_set.class_index)

    def linear_probe(self) -> LogisticRegression:
        """The linear probe as a fitted scikit-learn estimator, its classes the labels 0 to C - 1."""
        from clipcifar.api.estimator import logistic_regression

        path = "data/heads/linear_probe.h5"
        with self._opened.fresh({path: "the linear probe", IMAGES: IMAGES}, learner="linear_probe"):
            return logistic_regression(self.root / path, self._opened.images())

    def compare(self, a: str, b: str, *, method: str = "zero_shot") -> Compared:
        """Is B really better than A? Paired statistics on the same test images, as `clipcifar compare`.

        Args:
            a, b: a prompt set, a method, a git revision, an experiment, or "workspace".
            method: whose predictions are meant by a revision or the workspace.
        """
        from clipcifar.api.comparing import compare_sides

        check_name(method, METHODS, what="method")
        a, b = texts([a, b], what="side")
        with self._opened.explained():
            return compare_sides(a, b, repository=self.root, method=method, on_note=self._opened.on_note)

    def embed_sentences(self, sentences: Iterable[str]) -> NDArray[np.float32]:
        """Embed S sentences, (S, D) float32 unit rows; those known to the memo need no tower."""
        given = texts(sentences, what="sentence")
        with self._opened.fresh({IMAGES: IMAGES, MODEL: MODEL}):
            return self._opened.embed_sentences(self._opened.images(), given)

    def embed_images(self, images: Inputs) -> NDArray[np.float32]:
        """Embed N images, (N, D) float32 unit rows, by the frozen tower; `Classifier` says what is one."""
        with self._opened.fresh({IMAGES: IMAGES, MODEL: MODEL}):
            return PictureEmbedder.of(self._opened)(images)

    def load(self) -> None:
        """Load the frozen towers now, which else the first image does; threads may share the project."""
        with self._opened.fresh({IMAGES: IMAGES, MODEL: MODEL}):
            self._opened.backbone(self._opened.images())

    def _typed(self, values: Mapping[str, Any], *, name: str) -> Classifier:
        with self._opened.fresh({IMAGES: IMAGES}):
            images = self._opened.images()
        dataset = str(images.attributes["dataset"])
        prompts = expand_typed(values, class_names=images.class_names, dataset=dataset)
        rows = self.embed_sentences(prompts.sentences)
        return self._zero_shot(name, rows, np.array(prompts.class_index))

    def _zero_shot(
        self, name: str, embeddings: NDArray[np.float32], class_index: NDArray[np.int64]
    ) -> Classifier:
        with self._opened.fresh({IMAGES: IMAGES, SPLITS: SPLITS}):
            embed, val = PictureEmbedder.of(self._opened), self._opened.val()
            return zero_shot(name, embeddings, class_index, images=embed.images, val=val, embed=embed)
