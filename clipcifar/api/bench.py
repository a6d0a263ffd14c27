"""Try prompts without writing anything: the answer from cached embeddings, at once.

A trial is scored on the train images unless asked otherwise, so that trying many prompts does not
use up the test set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcifar.api import trials
from clipcifar.api.opened import Opened
from clipcifar.api.sides import texts_of
from clipcifar.api.trials import Counted, Trials
from clipcifar.core import params
from clipcifar.core.class_files import reading
from clipcifar.core.counts import count_of
from clipcifar.core.errors import ConfigError, DataError
from clipcifar.core.params import suggestion
from clipcifar.evaluation.compare import Comparison, compare
from clipcifar.evaluation.verdict import copies_said, verdict
from clipcifar.methods import zero_shot
from clipcifar.prompts.params import PromptsParams
from clipcifar.prompts.save import save_set
from clipcifar.prompts.templates import PLACEHOLDER
from clipcifar.prompts.typed import expand_typed
from clipcifar.store import inputs
from clipcifar.store.embeddings import ImageEmbeddings, TextEmbeddings
from clipcifar.store.places import IMAGES

SplitName = Literal["train", "test"]
Embed = Callable[[list[str]], NDArray[np.float32]]


class Active(NamedTuple):
    """What prompts are tried against: the section of params.yaml, the images, the active set's sentences."""

    prompts: PromptsParams
    images: ImageEmbeddings
    texts: TextEmbeddings


def read_active(opened: Opened) -> Active:
    """Images and active set of a project; a ClipcifarError where one is missing, damaged or stale."""
    prompts = params.read(opened.settings, "prompts", PromptsParams)
    path = texts_of(prompts.active, opened.root)
    with opened.fresh({IMAGES: IMAGES, path: f"the active set {prompts.active}"}):
        images = opened.images()
        return Active(prompts, images, inputs.matching_texts(opened.root / path, images))


@dataclass(frozen=True)
class Typed:
    """A line as a person types it: one or several templates, or a class's own sentences.

    Attributes:
        line: as it was typed.
        templates: those of it; None where one class has its own sentences.
        sentences: of every class.
    """

    line: str
    templates: list[str] | None
    sentences: dict[str, list[str]]


@dataclass(frozen=True)
class Trial:
    """One prompt, tried: its sentences per class and how it compares with the active set.

    Attributes:
        scores: (N, C) float32 cosines of the images that it was tried on.
        note: what a person should know of the sentences, to follow a sentence; else nothing.
    """

    sentences: dict[str, list[str]]
    comparison: Comparison
    scores: NDArray[np.float32] = field(repr=False)
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
        self.dataset = str(images.attributes["dataset"])
        self._scores: dict[SplitName, NDArray[np.float32]] = {}
        self.active_weights = zero_shot.classifier(active)
        self.active_sentences = _by_class(active.class_index.tolist(), active.sentences, self.class_names)
        self._is_weighted = active.weights is not None

    def family(self, on: SplitName) -> str:
        """Which trials those on a split are corrected together with."""
        return trials.family_of(str(self._images.attributes["fingerprint"]), self.active_sentences, on)

    def typed(self, line: str, base: Mapping[str, list[str]]) -> Typed:
        """What a line says, on top of the sentences that one class's own are laid over.

        Raises:
            ConfigError: what is wrong with a template, or that a class is unknown or has no sentence.
        """
        class_name, colon, rest = line.partition(":")
        own = colon and (class_name.strip() in self.class_names or PLACEHOLDER not in line)
        texts = separated(rest if own else line)
        if own and not texts:
            raise ConfigError(f"no sentence for {class_name.strip()}", fix="write it after the colon")
        if own:
            return Typed(line, None, self.with_class_sentences(base, class_name.strip(), texts))
        return Typed(line, texts, self.from_templates(texts))

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
        own = {"template_mode": "per_class", "dataset": self.dataset, "sentences": {class_name: sentences}}
        return {**base, **self._expand(own, [class_name])}

    def _expand(self, values: Mapping[str, object], class_names: list[str]) -> dict[str, list[str]]:
        expanded = expand_typed(values, class_names=class_names, dataset=self.dataset)
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
        scores = split.embeddings @ weights.T
        comparison = compare(
            self.active_scores(on).argmax(axis=1),
            scores.argmax(axis=1),
            split.labels,
            class_names=self.class_names,
            copies=split.copies,
        )
        of_active = any(sentences[name] is own for name, own in self.active_sentences.items())
        unweighted = "; the active set's weights do not count here" if self._is_weighted and of_active else ""
        return Trial(sentences, comparison, scores, zero_shot.repeated_note(rows, index) + unweighted)

    def keep(self, typed: Typed, name: str, params_path: Path) -> str:
        """Add what was typed to params.yaml as a prompt set; `save_set` says the rest."""
        if typed.templates is not None:
            values: dict[str, Any] = {"template_mode": "shared", "templates": typed.templates}
        else:
            own = typed.sentences
            values = {"template_mode": "per_class", "dataset": self.dataset, "sentences": own}
        return save_set(params_path, name, values, class_names=self.class_names, dataset=self.dataset)

    def active_scores(self, on: SplitName) -> NDArray[np.float32]:
        """(N, C) float32 cosines of a split's images with the classes of the active set, found once."""
        if on not in self._scores:
            self._scores[on] = getattr(self._images, on).embeddings @ self.active_weights.T
        return self._scores[on]


def separated(line: str) -> list[str]:
    """What stands between semicolons, in a session and in a shell alike; nothing of what is empty."""
    return [text.strip() for text in line.split(";") if text.strip()]


class Judged(NamedTuple):
    """A trial that is on record, and what is said of it, a line each."""

    trial: Trial
    counted: Counted
    lines: list[str]


def judge(
    bench: Bench,
    counter: Trials,
    sentences: dict[str, list[str]],
    *,
    prompt: str,
    on: SplitName,
    active: str,
) -> Judged:
    """Try sentences, and count them among all trials of their family.

    Args:
        prompt: as it was typed.
        active: what the active set is called.

    Raises:
        DataError: as `Bench.run`.
    """
    trial = bench.run(sentences, on=on)
    overall = trial.comparison.overall
    counted = counter.count(bench.family(on), trials.tried(sentences, overall, prompt=prompt))
    among_all = trials.among(trial.comparison, counted.total)
    said = verdict(among_all, name_a=active, name_b="this prompt", p_value=counted.p_holm)
    accuracies = f"top-1 {overall.accuracy_b:.4f}, {active} {overall.accuracy_a:.4f}"
    first = f"{accuracies} ({count_of(overall.n, f'{on} image')}){trial.note}"
    lines = [line for line in (first, said, copies_said(overall), *trials.said(counted)) if line]
    return Judged(trial, counted, lines)


def _by_class(index: list[int], sentences: list[str], class_names: list[str]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {name: [] for name in class_names}
    for label, sentence in zip(index, sentences, strict=True):
        grouped[class_names[label]].append(sentence)
    return grouped
