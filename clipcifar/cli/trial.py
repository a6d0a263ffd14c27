"""Try prompts without writing anything: the answer from cached embeddings, at once.

A trial is scored on the train images unless asked otherwise, so that trying many prompts does not
use up the test set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clipcifar.api import trials
from clipcifar.core.class_files import reading
from clipcifar.core.errors import ConfigError, DataError
from clipcifar.core.params import suggestion
from clipcifar.evaluation.compare import Comparison, compare
from clipcifar.methods import zero_shot
from clipcifar.prompts.typed import expand_typed
from clipcifar.store.embeddings import ImageEmbeddings, TextEmbeddings

SplitName = Literal["train", "test"]
Embed = Callable[[list[str]], NDArray[np.float32]]


@dataclass(frozen=True)
class Trial:
    """One prompt, tried: its sentences per class and how it compares with the active set.

    Attributes:
        note: what a person should know of the sentences, to follow a sentence; else nothing.
    """

    sentences: dict[str, list[str]]
    comparison: Comparison
    note: str = ""


class Bench:
    """What trials are made on: the image embeddings, the active set, and a way to embed sentences.

    Args:
        images: the cached images.
        active: the cached active prompt set, which every trial is compared with.
        embed: S sentences to (S, D) float32 unit rows.
    """

    def __init__(self, images: ImageEmbeddings, active: TextEmbeddings, embed: Embed) -> None:
        self._images, self._embed = images, embed
        self.class_names = images.class_names
        self._dataset = str(images.attributes["dataset"])
        self._predicted: dict[SplitName, NDArray[np.int64]] = {}
        self._active_weights = zero_shot.classifier(active)
        self.active_sentences = _by_class(active.class_index.tolist(), active.sentences, self.class_names)
        self._is_weighted = active.weights is not None

    def family(self, on: SplitName) -> str:
        """Which trials those on a split are corrected together with."""
        return trials.family_of(str(self._images.attributes["fingerprint"]), self.active_sentences, on)

    def from_templates(self, templates: list[str]) -> dict[str, list[str]]:
        """Expand templates for all classes; ConfigError says what is wrong with one."""
        return self._expand({"template_mode": "shared", "templates": templates}, self.class_names)

    def with_class_sentences(
        self, base: Mapping[str, list[str]], class_name: str, sentences: list[str]
    ) -> dict[str, list[str]]:
        """Sentences of all classes with those of one replaced; ConfigError for an unknown class.

        The class is written as it is, or as prompts say it, with spaces for underscores.
        """
        if class_name not in self.class_names:
            alike = [name for name in self.class_names if reading(name) == reading(class_name)]
            if not alike:
                raise ConfigError(
                    f"unknown class {class_name!r}", fix=suggestion(class_name, self.class_names)
                )
            class_name = alike[0]
        own = {"template_mode": "per_class", "dataset": self._dataset, "sentences": {class_name: sentences}}
        return {**base, **self._expand(own, [class_name])}

    def _expand(self, values: Mapping[str, object], class_names: list[str]) -> dict[str, list[str]]:
        expanded = expand_typed(values, class_names=class_names, dataset=self._dataset)
        return _by_class(expanded.class_index, expanded.sentences, class_names)

    def check(self, on: SplitName) -> None:
        """Raise DataError where a split has no images: a dataset may have those of test alone."""
        if not len(getattr(self._images, on).ids):
            raise DataError(
                f"prompts are tried on {on} images, and this dataset has none: add {on}/<class>/…, or try on "
                "the test images with `--on test`, in a session `:on test`, and know that it uses them up"
            )

    def run(self, sentences: dict[str, list[str]], *, on: SplitName) -> Trial:
        """Score sentences on one official split and compare with the active set, image by image.

        Args:
            sentences: every class's sentences, as `from_templates` gives them.
            on: "train" to choose by, "test" to report.

        Raises:
            DataError: see `check`.
        """
        self.check(on)
        split = getattr(self._images, on)
        flat = [sentence for name in self.class_names for sentence in sentences[name]]
        index = np.repeat(
            np.arange(len(self.class_names)), [len(sentences[name]) for name in self.class_names]
        )
        rows = self._embed(flat)
        weights = zero_shot.text_classifier(rows, index, class_names=self.class_names, where="the prompt")
        predicted = (split.embeddings @ weights.T).argmax(axis=1)
        comparison = compare(
            self._active(on), predicted, split.labels, class_names=self.class_names, copies=split.copies
        )
        of_active = any(sentences[name] is own for name, own in self.active_sentences.items())
        unweighted = "; the active set's weights do not count here" if self._is_weighted and of_active else ""
        return Trial(sentences, comparison, zero_shot.repeated_note(rows, index) + unweighted)

    def _active(self, on: SplitName) -> NDArray[np.int64]:
        """What the active set says of a split, found once."""
        if on not in self._predicted:
            split = getattr(self._images, on)
            self._predicted[on] = (split.embeddings @ self._active_weights.T).argmax(axis=1)
        return self._predicted[on]


def _by_class(index: list[int], sentences: list[str], class_names: list[str]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {name: [] for name in class_names}
    for label, sentence in zip(index, sentences, strict=True):
        grouped[class_names[label]].append(sentence)
    return grouped
