"""Which model: what params.yaml asks for, and what `data/model.json` says was resolved."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from clipcifar.core import files
from clipcifar.core.errors import DataError
from clipcifar.core.files import Attribute
from clipcifar.core.params import MAX_SEED, Range

RANDOM = "random weights"  # how the source of untrained weights begins
WEIGHTS_FILE = "open_clip_model.safetensors"
CONFIG_FILE = "open_clip_config.json"
SCHEMES = LOCAL_DIR, HF_HUB = "local-dir:", "hf-hub:"
UNFINISHED = ".new-"  # how the name of a model's folder begins that is not whole yet


@dataclass(frozen=True)
class ModelParams:
    """The `model` section.

    Attributes:
        name: an open_clip architecture, `local-dir:<folder>` or `hf-hub:<repository>`.
        pretrained: the tag of the weights; None for a folder, a repository, or random weights.
        path: a local safetensors file or folder that is used instead of a download, or
            `params.NO_PATH`.
        seed: of random weights.
        allow_pickle: accept weights that exist only as a pickle (read without executing code).
        preprocess: what weights without a tag take images with, where nothing else states it: a tag of
            the architecture, `<architecture>:<tag>`, or a mapping of mean, std, interpolation and
            resize_mode; None for what the tag, the config or all tags of the architecture say.
    """

    name: str
    pretrained: str | None
    path: str
    seed: Annotated[int, Range(0, MAX_SEED)]
    allow_pickle: bool
    preprocess: str | dict | None = None  # type: ignore[type-arg]  # checked by weights/preprocessing.py


@dataclass(frozen=True)
class ModelDescription:
    """`data/model.json`: the resolved weights.

    Attributes:
        model, pretrained: as asked for; the empty text stands for no tag.
        source: where the weights came from, for a person; says so when they are random.
        revision: of the hub repository, or empty.
        weights_sha256: of the safetensors file in `data/weights`.
        config_sha256: of all other files there: architecture, preprocessing, tokenizer.
        preprocess: the checkpoint's preprocessing.
        context_length: the most tokens a sentence may have.
        logit_scale: the learned factor on cosine similarities.
        libraries: what takes part in its arithmetic besides open_clip: timm, transformers, or none.
        remarks: for a person, where that is from which neither a tag nor a config states: preprocessing
            and activation; empty also in files that were written before there was this field.
    """

    model: str
    pretrained: str
    source: str
    revision: str
    weights_sha256: str
    config_sha256: str
    preprocess: dict[str, Any]
    context_length: int
    logit_scale: float
    libraries: list[str]
    remarks: list[str] = dataclasses.field(default_factory=list)

    @property
    def label(self) -> str:
        """One line for a person: what was asked for, whether it is random, and which weights it is."""
        random = f", {self.source}" if self.source.startswith(RANDOM) else ""
        return (
            f"{self.model} {self.pretrained}".rstrip()
            + f"{random}, weights sha256 {self.weights_sha256[:12]}"
        )

    def write(self, path: Path) -> None:
        files.write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> ModelDescription:
        """Read the file; DataError when it is not one of ours."""
        try:
            return cls(**files.read_json(path))
        except TypeError as error:
            raise DataError(
                f"not a model description: {error}", where=str(path), fix="run `dvc repro`"
            ) from error

    def attributes(self) -> dict[str, Attribute]:
        """What an embeddings file must carry about the model."""
        return {
            "model": self.model,
            "pretrained": self.pretrained,
            "weights_sha256": self.weights_sha256,
            "config_sha256": self.config_sha256,
            "preprocess": files.canonical_json(self.preprocess),
            "logit_scale": self.logit_scale,
        }


def embedding_dim(folder: Path) -> int:
    """D of the model in a folder of open_clip's format, read without loading it."""
    try:
        return int(files.read_json(folder / CONFIG_FILE)["model_cfg"]["embed_dim"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"not an open_clip config: {error}", where=str(folder), fix="run `dvc repro -f fetch_model`"
        ) from error


def pretrained_label(pretrained: str | None) -> str:
    """The pretrained tag as files hold it; the empty text stands for none."""
    return pretrained or ""


def known_as(name: str, pretrained: str) -> tuple[str, str]:
    """An architecture and a tag as open_clip files them: it reads ViT-B/32 and LAION2B-S34B-B79K, too."""
    if name.startswith(SCHEMES):
        return name, pretrained
    return name.replace("/", "-"), pretrained.lower().replace("-", "_")


def check_requested(attributes: Mapping[str, Attribute], model: ModelParams) -> None:
    """Raise DataError when a file was made with another model than params.yaml asks for."""
    for field, wanted in (("model", model.name), ("pretrained", pretrained_label(model.pretrained))):
        if attributes.get(field) != wanted:
            raise DataError(
                f"the embeddings were made with {field} {attributes.get(field)!r}, "
                f"params.yaml asks for {wanted!r}",
                fix="run `dvc repro`, which embeds again what is stale",
            )


def check_described(attributes: Mapping[str, Attribute], description: ModelDescription) -> None:
    """Raise DataError when a file was made with other weights than were resolved last."""
    for field, wanted in description.attributes().items():
        if attributes.get(field) != wanted:
            raise DataError(
                f"the embeddings were made with {field} {attributes.get(field)!r}, "
                f"data/model.json describes {wanted!r}",
                fix="run `dvc repro`, which embeds again what is stale",
            )


def config_sha256(folder: Path) -> str:
    """Hex sha256 over the names and contents of all files of a model's folder but the weights."""
    others = (path for path in folder.rglob("*") if path.is_file() and path.name != WEIGHTS_FILE)
    return files.sha256_of({path.relative_to(folder).as_posix(): files.file_sha256(path) for path in others})


def check_weights(model: ModelDescription, folder: Path) -> None:
    """Raise DataError unless the model in `folder` is the one that was described."""
    if not (folder / WEIGHTS_FILE).is_file():
        raise DataError("the weights are missing", where=str(folder / WEIGHTS_FILE), fix="run `dvc repro`")
    digests = (files.file_sha256(folder / WEIGHTS_FILE), config_sha256(folder))
    for what, is_now, was in zip(
        ("weights", "config"), digests, (model.weights_sha256, model.config_sha256), strict=True
    ):
        if is_now != was:
            raise DataError(
                f"the {what} have sha256 {is_now}, data/model.json says {was}",
                where=str(folder),
                fix="run `dvc repro -f fetch_model`",
            )
