"""Every classifier on every corruption in numbers and sentences; one corruption in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError, made_by
from clipcifar.core.files import Attribute, write_json
from clipcifar.evaluation import plots
from clipcifar.evaluation.compare import NamedDifference
from clipcifar.evaluation.metrics import rounded
from clipcifar.evaluation.names import METHODS
from clipcifar.evaluation.seeds import covers_said
from clipcifar.evaluation.verdict import difference_said
from clipcifar.methods import zero_shot
from clipcifar.methods.classifiers import Classifier
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.fields import rows_of
from clipcifar.store.predictions import write_answers
from clipcifar.store.prompt_set import PromptSet
from clipcifar.studies.corruptions.images.generated import SEVERITIES
from clipcifar.studies.corruptions.images.kinds import BENCHMARK
from clipcifar.studies.corruptions.images.published import TEST_IMAGES
from clipcifar.studies.corruptions.judge import naming, robustness
from clipcifar.studies.corruptions.judge.naming import Right
from clipcifar.studies.corruptions.judge.outcome import REFERENCE, Findings
from clipcifar.studies.corruptions.judge.robustness import Answers, percent, share_text
from clipcifar.studies.corruptions.store import GENERATED, STUDY, Corrupted

_SAME = ("corruption_source", "corruption_severities", "corruption_ids")  # in every file of a run


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


def verdicts(findings: Findings, active: str) -> list[str]:
    """What zero-shot keeps, every method against it, and what naming a corruption does for the active set."""
    robust, first = findings.robustness[REFERENCE], findings.first
    kept = robust.over[first]
    sentences = [
        f"In the mean over {findings.said(first)}, zero-shot is right on {share_text(kept.mean)} %, and on "
        f"{percent(robust.clean.value)} % of the clean images: it loses {share_text(kept.drop)} % of its "
        f"accuracy{_extremes(findings)}.",
        *(
            f"In the mean over {findings.said(key)}, it is right on {share_text(other.mean)} %."
            for key, other in robust.over.items()
            if key != first
        ),
    ]
    if findings.source != GENERATED:
        sentences.append(_protocol(findings))
    for item in findings.versus:
        told = difference_said(item.paired, item.p_holm, name_a=METHODS[REFERENCE], name_b=METHODS[item.name])
        sentences.append(f"In the mean over {findings.said(first)}, {told}.")
    sentences += covers_said([item.name for item in findings.versus])
    return [*sentences, *naming.verdicts(findings.naming, active)]


def _extremes(findings: Findings) -> str:
    """Under which corruption of the first mean zero-shot loses most, and least."""
    means = findings.robustness[REFERENCE].accuracy.mean(axis=1)
    ordered = sorted(findings.over[findings.first], key=lambda row: float(means[row]))
    if len(ordered) == 1:
        return ""
    worst, best = (
        f"{naming.spoken(findings.names[row])} (to {percent(means[row])} %)"
        for row in (ordered[0], ordered[-1])
    )
    return f", most under {worst} and least under {best}"


def _protocol(findings: Findings) -> str:
    """Whether the mean over published images can be set beside a published mean."""
    source = findings.source
    whole = f"{len(BENCHMARK)} corruptions, {SEVERITIES} severities and {TEST_IMAGES:,} images"
    if findings.is_published_protocol:
        error = 1 - findings.robustness[REFERENCE].over["benchmark"].mean.value
        return (
            f"Means published for {source} are over the same {whole}; as an error it is {percent(error)} %."
        )
    looked_at = len(findings.over.get("benchmark", [])), len(findings.severities), len(findings.rows)
    return (
        f"Means published for {source} are over {whole}, here are {looked_at[0]}, {looked_at[1]} and "
        f"{looked_at[2]:,}: do not compare the two."
    )


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
