"""Strict reading of params.yaml.

Each section is read into a dataclass that lives beside its consumer; a key that is missing, unknown
or of the wrong type is an error, never a default.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from clipcifar.core import strict_yaml
from clipcifar.core.errors import ConfigError
from clipcifar.core.terminal import cut, one_line

SECTIONS = (
    *("dataset", "split", "model", "embed", "prompts", "search"),
    *("gda", "linear_probe", "mlp_probe", "projection", "report"),
    *("few_shot", "ensemble", "models", "label_errors", "near_duplicates"),  # of the studies
    *("corruptions", "finetune"),
)
DATASETS = (  # the rows of REGISTRY in datasets/registry.py
    "cifar10",
    "cifar100",
    "digits",
    "imagefolder",
    "tarfolder",
    "pets",
    "flowers102",
    "food101",
    "eurosat",
    "dtd",
)
MAX_SEED = 2**63 - 1  # what torch takes
NO_PATH = "data/none"  # what a `path` key holds when no local file is used: DVC needs a path that exists

NAMED = 20  # of many known names, so many are offered
_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false", dict: "a mapping"}

T = TypeVar("T")


def load(path: Path) -> dict[str, Any]:
    """Read params.yaml; ConfigError when it is not strict YAML or has an unknown or missing section."""
    if not path.exists():
        raise ConfigError(
            f"there is no {path.name} in {path.absolute().parent}",
            where=str(path),
            fix=f"go to the project's folder; if this is it: git checkout HEAD -- {path.name}",
        )
    settings = strict_yaml.load_mapping(path)
    check_keys(settings, SECTIONS, where=str(path), what="section")
    return settings


def nearest(wrong: str, known: Iterable[str]) -> str | None:
    """The known name that a misspelt one is nearest to, if it is near to any."""
    return next(iter(difflib.get_close_matches(wrong, list(known), n=1)), None)


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """A fix line for a misspelt name: the nearest known one, or all of them."""
    known = list(known)
    if not known:
        return "there is none yet: add it"
    if near := nearest(wrong, known):
        return f"did you mean {near}?"
    more = f" and {len(known) - NAMED:,} more" if len(known) > NAMED else ""
    return f"use one of: {', '.join(known[:NAMED])}{more}"


def check_keys(
    given: Mapping[str, Any],
    known: Iterable[str],
    *,
    where: str,
    what: str = "key",
    optional: Iterable[str] = (),
) -> None:
    """Raise ConfigError unless the keys of `given` are `known`, each present save the optional ones."""
    known, optional = list(known), list(optional)
    for key in given:
        if key not in known and key not in optional:
            raise ConfigError(f"unknown {what} {key!r}", where=where, fix=suggestion(key, known + optional))
    for key in known:
        if key not in given:
            raise ConfigError(f"the {what} {key!r} is missing", where=where, fix=f"add {key}")


def check_distinct(values: Iterable[object], key: str) -> None:
    """Raise ConfigError where a value is repeated in the list under a dotted key."""
    values = list(values)
    if len(set(values)) != len(values):
        name = key.rpartition(".")[2]
        raise ConfigError(f"a value occurs twice in {name}", where=f"params.yaml: {key}", fix="keep one")


@dataclass(frozen=True)
class Range:
    """Inclusive bounds of a number, for `Annotated[float, Range(0, 1)]`."""

    low: float
    high: float = math.inf

    def __str__(self) -> str:
        return f"{self.low} or more" if self.high == math.inf else f"{self.low} to {self.high}"


def read(settings: Mapping[str, Any], section: str, model: type[T]) -> T:
    """Read one section into the dataclass `model`, checking every key, type and bound.

    A key whose field has a default came later than the first params.yaml of somebody: it may be absent,
    and then means what the default says.

    Raises:
        ConfigError: names the key, what was found and what was expected.
    """
    values = settings.get(section)
    if not isinstance(values, dict):
        raise ConfigError(f"the section {section!r} is missing or is not a mapping", where="params.yaml")
    fields = dataclasses.fields(typing.cast(Any, model))
    later = [field.name for field in fields if field.default is not dataclasses.MISSING]
    required = [field.name for field in fields if field.name not in later]
    check_keys(values, required, where=f"params.yaml: {section}", optional=later)
    hints = typing.get_type_hints(model, include_extras=True)
    return model(
        **{name: _convert(value, hints[name], f"{section}.{name}") for name, value in values.items()}
    )


def _convert(value: Any, hint: Any, key: str) -> Any:
    """Check `value` against a type hint; ints pass for floats, lists become tuples."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        value, bounds = _convert(value, arguments[0], key), arguments[1]
        for number in value if isinstance(value, tuple) else [value]:
            if number is not None and not bounds.low <= number <= bounds.high:
                raise ConfigError(f"{key} is {number}, expected {bounds}", where=f"params.yaml: {key}")
        return value
    if origin is typing.Literal:
        if value in arguments and isinstance(value, str):
            return value
        raise _wrong(key, value, "one of " + ", ".join(arguments))
    if origin in (typing.Union, types.UnionType):
        kinds = [kind for kind in arguments if kind is not types.NoneType]
        if value is None or len(kinds) == 1:
            return None if value is None else _convert(value, kinds[0], key)
        if type(value) in kinds:
            return value
        raise _wrong(key, value, " or ".join(_NAMES[kind] for kind in kinds))
    if origin is tuple:
        if not isinstance(value, list) or not value:
            raise _wrong(key, value, "a list with at least one item")
        return tuple(_convert(item, arguments[0], f"{key}[{index}]") for index, item in enumerate(value))
    if hint is float and type(value) in (int, float):
        if not abs(value) <= sys.float_info.max:  # nor an int that no float can hold
            raise _wrong(key, value, "a finite number")
        return float(value)
    if hint in (int, str, bool, dict) and type(value) is hint:
        return value
    raise _wrong(key, value, _NAMES[hint])


def _wrong(key: str, value: Any, expected: str) -> ConfigError:
    fix = f"write {NO_PATH} where there is none" if value is None and key.endswith(".path") else ""
    shown = cut(one_line(repr(value)), 60)
    return ConfigError(
        f"{key} is {shown} ({type(value).__name__}), expected {expected}",
        where=f"params.yaml: {key}",
        fix=fix,
    )
