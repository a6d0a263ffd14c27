"""The page of the study near_duplicates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from clipcifar.core.files import Attribute
from clipcifar.evaluation.names import METHODS
from clipcifar.evaluation.words import interval, p_text, points, with_interval
from clipcifar.render import charts, study
from clipcifar.render.pictures import Card, Pictures
from clipcifar.render.study import Chart, Gallery, Section, Table
from clipcifar.store.dataset import Prepared
from clipcifar.studies.near_duplicates.findings import (
    MOST_CORRELATED,
    SAME_PICTURE,
    DuplicateFindings,
    curve_rows,
)

LOOK_ALIKES = 0.1  # train images that a test image may find above the threshold by chance
QUESTION = (
    "Which test images have a twin among the train images, and how accurate is each method without them? "
    "A pair counts from a cosine similarity of their embeddings on. By eye, Barz and Denzler (2020, "
    "doi:10.3390/jimaging6060041) found twins in train of 3.3 % of CIFAR-10's test images and of 10 % of "
    "CIFAR-100's."
)


def verdicts(found: DuplicateFindings) -> list[str]:
    """What was found, a sentence each."""
    n, pairs = len(found.cosines), len(found.order)
    sentences = [
        f"{pairs:,} of {n:,} test images ({100 * pairs / n:.2f} %) have a train image at a cosine of "
        f"{found.threshold:g} or more."
    ]
    chance = (
        f"Random pairs of one class have a median cosine of {np.median(found.background):.3f}, "
        f"and a test image would find {found.by_chance:.2g} of its class's {found.partners:,.0f} train "
        "images above the threshold by that alone"
    )
    if found.by_chance >= LOOK_ALIKES:
        chance += ": with this model the threshold does not tell twins from look-alikes; raise it"
    sentences.append(chance + ".")
    if pairs:
        same = sum(value >= SAME_PICTURE for value in found.correlation)
        other = int((~found.same_label[found.order]).sum())
        sentences.append(
            f"Of the {len(found.correlation):,} closest pairs {same:,} are the same picture to a comparison "
            f"that knows no model: small grey copies, mirrored or not, correlate at {SAME_PICTURE:g} or more."
        )
        sentences.append(f"In {other:,} of {pairs:,} pairs image and twin have different labels.")
    if found.by_chance >= LOOK_ALIKES:
        return sentences  # what is left out then says nothing of twins
    widest = max(found.methods, key=lambda name: abs(found.methods[name].difference))
    item = found.methods[widest]
    sentences.append(
        f"Without those images no method's accuracy moves by more than {100 * abs(item.difference):.2f} "
        f"points: {METHODS[widest]} {with_interval(item, 2)}."
    )
    return sentences


def render(
    found: DuplicateFindings,
    dataset: Prepared,
    *,
    folder: Path,
    shown: int,
    attributes: Mapping[str, Attribute],
) -> str:
    """The whole page as HTML.

    Args:
        found: of the search.
        dataset: the prepared images.
        folder: where its files are, if it is of files.
        shown: pairs of pictures.
        attributes: of the embeddings.
    """
    sections = [
        Section("threshold", "What the threshold means", charts=[_curve(found)]),
        Section("methods", "With and without", tables=[_accuracies(found)]),
        Section("gains", "Gains over zero-shot", tables=[_gains(found)]),
    ]
    if len(found.order):
        sections.append(
            Section(
                "pairs",
                "The closest pairs",
                paragraphs=["Each test image beside the train image that is most similar to it."],
                galleries=_galleries(found, dataset, folder, shown),
            )
        )
    return study.render(
        title="Near-duplicates",
        question=QUESTION,
        verdicts=verdicts(found),
        sections=sections,
        attributes=attributes,
        commands=[
            "clipcifar study near_duplicates",
            "dvc plots show data/studies/near_duplicates/curve.csv -x threshold -y share",
        ],
    )


def _curve(found: DuplicateFindings) -> Chart:
    rows = curve_rows(found)
    xs = [row["threshold"] for row in rows]
    series = {}
    for label, key in (("test images with a twin", "share"), ("random pairs of a class", "random_pairs")):
        ys = [row[key] for row in rows]
        series[label] = (xs, ys, ys, ys)
    svg = charts.curves(
        series,
        name="twins",
        description="Lines: share of test images with a train image above a cosine, and of random pairs",
        x_label="cosine similarity",
        y_label="share",
    )
    caption = (
        f"A useful threshold (here {found.threshold:g}) lies where random pairs of a class have long reached "
        f"zero; the most similar train image has a median cosine of {np.median(found.cosines):.3f}."
    )
    return Chart("Share above a threshold", svg, caption)


def _accuracies(found: DuplicateFindings) -> Table:
    header = ["method", "all", "without", "those left out", "points", "95 % interval"]
    rows = [
        [
            METHODS[name],
            f"{item.all:.4f}",
            f"{item.rest:.4f}",
            f"{item.those:.4f}" if len(found.order) else "",
            points(item.difference, 2),
            interval(item),
        ]
        for name, item in found.methods.items()
    ]
    return Table("Accuracy with and without the images that have a twin", header, rows)


def _gains(found: DuplicateFindings) -> Table:
    header = ["method", "on all", "95 % interval", "p", "without", "95 % interval", "p"]
    rows = []
    for a, b in zip(found.gains, found.gains_rest, strict=True):
        cells = [METHODS[a.name]]
        for item in (a, b):
            cells += [points(item.paired.difference, 2), interval(item.paired), p_text(item.p_holm)]
        rows.append(cells)
    note = (
        "Zero-shot saw no train image, so a gain that lived on twins would shrink without them. Paired by "
        "image; exact McNemar, Holm-corrected over the methods."
    )
    return Table("Points gained over zero-shot", header, rows, note=note)


def _galleries(found: DuplicateFindings, dataset: Prepared, folder: Path, shown: int) -> list[Gallery]:
    closest = found.order[:shown]
    other = found.order[~found.same_label[found.order]][:shown]
    test, train = Pictures(dataset.test, folder), Pictures(dataset.train, folder)
    names = dataset.class_names
    correlation = dict(zip(found.order[:MOST_CORRELATED].tolist(), found.correlation, strict=True))

    def cards(rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[Card]:
        result = []
        for row in rows.tolist():
            twin = int(found.twins[row])
            label, of_twin = names[dataset.test.labels[row]], names[dataset.train.labels[twin]]
            said = [f"cosine {found.cosines[row]:.3f}"]
            said += [f"pictures {correlation[row]:.2f}"] if row in correlation else []
            ids = dataset.test.ids[row], dataset.train.ids[twin]
            result.append(Card(test.data_uri(row), f"test image {ids[0]}", label, [*said, ids[0]]))
            result.append(Card(train.data_uri(twin), f"train image {ids[1]}", of_twin, ["its twin", ids[1]]))
        return result

    titled = (("The most similar", closest), ("Twins with different labels", other))
    return [Gallery(title, cards(rows), test.small) for title, rows in titled if len(rows)]
