"""The page of the study near_duplicates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from clipcifar.core.files import Attribute
from clipcifar.evaluation.names import METHODS
from clipcifar.evaluation.seeds import covers_said
from clipcifar.evaluation.words import interval, p_text, points
from clipcifar.render import charts, study
from clipcifar.render.pictures import Card, Pictures
from clipcifar.render.study import Chart, Gallery, Section, Table
from clipcifar.store.dataset import Prepared
from clipcifar.studies.near_duplicates import within as of_one_split
from clipcifar.studies.near_duplicates.findings import Findings, curve_rows, verdicts
from clipcifar.studies.near_duplicates.pictures import MOST_CORRELATED

QUESTION = (
    "Which test images have a twin among the train images, and how accurate is each method without them? "
    "A pair counts from a cosine similarity of their embeddings on. By eye, Barz and Denzler (2020, "
    "doi:10.3390/jimaging6060041) found twins in train of 3.3 % of CIFAR-10's test images and of 10 % of "
    "CIFAR-100's."
)


def render(
    findings: Findings,
    dataset: Prepared,
    *,
    folder: Path,
    shown: int,
    attributes: Mapping[str, Attribute],
) -> str:
    """The whole page as HTML.

    Args:
        findings: of the search.
        dataset: the prepared images.
        folder: where its files are, if it is of files.
        shown: pairs of pictures.
        attributes: of the embeddings.
    """
    sections = [
        Section("threshold", "What the threshold means", charts=[_curve(findings)]),
        Section("methods", "With and without", tables=[_accuracies(findings)]),
        Section("gains", "Gains over zero-shot", tables=[_gains(findings)]),
    ]
    if len(findings.order):
        sections.append(
            Section(
                "pairs",
                "The closest pairs",
                paragraphs=["Each test image beside the train image that is most similar to it."],
                galleries=_galleries(findings, dataset, folder, shown),
            )
        )
    for split in findings.within:
        if len(split.pairs):
            sections.append(of_one_split.section(split, dataset, folder=folder, shown=shown))
    return study.render(
        name="near_duplicates",
        title="Near-duplicates",
        question=QUESTION,
        verdicts=verdicts(findings),
        sections=sections,
        attributes=attributes,
        commands=[
            "clipcifar study near_duplicates",
            "dvc plots show data/studies/near_duplicates/curve.csv -x threshold -y share",
        ],
    )


def _curve(findings: Findings) -> Chart:
    rows = curve_rows(findings)
    xs = [row["threshold"] for row in rows]
    series = {
        "test images with a twin": charts.Line(xs, [row["share"] for row in rows]),
        "random pairs of a class": charts.Line(xs, [row["random_pairs"] for row in rows]),
    }
    svg = charts.curves(
        series,
        name="twins",
        description="Lines: share of test images with a train image above a cosine, and of random pairs",
        x_label="cosine similarity",
        y_label="share",
    )
    caption = (
        f"A useful threshold (here {findings.threshold:g}) lies where random pairs of a class have long "
        f"reached zero; the most similar train image has a median cosine of "
        f"{np.median(findings.cosines):.3f}."
    )
    return Chart("Share above a threshold", svg, caption)


def _accuracies(findings: Findings) -> Table:
    header = ["method", "all", "without", "those left out", "points", "95 % interval"]
    rows = [
        [
            METHODS[name],
            f"{item.all:.4f}",
            f"{item.rest:.4f}",
            f"{item.those:.4f}" if len(findings.order) else "",
            points(item.difference, 2),
            interval(item),
        ]
        for name, item in findings.methods.items()
    ]
    return Table("Accuracy with and without the images that have a twin", header, rows)


def _gains(findings: Findings) -> Table:
    header = ["method", "on all", "95 % interval", "p", "without", "95 % interval", "p"]
    rows = []
    for a, b in zip(findings.gains, findings.gains_rest, strict=True):
        cells = [METHODS[a.name]]
        for item in (a, b):
            cells += [points(item.paired.difference, 2), interval(item.paired), p_text(item.p_holm)]
        rows.append(cells)
    note = [
        "Zero-shot saw no train image, so a gain that lived on twins would shrink without them. Paired by "
        "image; exact McNemar, Holm-corrected over the methods.",
        *covers_said([item.name for item in findings.gains]),
    ]
    return Table("Points gained over zero-shot", header, rows, note=" ".join(note))


def _galleries(findings: Findings, dataset: Prepared, folder: Path, shown: int) -> list[Gallery]:
    closest = findings.order[:shown]
    other = findings.order[~findings.same_label[findings.order]][:shown]
    test, train = Pictures(dataset.test, folder), Pictures(dataset.train, folder)
    names = dataset.class_names
    correlation = dict(zip(findings.order[:MOST_CORRELATED].tolist(), findings.correlation, strict=True))

    def cards(rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[Card]:
        result = []
        for row in rows.tolist():
            twin = int(findings.twins[row])
            label, of_twin = names[dataset.test.labels[row]], names[dataset.train.labels[twin]]
            said = [f"cosine {findings.cosines[row]:.3f}"]
            said += [f"pictures {correlation[row]:.2f}"] if row in correlation else []
            ids = dataset.test.ids[row], dataset.train.ids[twin]
            result.append(Card(test.data_uri(row), f"test image {ids[0]}", label, said, ids[0]))
            result.append(Card(train.data_uri(twin), f"train image {ids[1]}", of_twin, ["its twin"], ids[1]))
        return result

    titled = (("The most similar", closest), ("Twins with different labels", other))
    return [Gallery(title, cards(rows), test.small) for title, rows in titled if len(rows)]
