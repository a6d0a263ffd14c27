"""Every corruption of a run: the published arrays where the user has them, else generated ones.

Generated corruptions are called so, with the library versions and the digest of the code that made
them; they are never called CIFAR-10-C.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipcifar.backbone.preprocess import Preprocess
from clipcifar.core.errors import ConfigError
from clipcifar.core.files import Attribute, canonical_json, source_sha256
from clipcifar.embeddings.kept import Contents, Wanted
from clipcifar.embeddings.sources import Excerpt, ImageSource
from clipcifar.store import splits
from clipcifar.store.dataset import PreparedSplit
from clipcifar.store.model import ModelDescription
from clipcifar.store.names import json_sha256
from clipcifar.studies.corruptions.images.generated import CORRUPTIONS
from clipcifar.studies.corruptions.images.published import NAME, TEST_IMAGES, official_rows, open_published
from clipcifar.studies.corruptions.images.sources import (
    CorruptedSource,
    GeneratedSource,
    Originals,
    PublishedSource,
    examples,
)
from clipcifar.studies.corruptions.params import CorruptionParams
from clipcifar.studies.corruptions.store import GENERATED, KIND, write_corrupted

_HERE = Path(__file__).parent
_CODE = (  # read, for their digest
    *(
        "blur.py",
        "generated.py",
        "levels.py",
        "light.py",
        "noise.py",
        "sources.py",
        "spatter.py",
        "weather.py",
    ),
)
_PUBLISHED_FOR = "cifar10"


@dataclass(frozen=True)
class Entry:
    """One corruption: where its images come from, and what determined them."""

    source: CorruptedSource
    attributes: dict[str, Attribute]


def chosen_images(test: PreparedSplit, asked: CorruptionParams) -> PreparedSplit:
    """The test images that are looked at: all, or a seeded choice from each class."""
    most = asked.most_per_class
    if most is None:
        return test
    return test.take(splits.seeded_subset(test.labels, test.ids, max_per_class=most, seed=asked.seed))


def described_preprocess(model: ModelDescription) -> Preprocess:
    """What a model says about its input, from its description: the model need not be loaded for it.

    Raises:
        DataError: the description says something else than `describe` would.
    """
    config = model.preprocess
    return Preprocess.from_config({**config, "fill_color": config.get("fill")})


def open_suite(
    test: PreparedSplit,
    asked: CorruptionParams,
    *,
    dataset: str,
    root: Path,
    preprocess: Preprocess,
    workers: int,
    num_published: int = TEST_IMAGES,
) -> dict[str, Entry]:
    """What was asked for, by name of the corruption, in the order to go through it.

    Args:
        test: the chosen test images.
        asked: the `corruptions` section.
        dataset: its name in the registry.
        root: the folder of photographs.
        preprocess: what photographs are fitted to once they are corrupted.
        workers: processes that corrupt.
        num_published: test images in the published arrays.

    Raises:
        ConfigError: a corruption that the source does not have, or published arrays for another dataset.
        DataError: the published arrays are not what they should be.
    """
    common: dict[str, Attribute] = {
        "corruption_severities": canonical_json(asked.severities),
        "corruption_ids": json_sha256(test.ids),
    }
    if asked.published is None:
        originals = Originals(test, root, preprocess)
        common |= {
            "corruption_source": GENERATED,
            "corruption_digest": source_sha256(_HERE, *_CODE),
            "corruption_seed": asked.seed,
            "version_scipy": version("scipy"),
        }
        return {
            name: Entry(
                GeneratedSource(
                    originals, name=name, severities=asked.severities, seed=asked.seed, workers=workers
                ),
                {**common, "corruption": name},
            )
            for name in asked.generated_names(tuple(CORRUPTIONS))
        }
    if dataset != _PUBLISHED_FOR:
        raise ConfigError(
            f"{NAME} is of {_PUBLISHED_FOR}, the dataset is {dataset}",
            where="params.yaml: corruptions.path",
            fix="set corruptions.path to data/none, which generates corruptions of any dataset",
        )
    published = open_published(asked.published, asked.names, num_images=num_published)
    rows = official_rows(test.ids, test.labels, published)
    common["corruption_source"] = NAME
    return {
        name: Entry(
            PublishedSource(images, rows, severities=asked.severities),
            {**common, "corruption": name, "corruption_digest": published.digests[name]},
        )
        for name, images in published.images.items()
    }


def wanted_files(
    folder: Path,
    suite: Mapping[str, Entry],
    ids: Sequence[str],
    *,
    severities: tuple[int, ...],
    common: Mapping[str, Attribute],
) -> list[Wanted]:
    """A file of embeddings for every corruption.

    Args:
        folder: where they shall be, an output of the stage.
        suite: of `open_suite`.
        ids: N ids of the chosen test images.
        severities: of every corruption.
        common: what determines all embeddings of this dataset and model.
    """
    return [
        _wanted(folder / f"{name}.h5", entry, ids, severities, {**common, **entry.attributes})
        for name, entry in suite.items()
    ]


def _wanted(
    path: Path,
    entry: Entry,
    ids: Sequence[str],
    severities: tuple[int, ...],
    attributes: Mapping[str, Attribute],
) -> Wanted:
    def write(blocks: Iterator[NDArray[np.float32]], _: Contents) -> None:
        rows = np.concatenate(list(blocks))
        shown = examples(entry.source, len(severities))
        write_corrupted(path, rows, severities=severities, ids=ids, examples=shown, attributes=attributes)

    def images(rows: range | NDArray[np.int64]) -> Callable[[Preprocess, int], ImageSource]:
        assert isinstance(rows, range)  # of all, or of a part
        return lambda preprocess, workers: Excerpt(entry.source, rows)

    return Wanted(path, KIND, attributes, path, [*ids] * len(severities), images, write)
