"""The page of a study: what it asks, what it found, and sections of tables, charts and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from clipcifar.core.counts import count_of
from clipcifar.core.files import Attribute
from clipcifar.render import frame, site
from clipcifar.render.cells import Cell
from clipcifar.render.pictures import SIDE, Card


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first columns are text, the others numbers."""

    caption: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""
    text_columns: int = 1


@dataclass(frozen=True)
class Chart:
    """A drawing of `charts`, what it is called, and what is to be seen in it."""

    title: str
    svg: Markup
    caption: str


@dataclass(frozen=True)
class Matrix:
    """A heat map as a table: its cells by row and column."""

    title: str
    row_names: list[str]
    column_names: list[str]
    rows: list[list[Cell]]
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Pictures under a heading; `small` ones are enlarged without smoothing."""

    title: str
    cards: Sequence[Card]
    small: bool


@dataclass(frozen=True)
class Section:
    """One section; `anchor` is its id within the page."""

    anchor: str
    title: str
    paragraphs: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    matrices: list[Matrix] = field(default_factory=list)
    galleries: list[Gallery] = field(default_factory=list)


def render(
    *,
    name: str,
    title: str,
    question: str,
    verdicts: list[str],
    sections: list[Section],
    attributes: Mapping[str, Attribute],
    commands: list[str],
) -> str:
    """The whole page as HTML.

    Args:
        name: of the study's folder.
        title: of the study.
        question: what it asks and how, in a sentence or two.
        verdicts: what it found, a sentence each.
        sections: in the order to show.
        attributes: of the embeddings or results that it was made from (`predictions.inherited`).
        commands: that make it again, or ask further.
    """
    model = f"{attributes['model']} {attributes['pretrained']}".rstrip()
    anchors = [
        ("verdicts", "Verdicts"),
        *((s.anchor, s.title) for s in sections),
        ("provenance", "Provenance"),
    ]
    return frame.render(
        "study.html",
        pages=site.bar(f"{name}.html"),
        heading=title,
        subtitle=f"{attributes['dataset']} with {model}",
        sections=anchors,
        question=question,
        verdicts=verdicts,
        parts=sections,
        provenance=provenance(attributes),
        commands="\n".join(commands),
        side=SIDE,
    )


def provenance(attributes: Mapping[str, Attribute]) -> list[tuple[str, str]]:
    """What a page says of the model and the data that it was made from, in pairs of name and value."""
    subset = attributes["max_per_class"]
    return [
        ("model", f"{attributes['model']} {attributes['pretrained']}".rstrip()),
        ("weights sha256", str(attributes["weights_sha256"])),
        (
            "dataset",
            f"{attributes['dataset']}"
            + (f", at most {count_of(int(subset), 'image')} per class" if subset else ""),
        ),
        ("dataset digest", str(attributes["dataset_digest"])),
        ("versions", frame.versions(attributes)),
    ]
