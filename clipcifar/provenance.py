"""What determined an embedding: the attributes that its file's fingerprint is made of."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from clipcifar.errors import DataError
from clipcifar.files import Attribute, file_sha256, source_sha256
from clipcifar.model import WEIGHTS_FILE, ModelDescription
from clipcifar.store import class_names_attribute

_HERE = Path(__file__).parent
# The code and the libraries that turn pixels and sentences into numbers; read, not imported.
_SOURCES = (_HERE / "backbone.py", _HERE / "preprocess.py")
_LIBRARIES = ("torch", "torchvision", "open_clip_torch", "numpy")


def embedding_attributes(
    model: ModelDescription, class_names: list[str], device_kind: str
) -> dict[str, Attribute]:
    """What images and sentences have in common: model, classes, device kind, code and libraries."""
    return {
        **model.attributes(),
        **{f"version_{name}": version(name) for name in _LIBRARIES},
        "class_names": class_names_attribute(class_names),
        "device": device_kind,
        "normalised": True,
        "source_sha256": source_sha256(*_SOURCES),
    }


def check_weights(model: ModelDescription, folder: Path) -> None:
    """Raise DataError unless the weights in `folder` are the ones that were described."""
    found = file_sha256(folder / WEIGHTS_FILE)
    if found != model.weights_sha256:
        raise DataError(
            f"the weights have sha256 {found}, data/model.json says {model.weights_sha256}",
            where=str(folder / WEIGHTS_FILE),
            fix="run `dvc repro -f fetch_model`",
        )
