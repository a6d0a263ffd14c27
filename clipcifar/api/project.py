"""A finished project from Python: what its stages left, and what can be asked of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.api import classifiers, find, sides
from clipcifar.api.classifier import Classifier, Inputs, Picture
from clipcifar.api.find import Hit
from clipcifar.api.given import texts
from clipcifar.api.images import PARTS, Images, images_of
from clipcifar.api.opened import Opened, check_name, warn_caller
from clipcifar.api.pictures import PictureEmbedder
from clipcifar.api.tables import Columns, answers_of, as_frame
from clipcifar.core.errors import ConfigError
from clipcifar.evaluation import headline
from clipcifar.evaluation.names import METHODS
from clipcifar.project.root import find_root
from clipcifar.store.embeddings import TextEmbeddings
from clipcifar.store.places import IMAGES, MODEL, SPLITS, head_of, metrics_of, predictions_of
from clipcifar.store.predictions import Predictions

if TYPE_CHECKING:
    import pandas
    from sklearn.linear_model import LogisticRegression

    from clipcifar.api.comparing import Compared


def open(folder: str | os.PathLike[str] = ".") -> Project:
    """Open the project that a folder lies in, found upward as git finds its own.

    Nothing is read yet, and no file stays open: `dvc repro` may run beside it.

    >>> open(folder).methods
    ['zero_shot', 'rank_prompts', 'prompt_weighting', 'gda', 'linear_probe', 'mlp_probe', 'projection']

    Raises:
        ConfigError: there is no such folder, or none from it upward holds params.yaml and dvc.yaml.
    """
    try:
        place = Path(folder).expanduser().resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:  # also of a current folder that was deleted
        fix = "name the folder of a project"
        raise ConfigError(f"there is no such folder: {error}", where=str(folder), fix=fix) from error
    return Project(Opened(find_root(place), on_note=warn_caller))


class Project:
    """A project with results; `clipcifar.open` makes one.

    Whatever is asked for is read then, and checked as the commands check it: files against their digests,
    results against params.yaml and dvc.lock. What is damaged or stale raises a `ClipcifarError`, whose text
    names the command that mends it; where only code has changed since, a warning says so. Examples: the demo.

    >>> project.class_names[:3]
    ['zero', 'one', 'two']
    >>> project.provenance["dataset"], project.provenance["model"]
    ('digits', 'local-dir:data/demo/clip')
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
        return [name for name in METHODS if (self.root / predictions_of(name)).is_file()]

    @property
    def provenance(self) -> dict[str, Any]:
        """What the image embeddings were made of: model, weights, preprocessing, data, libraries, digests."""
        with self._opened.fresh({IMAGES: IMAGES, MODEL: MODEL}):
            images = self._opened.images()
            model = self._opened.model(images)
            more = {"class_names": images.class_names, "weights_source": model.source}
            return {**images.attributes, **more, "remarks": model.remarks}

    def images(self, split: str | None = None) -> Images:
        """The embedded images.

        Args:
            split: "train" (what val leaves of the official train images), "val" or "test"; None for all.

        >>> images = project.images("test")
        >>> images.embeddings.shape, images.ids[1], images.class_names[images.labels[1]]
        ((397, 32), 'test/00008', 'eight')
        """
        if split is not None:
            check_name(split, PARTS, what="split")
        with self._opened.fresh({IMAGES: IMAGES, SPLITS: SPLITS}):
            embedded = self._opened.images()
            return images_of(embedded, self._opened.val(embedded), split)

    def prompt_set(self, name: str) -> TextEmbeddings:
        """An embedded prompt set: its sentences, their embeddings and the classes that they speak for.

        >>> project.prompt_set("photo").embeddings.shape
        (10, 32)
        """
        return classifiers.prompt_set(self._opened, name)[0]

    def scored(self, method: str) -> Predictions:
        """What a method says of the test images: (N, C) scores, (N,) labels, N ids, and attributes."""
        return classifiers.scored(self._opened, method)

    def predictions(self, method: str) -> pandas.DataFrame | Columns:
        """What a method says of each test image: id, label, predicted, probability (calibrated), margin.

        Returns:
            A DataFrame where pandas is installed, else a dict of arrays; `answers_of` says more.

        >>> list(project.predictions("linear_probe"))
        ['id', 'label', 'predicted', 'probability', 'margin']
        """
        return as_frame(answers_of(self.scored(method)))

    def metrics(self, method: str) -> dict[str, Any]:
        """All numbers of a method, the headline first; docs/metrics.md says what they mean."""
        classifiers.check_method(self._opened, method)
        with self._opened.fresh(dict.fromkeys(metrics_of(method), method), learner=method):
            return headline.read(self.root / "metrics", method)

    def classifier(self, method: str) -> Classifier:
        """What a method made: `zero_shot` is of the active set, `rank_prompts` of the prompts it chose.

        >>> project.classifier("linear_probe").predict(project.images("test").embeddings[1:3])
        ['eight', 'three']
        """
        return classifiers.of_method(self._opened, method)

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

        >>> either = project.zero_shot(labels=["a drawing of one", "a drawing of eight"])
        >>> either.predict(project.images("test").embeddings[1:2])
        ['a drawing of eight']
        """
        if sum(given is not None for given in (prompt_set, templates, labels)) > 1:
            raise ConfigError("give a prompt set, templates or labels, not several of them")
        if labels is not None:
            return classifiers.of_labels(self._opened, labels)
        if templates is not None:
            return classifiers.of_templates(self._opened, templates)
        return classifiers.of_prompt_set(self._opened, prompt_set)

    def linear_probe(self) -> LogisticRegression:
        """The linear probe as a fitted scikit-learn estimator, its classes the labels 0 to C - 1.

        >>> project.linear_probe().predict(project.images("test").embeddings[1:2])
        array([8])
        """
        from clipcifar.api.estimator import logistic_regression

        path = head_of("linear_probe")
        with self._opened.fresh({path: "the linear probe", IMAGES: IMAGES}, learner="linear_probe"):
            return logistic_regression(self.root / path, self._opened.images())

    def compare(self, a: str, b: str, *, method: str = "zero_shot") -> Compared:
        """Is B really better than A? Paired statistics on the same test images, as `clipcifar compare`.

        Args:
            a, b: a prompt set, a method, a git revision, an experiment, or "workspace".
            method: whose predictions are meant by a revision or the workspace.

        >>> project.compare("photo", "photo").verdict
        'photo and photo are right on exactly the same images.'
        """
        from clipcifar.api.comparing import compare_sides

        check_name(method, METHODS, what="method")
        a, b = texts([a, b], what="side")
        with self._opened.explained():
            return compare_sides(a, b, repository=self.root, method=method, on_note=self._opened.on_note)

    def embed_sentences(self, sentences: Iterable[str]) -> NDArray[np.float32]:
        """Embed S sentences, (S, D) float32 unit rows; those known to the memo need no tower."""
        return classifiers.embed_sentences(self._opened, texts(sentences, what="sentence"))

    def embed_images(self, images: Inputs) -> NDArray[np.float32]:
        """Embed N images, (N, D) float32 unit rows, by the frozen tower; `Classifier` says what is one.

        >>> project.embed_images([np.zeros((32, 32, 3), np.uint8)]).shape
        (1, 32)
        """
        with self._opened.fresh({MODEL: MODEL}):
            return PictureEmbedder.of(self._opened)(images)

    def find(
        self,
        text: str | None = None,
        *,
        image: Picture | None = None,
        top: int = 12,
        split: str | None = None,
        class_name: str | None = None,
    ) -> list[Hit]:
        """The images nearest to a sentence, or to an image, by the cosine of embeddings; the nearest first.

        Args:
            text, image: what to look for, one of the two; `Classifier` says what is an image.
            top: how many; all where there are fewer.
            split, class_name: where to look; None for everywhere.

        >>> [hit.label for hit in project.find("a drawing of zero", top=2)]
        ['zero', 'zero']
        """
        return find.find(self._opened, text, image, top=top, split=split, class_name=class_name)

    def load(self) -> None:
        """Load the frozen towers now, which else the first image does; threads may share the project."""
        with self._opened.fresh({MODEL: MODEL}):
            self._opened.backbone(self._opened.model())
