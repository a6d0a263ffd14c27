"""What `prepare` says of the classes, data/classes.json: the dataset and its class names in label order."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

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
