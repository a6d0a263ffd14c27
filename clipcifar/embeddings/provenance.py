"""What determined an embedding: the attributes that its file's fingerprint is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from clipcifar.backbone.params import EmbedParams
from clipcifar.core.errors import EnvironmentFault
from clipcifar.core.files import Attribute, source_sha256
from clipcifar.store.dataset import Prepared
from clipcifar.store.fields import class_names_attribute
from clipcifar.store.model import ModelDescription

_PACKAGE = Path(__file__).parents[1]
# The code and the libraries that turn pixels and sentences into numbers; read, not imported.
# The last three say which pixels are whose, and which row is which image's.
_CODE = (
    "backbone",
    "datasets/decode.py",
    "embeddings/loading.py",
    "embeddings/sources.py",
    "embeddings/extract.py",
)
# How the weights were asked for, paths included: which they are is in their digests.
NAMES = ("model", "pretrained")
# Whose images they are, and how many: not what a row is, where it depends on its image alone.
_OF_THE_DATASET = ("dataset", "dataset_digest", "max_per_class", "class_names")
_LIBRARIES = ("torch", "torchvision", "open_clip_torch", "numpy", "pillow")


def embedding_attributes(
    model: ModelDescription, class_names: list[str], device_kind: str
) -> dict[str, Attribute]:
    """What images and sentences have in common: model, classes, device kind, code and libraries."""
    return {
        **model.attributes(),
        **versions(model.libraries),
        "class_names": class_names_attribute(class_names),
        "device": device_kind,
        "normalised": True,
        "source_sha256": source_sha256(_PACKAGE, *_CODE),
    }


def text_attributes(
    model: ModelDescription, class_names: list[str], device_kind: str, embed: EmbedParams
) -> dict[str, Attribute]:
    """What determined sentence embeddings; they have the precision of the images on a CPU alone."""
    precision = embed.precision if device_kind == "cpu" else "fp32"
    return {**embedding_attributes(model, class_names, device_kind), "precision": precision}


def image_attributes(dataset: Prepared, embed: EmbedParams) -> dict[str, Attribute]:
    """What determined image embeddings besides that: the images, and how they were embedded."""
    return {
        "dataset": dataset.name,
        "dataset_digest": dataset.digest,
        "max_per_class": dataset.max_per_class,
        "precision": embed.precision,
        "batch_size": embed.batch_size,
        "storage": embed.storage,
    }


def determining(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    """What determined the numbers alone: the same weights give the same under every name and path."""
    return {key: value for key, value in attributes.items() if key not in NAMES}


def of_a_row(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    """What determined a row besides its image."""
    return {key: value for key, value in determining(attributes).items() if key not in _OF_THE_DATASET}


def versions(more: Iterable[str] = ()) -> dict[str, Attribute]:
    """The libraries that turn pixels and sentences into numbers, as attributes.

    Args:
        more: what a model takes towers or its tokenizer from, besides (`ModelDescription.libraries`).

    Raises:
        EnvironmentFault: one of them is not installed.
    """
    try:
        return {f"version_{name}": version(name) for name in (*_LIBRARIES, *more)}
    except PackageNotFoundError as error:
        raise EnvironmentFault(
            f"this model needs {error.name}, which is not installed", fix=f"pip install {error.name}"
        ) from error
