"""Which other backbones the study `models` compares: the `models` section of params.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from clipcifar.core import params
from clipcifar.core.errors import ClipcifarError, ConfigError
from clipcifar.store.model import ModelParams

OWN = "own"  # what the project's own model is called beside them
LABEL = re.compile(r"[A-Za-z0-9_-]+")  # a key of metrics; a dot would be read as nesting by DVC
_WHERE = "params.yaml: models.others"
# An entry has these, the others are shared.
_OWN_KEY = re.compile(r"\bmodel\.(?=(?:name|pretrained|path|preprocess)\b)")


@dataclass(frozen=True)
class ModelsParams:
    """The `models` section.

    Attributes:
        others: by label, the name, pretrained and path of a model, as in the `model` section, and its
            preprocess where it needs one.
    """

    others: dict  # type: ignore[type-arg]  # checked by `listed`


@dataclass(frozen=True)
class _Entry:
    name: str
    pretrained: str | None
    path: str
    preprocess: str | dict | None = None  # type: ignore[type-arg]  # as of `ModelParams`


def listed(section: ModelsParams, own: ModelParams) -> dict[str, ModelParams]:
    """The models by label, in the order of params.yaml; what an entry does not say is as for the own one.

    Raises:
        ConfigError: there is none, a label cannot be a key, or an entry is wrong.
    """
    if not section.others:
        raise ConfigError("there is no model to compare with", where=_WHERE, fix="add one")
    models = {}
    for label in section.others:
        if not isinstance(label, str) or not LABEL.fullmatch(label) or label == OWN:
            raise ConfigError(
                f"{label!r} cannot be a label: it may hold only letters, digits, _ and -, and is not {OWN}",
                where=_WHERE,
                fix="rename it",
            )
        with named(label):
            entry = params.read(section.others, label, _Entry)
        models[label] = replace(own, **vars(entry))
    return models


@contextmanager
def named(label: str) -> Iterator[None]:
    """Let an error say which of the listed models it is of, where it speaks of the `model` section.

    It then names the keys of the entry: an edit of the project's own model would mend nothing.
    """
    try:
        yield
    except ClipcifarError as error:
        entry = f"models.others.{label}."
        error.what = f"{label}: {_OWN_KEY.sub(entry, error.what)}"
        error.fix = _OWN_KEY.sub(entry, error.fix)
        if re.fullmatch(rf"(params\.yaml(: (model|{re.escape(label)})(\..*)?)?)?", error.where):
            error.where = f"{_WHERE}.{label}"
        raise
