"""What `prepare` says of the classes, data/classes.json: the dataset and its class names in label order."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipcifar.core.class_files import reading
from clipcifar.core.errors import DataError
from clipcifar.core.files import read_json


def read_classes(path: Path) -> dict[str, Any]:
    """The dataset's name and class names that `prepare` wrote, as `prompts.sets.expand_sets` takes them.

    Raises:
        DataError: the file is missing, or holds something else.
    """
    content = read_json(path)
    try:
        return {"dataset": content["dataset"], "class_names": [str(name) for name in content["class_names"]]}
    except (TypeError, KeyError) as error:
        raise DataError(
            "not a list of class names",
            where=str(path),
            fix=f"rm {shlex.quote(str(path))} && dvc repro prepare",
        ) from error


def check_readings(class_names: Sequence[str], *, where: str, fix: str = "rename one of the two") -> None:
    """Refuse names that differ in nothing a person reads: in underscores and blanks, or in what has no width.

    Prompts would say the same of both classes, and the first would get the images of the second.

    Raises:
        DataError: names all such classes, escaped where they look alike.
    """
    alike: dict[str, list[str]] = {}
    for name in class_names:
        alike.setdefault(reading(name), []).append(name)
    groups = [_named(names) for names in alike.values() if len(names) > 1]
    if groups:
        raise DataError(f"two classes read alike: {'; '.join(groups)}", where=where, fix=fix)


def _named(names: Sequence[str]) -> str:
    look = {unicodedata.normalize("NFC", repr(name)) for name in names}
    return " and ".join(map(repr if len(look) == len(names) else ascii, names))
