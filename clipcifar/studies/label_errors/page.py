"""The page of the study label_errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from clipcifar.core.files import Attribute
from clipcifar.render import study
from clipcifar.render.cells import Cell, shade
from clipcifar.render.pictures import Card, Pictures
from clipcifar.render.study import Gallery, Matrix, Section, Table
from clipcifar.store.dataset import Prepared
from clipcifar.studies.label_errors import certain
from clipcifar.studies.label_errors.findings import Findings, SplitFindings, class_rows, verdicts

MOST_CLASSES = 20  # that get a matrix
QUESTION = (
    "Which labels does no method believe? Train images are judged by zero-shot, which never saw a label, "
    "and by linear probes that were fitted without the image; test images by all methods, calibrated on "
    "val. Confident learning (Northcutt, Jiang and Chuang 2021) estimates how many labels are wrong, by its "
    "joint and by the count that its authors' library, cleanlab, gives."
)


def render(
    findings: Findings,
    dataset: Prepared,
    *,
    folder: Path,
    shown: int,
    attributes: Mapping[str, Attribute],
    notes: Sequence[str] = (),
) -> str:
    """The whole page as HTML.

    Args:
        findings: of both splits.
        dataset: the prepared images.
        folder: where its files are, if it is of files.
        shown: pictures of either split.
        attributes: of the embeddings.
        notes: said before what was found.
    """
    sections = [
        _section(name, findings.splits[name], Pictures(part, folder), dataset.class_names, shown=shown)
        for name, part in (("train", dataset.train), ("test", dataset.test))
    ]
    if findings.copies.of_two_classes:
        sections.insert(0, certain.section(findings.copies, dataset, folder=folder, shown=shown))
    return study.render(
        name="label_errors",
        title="Label errors",
        question=QUESTION,
        verdicts=[*notes, *verdicts(findings)],
        sections=sections,
        attributes=attributes,
        commands=[
            "clipcifar study label_errors",
            "column -s, -t data/studies/label_errors/ranking.csv | less -S",
        ],
    )


def _section(
    name: str, split: SplitFindings, pictures: Pictures, class_names: list[str], *, shown: int
) -> Section:
    cards = [
        Card(
            source=pictures.data_uri(item.row),
            alt=f"{name} image {split.ids[item.row]}, labelled {class_names[item.given]}",
            title=f"{class_names[item.given]} → {class_names[item.suggested]}?",
            lines=[
                f"p {item.p_given:.2f} → {item.p_suggested:.2f}",
                f"{item.agreeing} of {len(split.methods)} agree",
            ],
            file=split.ids[item.row],
        )
        for item in split.disputes[:shown]
    ]
    rows = [
        [
            str(row["class"]),
            str(row["mostly"]),
            f"{row['n']:,}",
            f"{row['disputed']:,}",
            f"{row['estimated']:.1f}",
            f"{row['label_issues']:,}",
        ]
        for row in class_rows({name: split}, class_names=class_names)
    ]
    header = ["label", "most often suggested", "images", "disputed by all", "estimated wrong", "label issues"]
    table = Table(f"Labels of {name} images, by class", header, rows, text_columns=2)
    galleries = [Gallery(f"The most disputed {name} images", cards, pictures.small)] if cards else []
    return Section(
        name,
        f"{name.capitalize()} images",
        tables=[table],
        matrices=[_matrix(name, split, class_names)] if len(class_names) <= MOST_CLASSES else [],
        galleries=galleries,
    )


def _matrix(name: str, split: SplitFindings, class_names: list[str]) -> Matrix:
    """Off the diagonal, where the errors are; shaded by the largest of them."""
    off = split.joint.copy()
    off.flat[:: len(off) + 1] = 0
    top = max(float(off.max()), 1e-9)
    cells = [
        [
            Cell(0, "·")
            if i == j
            else Cell(shade(value / top), f"{value:.0f}", _flow(class_names, i, j, value))
            for j, value in enumerate(row)
        ]
        for i, row in enumerate(off.tolist())
    ]
    caption = "Estimated images by given label (row) and true class (column); the diagonal is left out."
    return Matrix(f"Confident joint of {name} images", class_names, class_names, cells, caption)


def _flow(class_names: list[str], given: int, true: int, estimated: float) -> str:
    """What a cell off the diagonal says when it is pointed at."""
    return f"labelled {class_names[given]}, truly {class_names[true]}: {estimated:.1f}"
