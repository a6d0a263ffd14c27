"""Which dataset: the `dataset` section of params.yaml.

The registry that it chooses from is apart, in `registry.py`, so that a new dataset re-runs no extraction.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from clipcifar.core.params import MAX_SEED, Range

IMAGEFOLDER, TARFOLDER = "imagefolder", "tarfolder"
FOLDERS = {  # what the folder holds that `dataset.path` is then
    IMAGEFOLDER: "train/<class>/… and test/<class>/…",
    TARFOLDER: "train/*.tar and test/*.tar, or lists of URLs of shards, train.txt and test.txt",
}


@dataclass(frozen=True)
class DatasetParams:
    """The `dataset` section.

    Attributes:
        name: a row of `REGISTRY`.
        path: the folder of photographs, or of tar files of them, or an archive placed by hand (of several,
            the folder that holds them); `params.NO_PATH` for none.
        max_per_class: at most so many images per class and split, or None for all.
        seed: of that choice, and of a test split that is drawn.
        on_bad_image: what a photograph that cannot be decoded does.
        test_fraction: of a folder without splits, the share of each class that becomes test.
        max_megapixels: a photograph that claims more cannot be used.
    """

    name: str
    path: str
    max_per_class: Annotated[int | None, Range(1, 10**9)]
    seed: Annotated[int, Range(0, MAX_SEED)]
    on_bad_image: Literal["error", "skip"]
    test_fraction: Annotated[float, Range(0.001, 0.9)] = 0.2
    max_megapixels: Annotated[int, Range(1, 10_000)] = 250


def photograph_folder(dataset: DatasetParams, raw: Path) -> Path:
    """The folder that the ids of photographs are relative to.

    Args:
        dataset: what params.yaml says.
        raw: what the `download` stage makes.
    """
    return Path(dataset.path) if dataset.name in FOLDERS else raw
