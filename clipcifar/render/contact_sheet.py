"""The page of the images nearest to a query: the query, then each picture with what is said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clipcifar.core.files import Attribute
from clipcifar.render import frame
from clipcifar.render.pictures import Card
from clipcifar.render.study import provenance

SHEET_SIDE = 192  # pixels that a picture of this page is made to fit
SECTIONS = (("query", "Query"), ("nearest", "Nearest images"), ("provenance", "Provenance"))


def render(
    cards: Sequence[Card],
    *,
    asked: str | Card,
    said: Sequence[str],
    tiny: bool,
    asked_tiny: bool = False,
    attributes: Mapping[str, Attribute],
    command: str,
) -> str:
    """The whole page as HTML.

    Args:
        cards: a picture for each image, the nearest first.
        asked: the sentence, or the image, that they are near to.
        said: sentences above the pictures.
        tiny, asked_tiny: whether the pictures, and the one asked for, are enlarged without smoothing.
        attributes: of the image embeddings.
        command: that makes the page again.
    """
    model = f"{attributes['model']} {attributes['pretrained']}".rstrip()
    return frame.render(
        "contact_sheet.html",
        heading="Nearest images",
        subtitle=f"{attributes['dataset']} with {model}",
        sections=SECTIONS,
        text=asked if isinstance(asked, str) else "",
        asked=asked if isinstance(asked, Card) else None,
        asked_tiny=asked_tiny,
        said=said,
        cards=cards,
        tiny=tiny,
        side=SHEET_SIDE,
        provenance=provenance(attributes),
        command=command,
    )
