"""What a person says of classes in files of their own, beside params.yaml: sentences and names.

The files lie in one folder that git tracks and DVC hashes as a whole, since DVC takes no path out of a
prompt set.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from clipcifar.core.counts import count_of
from clipcifar.core.errors import ConfigError
from clipcifar.core.faults import Faults
from clipcifar.core.files import fault, fault_behind
from clipcifar.core.links import is_filed

FOLDER = Path("data/sentences")
MAX_CHARACTERS = 20_000_000  # of a file: 100,000 sentences of 200 characters
KINDS = (".json", ".yaml", ".yml")
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")


def read(name: object, *, where: str, folder: Path = FOLDER) -> tuple[str, Any]:
    """Read a JSON or YAML file that params.yaml names.

    Args:
        name: the file's path in the folder, which it may begin with.
        where: the key of params.yaml, for messages.
        folder: that files must lie in.

    Returns:
        The file's path in the project, for messages, and what it holds.

    Raises:
        ConfigError: it is no such file, is a link that leads neither into the folder nor into a cache,
            is too large, is not JSON or YAML, or gives a key twice.
        EnvironmentFault: it is there and cannot be read.
    """
    if not isinstance(name, str) or not name:
        raise ConfigError(f"expected the name of a file, found {name!r}", where=where, fix=_fix(folder))
    inside = PurePosixPath(name)
    if inside.is_relative_to(PurePosixPath(FOLDER)):
        inside = inside.relative_to(PurePosixPath(FOLDER))
    if inside.is_absolute() or ".." in inside.parts or "\\" in name or holds_control(name):
        raise ConfigError(
            f"{name!r} does not lie in {FOLDER}/",
            where=where,
            fix="put the file there, and give its path in that folder",
        )
    if inside.suffix.lower() not in KINDS:
        raise ConfigError(
            f"{name!r} is neither JSON nor YAML",
            where=where,
            fix=f"name a file that ends in {', '.join(KINDS)}",
        )
    path, shown = folder / inside, (FOLDER / inside).as_posix()
    try:
        lies_at = path.resolve()
        is_inside = lies_at.is_relative_to(folder.resolve()) or is_filed(lies_at)
        is_file = path.is_file()
    except (OSError, RuntimeError) as error:  # a link that leads to itself; a name that is too long
        unreadable = fault(error, path) if isinstance(error, PermissionError) else None
        raise unreadable or _absent(shown, where, folder) from error
    if not is_inside:
        raise ConfigError(
            f"{shown} is a link that leads out of {FOLDER}/", where=where, fix="put the file itself there"
        )
    if not is_file:
        raise _absent(shown, where, folder)
    if inside.suffix.lower() == ".json":
        return shown, _from_json(path)
    from clipcifar.core import strict_yaml  # with yaml, which who asks for a name's reading does not need

    return shown, strict_yaml.load_lists(path, max_characters=MAX_CHARACTERS)


def _files_in(folder: Path) -> list[str]:
    paths = folder.rglob("*") if folder.is_dir() else ()
    files = (path for path in paths if path.suffix.lower() in KINDS and os.path.isfile(path))
    return sorted(path.relative_to(folder).as_posix() for path in files)


def _fix(folder: Path) -> str:
    return f"put it into {FOLDER}/" + (
        f", which has {', '.join(files[:5])}" if (files := _files_in(folder)) else ""
    )


def _absent(shown: str, where: str, folder: Path) -> ConfigError:
    from clipcifar.core.params import nearest  # with yaml, as above

    near = nearest(PurePosixPath(shown).relative_to(FOLDER).as_posix(), _files_in(folder))
    meant = f"did you mean {near}? Else " if near else ""
    return ConfigError(f"there is no file {shown}", where=where, fix=meant + _fix(folder))


def _from_json(path: Path) -> Any:
    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            keys = [key for key, _ in pairs]
            doubled = Counter(keys).most_common(1)[0][0]
            raise ConfigError(
                f"the key {doubled!r} is given twice", where=str(path), fix="keep one of the two"
            )
        return content

    try:
        with path.open(encoding="utf-8-sig") as stream:
            text = stream.read(MAX_CHARACTERS + 1)
        if len(text) > MAX_CHARACTERS:
            raise ConfigError(f"{path} is larger than {MAX_CHARACTERS:,} characters", where=str(path))
        return json.loads(text, object_pairs_hook=mapping)
    except json.JSONDecodeError as error:
        where = f"{path}, line {error.lineno}, column {error.colno}"
        raise ConfigError(f"not valid JSON: {error.msg}", where=where, fix="see the line named") from error
    except (OSError, ValueError, RecursionError) as error:
        raise fault_behind(error, path) or ConfigError(
            f"cannot read {path}: {error}", where=str(path), fix="save it as JSON, in UTF-8"
        ) from error


def holds_control(text: str) -> bool:
    """Whether a text holds a control character, or half a character: Unicode's Cc and Cs."""
    return _CONTROL.search(text) is not None


def reading(class_name: str) -> str:
    """What a person reads of a class name: underscores are spaces, and what has no width is not there.

    >>> reading("hot_dog") == reading("hot  dog ")
    True
    """
    seen = class_name
    if not seen.isascii():
        seen = "".join(character for character in seen if unicodedata.category(character) != "Cf")
        seen = unicodedata.normalize("NFC", seen)
    return " ".join(seen.replace("_", " ").split())


def by_class(
    content: Mapping[str, Any], known: Sequence[str], *, where: str, faults: Faults
) -> tuple[dict[str, Any], list[str]]:
    """Tell of which class each key of a mapping speaks: of the one that it names, or that it reads like.

    Args:
        content: by class.
        known: the C class names in label order.
        where: the mapping is from, for messages.
        faults: gathers classes that are spoken of twice.

    Returns:
        The value for each class that is spoken of, in label order; and the keys that speak of no known class.
    """
    spelled = {reading(label): label for label in known} | {label: label for label in known}
    keys: dict[str, str] = {}  # by class
    unknown = []
    for key in content:
        label = spelled.get(key) or spelled.get(reading(key))
        if label is None:
            unknown.append(key)
        elif label in keys:
            what = f"{keys[label]!r} and {key!r} are both the class {label!r}"
            faults.add(ConfigError(what, where=where, fix="make one entry of the two"))
        else:
            keys[label] = key
    return {label: content[keys[label]] for label in known if label in keys}, unknown


def class_names(
    name: object, known: Sequence[str], *, where: str, folder: Path = FOLDER
) -> tuple[str, dict[str, Any]]:
    """What a file calls classes: it is a mapping of class to a name or names, or a list in class order.

    Args:
        name: of the file, as `read` takes it.
        known: the C class names in label order.

    Returns:
        The file's path in the project, for messages, and by class a list of what it is called; neither the
        classes nor the names are checked.

    Raises:
        ConfigError: as `read`; it is something else, or a list of another length.
    """
    shown, content = read(name, where=where, folder=folder)
    if isinstance(content, list):
        if len(content) != len(known):
            raise ConfigError(
                f"{count_of(len(content), 'name')} for {count_of(len(known), 'class')}",
                where=shown,
                fix="write one entry for every class, in the order of data/classes.json, or class: name",
            )
        content = dict(zip(known, content, strict=True))
    if not isinstance(content, dict):
        raise ConfigError(
            "expected a mapping of class to name, or a list of names", where=shown, fix="write class: name"
        )
    return shown, {key: names if isinstance(names, list) else [names] for key, names in content.items()}
