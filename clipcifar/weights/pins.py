"""The digest and revision that known weights must have, by whatever name they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import open_clip

from clipcifar.core.errors import DataError
from clipcifar.core.files import file_sha256
from clipcifar.store.model import known_as


@dataclass(frozen=True)
class Pin:
    """Digest and revision that known weights must have, and where the two are from."""

    sha256: str
    revision: str
    source: str


PINS = {  # by architecture and tag, as open_clip files them
    ("ViT-B-32", "laion2b_s34b_b79k"): Pin(
        sha256="ac4f8c4b88af6d963118cbf40ad93176d092abbedfcb752601ae1866352656e6",
        revision="1a25a446712ba5ee05982a381eed697ef9b435cf",
        source="found in several independent public sources, not checked at the origin",
    ),
}

_REPOSITORIES = {"laion/clip-vit-b-32-laion2b-s34b-b79k": ("ViT-B-32", "laion2b_s34b_b79k")}


def of_tag(name: str, pretrained: str | None) -> Pin | None:
    """The pin of an architecture and a tag, in every spelling that open_clip takes."""
    if pretrained is None:
        return None
    key = known_as(name, pretrained)
    return PINS.get(key) or of_repository(open_clip.get_pretrained_cfg(*key).get("hf_hub", ""))


def of_repository(repository: str) -> Pin | None:
    """The pin of the tag whose weights lie in a repository of the hub, which minds no case."""
    tag = _REPOSITORIES.get(repository.strip("/").casefold())
    return PINS.get(tag) if tag else None


def check(pin: Pin, name: str, weights: Path) -> None:
    """Raise DataError when the weights of a known name are other bytes than known."""
    if (digest := file_sha256(weights)) != pin.sha256:
        raise DataError(
            f"the weights {name} have sha256 {digest}, expected {pin.sha256} ({pin.source})",
            where=str(weights),
            fix="if they are your own, set model.pretrained: null; else fetch the file again",
        )
