"""What determined an embedding: the attributes that its file's fingerprint is made of."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from clipcifar.dataset_file import Prepared
from clipcifar.embed_params import EmbedParams
from clipcifar.errors import DataError
from clipcifar.files import Attribute, file_sha256, sha256_of, source_sha256
from clipcifar.model import WEIGHTS_FILE, ModelDescription
from clipcifar.store import class_names_attribute

_HERE = Path(__file__).parent
# The code and the libraries that turn pixels and sentences into numbers; read, not imported.
_SOURCES = tuple(_HERE / name for name in ("backbone.py", "images.py", "kernels.py", "preprocess.py"))
_LIBRARIES = ("torch", "torchvision", "open_clip_torch", "numpy", "pillow")


def embedding_attributes(
    model: ModelDescription, class_names: list[str], device_kind: str
) -> dict[str, Attribute]:
    """What images and sentences have in common: model, classes, device kind, code and libraries."""
    return {
        **model.attributes(),
        **versions(),
        "class_names": class_names_attribute(class_names),
        "device": device_kind,
        "normalised": True,
        "source_sha256": source_sha256(*_SOURCES),
    }


def image_attributes(dataset: Prepared, embed: EmbedParams) -> dict[str, Attribute]:
    """What determined image embeddings besides that: the images, and how they were embedded."""
    return {
        "dataset": dataset.name,
        "dataset_digest": dataset.digest,
        "max_per_class": dataset.max_per_class,
        "precision": embed.precision,
        "batch_size": embed.batch_size,
    }


def versions() -> dict[str, Attribute]:
    """The libraries that turn pixels and sentences into numbers, as attributes."""
    return {f"version_{name}": version(name) for name in _LIBRARIES}


def config_sha256(folder: Path) -> str:
    """Hex sha256 over the names and contents of all files of a model's folder but the weights."""
    others = (path for path in folder.rglob("*") if path.is_file() and path.name != WEIGHTS_FILE)
    return sha256_of({path.relative_to(folder).as_posix(): file_sha256(path) for path in others})


def check_weights(model: ModelDescription, folder: Path) -> None:
    """Raise DataError unless the model in `folder` is the one that was described."""
    if not (folder / WEIGHTS_FILE).is_file():
        raise DataError("the weights are missing", where=str(folder / WEIGHTS_FILE), fix="run `dvc repro`")
    found = (file_sha256(folder / WEIGHTS_FILE), config_sha256(folder))
    for what, is_now, was in zip(
        ("weights", "config"), found, (model.weights_sha256, model.config_sha256), strict=True
    ):
        if is_now != was:
            raise DataError(
                f"the {what} have sha256 {is_now}, data/model.json says {was}",
                where=str(folder),
                fix="run `dvc repro -f fetch_model`",
            )
