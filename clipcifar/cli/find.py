"""`clipcifar find`: the images of the cache nearest to a sentence or to an image, and a page to look at."""

from __future__ import annotations

import os
import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

from clipcifar.cli.command import Command, complete_files, in_project, positive
from clipcifar.cli.formats import add_formats, as_csv, as_json
from clipcifar.core.errors import ConfigError
from clipcifar.core.terminal import note, one_line

if TYPE_CHECKING:
    from clipcifar.api.find import Hit
    from clipcifar.api.opened import Opened
    from clipcifar.datasets.params import DatasetParams
    from clipcifar.render.pictures import Card

SHEET = Path("report/find.html")
TOP = 12
SHOWN = 300  # pictures of a page, which holds all of them
TINY = 64  # pixels of an image that is enlarged without smoothing
COSINE = "A cosine is that of the two embeddings, 1 where they point the same way."


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("text", nargs="?", metavar="TEXT", help='what to look for: "two cats on a sofa"')
    complete_files(
        parser.add_argument(
            "--image", type=Path, metavar="FILE", help="look for images like this one instead"
        )
    )
    parser.add_argument("--top", type=positive, default=TOP, metavar="N", help="images shown (default 12)")
    parser.add_argument("--split", choices=["train", "val", "test"], help="look there alone (default all)")
    parser.add_argument("--class", dest="class_name", metavar="NAME", help="look among this class alone")
    complete_files(
        parser.add_argument(
            "--sheet", type=Path, metavar="FILE", help=f"where the contact sheet goes (default {SHEET})"
        )
    )
    add_formats(
        parser,
        json_help="everything as JSON, without a contact sheet unless --sheet says where",
        csv_help="the images as CSV, likewise",
    )


def _find(arguments: Namespace) -> str:
    """What is typed as a path is relative to where the user is, all else to the project."""
    sheet, image = (path and path.absolute() for path in (arguments.sheet, arguments.image))
    text, written = _answer(arguments, image, sheet)
    if written is None:
        return text
    shown = arguments.sheet or os.path.relpath(written)
    if arguments.json or arguments.csv:
        note(f"contact sheet: {shown}")
        return text
    return f"{text}\n\ncontact sheet: {shown}"


@in_project()
def _answer(arguments: Namespace, image: Path | None, sheet: Path | None) -> tuple[str, Path | None]:
    """What is to be printed, and where the contact sheet was written."""
    from clipcifar.api.find import Hit
    from clipcifar.api.opened import Opened
    from clipcifar.api.project import Project
    from clipcifar.core.files import write_atomically
    from clipcifar.render.table import markdown_table

    if sheet is not None and sheet.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(
            f"the contact sheet is a web page, which the name {arguments.sheet} does not say",
            where="--sheet",
            fix="let it end in .html",
        )
    opened = Opened(Path.cwd(), on_note=note)
    hits = Project(opened).find(
        arguments.text,
        image=image,
        top=arguments.top,
        split=arguments.split,
        class_name=arguments.class_name,
    )
    if sheet is None and not (arguments.json or arguments.csv):
        sheet = opened.root / SHEET
    if sheet is not None:
        write_atomically(sheet, contact_sheet(hits, opened, arguments, image).encode())
    columns = {field.name: [getattr(hit, field.name) for hit in hits] for field in fields(Hit)}
    if arguments.csv:
        return as_csv(columns), sheet
    if arguments.json:
        query = {"text": arguments.text} if image is None else {"image": str(arguments.image)}
        return as_json({**query, "hits": [asdict(hit) for hit in hits]}), sheet
    rows = [[str(hit.rank), f"{hit.cosine:.4f}", hit.split, hit.label, hit.id] for hit in hits]
    return "\n".join(markdown_table([*columns], rows, text_columns=len(columns))), sheet


def contact_sheet(hits: Sequence[Hit], opened: Opened, arguments: Namespace, image: Path | None) -> str:
    """The page; a note says how many of its pictures are gone.

    Args:
        hits: the nearest first.
        opened: the project that they are of.
        arguments: what was typed.
        image: the file that was asked with, absolute.

    Raises:
        DataError: the prepared images are not those that were embedded.
    """
    from clipcifar.core import params
    from clipcifar.datasets.params import DatasetParams
    from clipcifar.render import contact_sheet

    dataset = params.read(opened.settings, "dataset", DatasetParams)
    cards, tiny = _cards(hits[:SHOWN], opened, dataset)
    among = f"{arguments.split or ''} images".lstrip()
    if arguments.class_name is not None:
        among += f" of the class {arguments.class_name}"
    more = f"; this page shows {SHOWN:,} of them" if len(hits) > SHOWN else ""
    said = [f"The {len(hits):,} nearest {among}{more}. {COSINE}"]
    if gone := sum(not card.source for card in cards):
        said.append("An empty place is for a picture whose file is gone.")
        note(f"pictures that the contact sheet lacks: {gone:,}, whose files are gone")
    asked: tuple[str | Card, bool] = (arguments.text, False)
    if image is not None:
        asked = _asked(image, one_line(str(arguments.image)), dataset.max_megapixels)
    return contact_sheet.render(
        cards,
        asked=asked[0],
        said=said,
        tiny=tiny,
        asked_tiny=asked[1],
        attributes=opened.images().attributes,
        command=one_line(_again(arguments)),
    )


def _cards(hits: Sequence[Hit], opened: Opened, dataset: DatasetParams) -> tuple[list[Card], bool]:
    """A picture for each image, and whether they are arrays, which are tiny."""
    from clipcifar.datasets.params import photograph_folder
    from clipcifar.render.contact_sheet import SHEET_SIDE
    from clipcifar.render.pictures import Card, Pictures
    from clipcifar.store.dataset import read_dataset
    from clipcifar.store.fields import rows_of
    from clipcifar.store.inputs import check_embedded
    from clipcifar.store.places import DATASET, RAW

    prepared = read_dataset(opened.root / DATASET)
    check_embedded(prepared, opened.images(), where=Path(DATASET))
    everything = prepared.train + prepared.test
    pictures = Pictures(everything, opened.root / photograph_folder(dataset, Path(RAW)), side=SHEET_SIDE)
    rows = rows_of([hit.id for hit in hits], everything.ids, what="the prepared images").tolist()
    cards = [
        Card(
            pictures.data_uri(row),
            alt=f"{hit.split} image {hit.id}, {hit.label}",
            title=f"{hit.rank}. {hit.label}",
            lines=[f"cosine {hit.cosine:.4f}, {hit.split}", hit.id],
        )
        for hit, row in zip(hits, rows, strict=True)
    ]
    return cards, pictures.small


def _asked(image: Path, typed: str, max_megapixels: int) -> tuple[Card, bool]:
    """The picture of an image that was asked with, and whether it is tiny."""
    from clipcifar.embeddings.photographs import read_image
    from clipcifar.render.contact_sheet import SHEET_SIDE
    from clipcifar.render.pictures import Card, data_uri

    pixels = read_image(image, max_megapixels=max_megapixels)
    return Card(data_uri(pixels, SHEET_SIDE), f"the image {typed}", typed, []), max(pixels.shape) <= TINY


def _again(arguments: Namespace) -> str:
    """The command line that was typed, but for the form of its answer."""
    options = {
        "--image": arguments.image,
        "--top": None if arguments.top == TOP else arguments.top,
        "--split": arguments.split,
        "--class": arguments.class_name,
        "--sheet": arguments.sheet,
    }
    words = [f"{name}={value}" for name, value in options.items() if value is not None]
    text = [] if arguments.text is None else [arguments.text]
    return shlex.join(
        ["clipcifar", "find", *words, *(["--"] if "".join(text).startswith("-") else []), *text]
    )


FIND = Command(
    _find,
    help="the images nearest to a sentence or to an image",
    description="The images of the cache whose embeddings have the largest cosine with that of a sentence "
    "or of an image file, and a contact sheet of them: one page without a script or a request.",
    arguments=_arguments,
)
