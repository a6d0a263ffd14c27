"""Every classifier on every corruption: one corruption in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError, made_by
from clipcifar.core.files import Attribute, write_json
from clipcifar.evaluation import plots
from clipcifar.evaluation.compare import NamedDifference
from clipcifar.evaluation.metrics import rounded
from clipcifar.methods import zero_shot
from clipcifar.methods.classifiers import Classifier
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.fields import rows_of
from clipcifar.store.predictions import write_answers
from clipcifar.store.prompt_set import PromptSet
from clipcifar.studies.corruptions.images.generated import SEVERITIES
from clipcifar.studies.corruptions.images.kinds import BENCHMARK, means_over, said
from clipcifar.studies.corruptions.images.published import TEST_IMAGES
from clipcifar.studies.corruptions.judge import naming, robustness
from clipcifar.studies.corruptions.judge.naming import Naming, Right
from clipcifar.studies.corruptions.judge.robustness import Answers, Robustness
from clipcifar.studies.corruptions.store import GENERATED, STUDY, Corrupted

REFERENCE = "zero_shot"
_SAME = ("corruption_source", "corruption_severities", "corruption_ids")  # in every file of a run


@dataclass(frozen=True)
class Findings:
    """What was found.

    Attributes:
        source: what the images are called: generated, or by the name of what was published.
        names: the K corruptions.
        severities: the S severities.
        rows, labels: (N,) the test rows that were looked at, and their true classes.
        class_names: C names in label order.
        copies: (N,), equal where two of the images are copies; None where none is one.
        predicted: by classifier, (K, S, N) predicted classes.
        answers: by classifier, whether it was right.
        examples: by corruption, (S, H, W, 3) uint8, one image at every severity.
        naming: the prompts that name a corruption, where there are any.
        attributes: of the corrupted embeddings.
    """

    source: str
    names: list[str]
    severities: list[int]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    class_names: list[str]
    copies: NDArray[np.int64] | None
    predicted: dict[str, NDArray[np.int64]]
    answers: dict[str, Answers]
    examples: dict[str, NDArray[np.uint8]]
    naming: list[Naming]
    attributes: Mapping[str, Attribute]

    @property
    def over(self) -> dict[str, list[int]]:
        """By key of `kinds.MEANS`, which of the K corruptions that mean is over."""
        return {
            key: [self.names.index(name) for name in names] for key, names in means_over(self.names).items()
        }

    @property
    def first(self) -> str:
        """The mean that methods are compared by."""
        return next(iter(self.over))

    def said(self, key: str) -> str:
        """What a mean is over, in words."""
        return said(key, len(self.over[key]))

    @property
    def is_published_protocol(self) -> bool:
        """Whether the mean over the benchmark is of all that a published one is of."""
        whole = len(BENCHMARK), SEVERITIES, TEST_IMAGES
        looked_at = len(self.over.get("benchmark", [])), len(self.severities), len(self.rows)
        return self.source != GENERATED and looked_at == whole

    @cached_property
    def robustness(self) -> dict[str, Robustness]:
        """By classifier, what it keeps."""
        return {method: robustness.robustness(answers, self.over) for method, answers in self.answers.items()}

    @cached_property
    def versus(self) -> list[NamedDifference]:
        """Every other classifier minus the reference."""
        compared = {name: answers.under(self.over[self.first]) for name, answers in self.answers.items()}
        reference = compared.pop(REFERENCE)
        about: dict[str, Any] = {"class_names": self.class_names, "copies": self.copies}
        return robustness.against(reference, compared, self.labels, **about)


def text_classifier(weights: NDArray[np.float32], images: ImageEmbeddings) -> Classifier:
    """The zero-shot classifier of (C, D) float32 unit rows."""
    return partial(zero_shot.logits, weights=weights, logit_scale=images.logit_scale)


def prompt_classifier(
    prompts: PromptSet, embeddings: Mapping[str, NDArray[np.float32]], images: ImageEmbeddings
) -> Classifier:
    """The zero-shot classifier of an expanded set whose sentences are embedded."""
    rows = np.stack([embeddings[sentence] for sentence in prompts.sentences])
    index = np.array(prompts.class_index, dtype=np.int64)
    about: dict[str, Any] = {"class_names": images.class_names, "where": f"prompt set {prompts.name}"}
    weights = zero_shot.text_classifier(rows, index, **about, sentence_weights=prompts.weights)
    return text_classifier(weights, images)


@made_by(STUDY)
def measure(
    corruptions: Iterable[Corrupted],
    images: ImageEmbeddings,
    classifiers: Mapping[str, Classifier],
    naming_sets: Mapping[str, tuple[int, Classifier]],
) -> Findings:
    """Score every classifier on clean and corrupted test images.

    Test labels are read here; nothing is chosen by what is found.

    Args:
        corruptions: read one after another, each dropped before the next.
        images: the uncorrupted embeddings.
        classifiers: by method, `REFERENCE` among them.
        naming_sets: by corruption, the number of sentences and the classifier that names it.

    Raises:
        DataError: the corruptions are not of one run, or there is none.
    """
    same: dict[str, Attribute | None] = {}
    attributes: Mapping[str, Attribute] = {}
    predicted: dict[str, list[NDArray[np.int64]]] = {method: [] for method in classifiers}
    examples, rights, severities = {}, {}, []
    rows = np.zeros(0, dtype=np.int64)
    for corrupted in corruptions:
        about = {key: corrupted.attributes.get(key) for key in _SAME}
        if same and about != same:
            raise DataError(f"{corrupted.name} is not of the same run as the others", fix="run `dvc repro`")
        if not same:
            same, severities = about, corrupted.severities
            rows = rows_of(corrupted.ids, images.test.ids, what="the test images")
            (clean, labels), attributes = images.test.part(rows), corrupted.attributes
        examples[corrupted.name] = corrupted.examples
        for method, classifier in classifiers.items():
            predicted[method].append(_said(classifier, corrupted.embeddings))
        if corrupted.name in naming_sets:
            count, classifier = naming_sets[corrupted.name]
            said = classifier(clean).argmax(axis=1), _said(classifier, corrupted.embeddings)
            rights[corrupted.name] = count, Right(*(answer == labels for answer in said))
    if not same:
        raise DataError("there is no corruption to look at", fix="run `dvc repro`")
    stacked = {method: np.stack(said) for method, said in predicted.items()}
    answers = {
        method: Answers(classifier(clean).argmax(axis=1) == labels, stacked[method] == labels)
        for method, classifier in classifiers.items()
    }
    active = {
        name: Right(answers[REFERENCE].clean, right)
        for name, right in zip(examples, answers[REFERENCE].corrupted, strict=True)
    }
    copies = None if images.test.copies is None else images.test.copies[rows]
    about_images: dict[str, Any] = {"class_names": images.class_names, "copies": copies}
    return Findings(
        source=str(same["corruption_source"]),
        names=list(examples),
        severities=severities,
        rows=rows,
        labels=labels,
        **about_images,
        predicted=stacked,
        answers=answers,
        examples=examples,
        naming=naming.against_active(active, rights, labels, **about_images),
        attributes=attributes,
    )


def _said(classifier: Classifier, embeddings: NDArray[np.float32]) -> NDArray[np.int64]:
    """(S, N) predicted classes of (S, N, D) embeddings."""
    return np.stack([classifier(rows).argmax(axis=1) for rows in embeddings])


def as_metrics(findings: Findings) -> dict[str, Any]:
    """By method what it keeps and how it differs from zero-shot; by corruption what naming it does."""
    options: dict[str, Any] = {"names": findings.names, "severities": findings.severities}
    versus = {item.name: item.as_metrics() for item in findings.versus}
    return {
        "n": len(findings.rows),
        "n_corruptions": {key: len(rows) for key, rows in findings.over.items()},
        **{
            method: {
                **robustness.as_nested(kept, **options),
                **({"vs_zero_shot": versus[method]} if method in versus else {}),
            }
            for method, kept in findings.robustness.items()
        },
        "naming": {
            item.name: {
                "active": item.corrupted.accuracy_a,
                "naming": item.corrupted.accuracy_b,
                **NamedDifference(item.name, item.corrupted, item.p_holm).as_metrics(),
                "clean_difference": item.clean.difference,
            }
            for item in findings.naming
        },
    }


def write(folder: Path, findings: Findings, images: ImageEmbeddings) -> None:
    """Write metrics.json, the CSV files of the plots, and every answer.

    predictions.h5 holds `<method>/<corruption>`, (S, N) int64 classes, with labels and ids of the N
    images. accuracy.csv has a row for each method, corruption and severity, zero_shot.csv the mean
    over severities by corruption.
    """
    options: dict[str, Any] = {"names": findings.names, "severities": findings.severities}
    plots.write_csv(folder / "accuracy.csv", robustness.accuracy_rows(findings.answers, **options))
    means = findings.robustness[REFERENCE].accuracy.mean(axis=1).tolist()
    by_name = zip(findings.names, means, strict=True)
    plots.write_csv(
        folder / "zero_shot.csv", [{"corruption": name, "accuracy": mean} for name, mean in by_name]
    )
    answers = {
        f"{method}/{name}": said
        for method, by_corruption in findings.predicted.items()
        for name, said in zip(findings.names, by_corruption, strict=True)
    }
    write_answers(
        folder / "predictions.h5",
        answers,
        images,
        kind="corruption predictions",
        rows=findings.rows,
        attributes={"corruption_source": findings.source},
    )
    write_json(folder / "metrics.json", rounded(as_metrics(findings)))
