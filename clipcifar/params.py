"""Strict reading of params.yaml, in the one meaning that DVC gives it too.

PyYAML follows YAML 1.1 and DVC follows YAML 1.2: `1e-3`, `no` and duplicate keys differ. The loader
here resolves scalars as DVC does and refuses the few spellings on which a person would be misled
(octal, underscores, dates, merge keys). Each section is read into a dataclass that lives beside
its consumer; a key that is missing, unknown or of the wrong type is an error, never a default.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml

from clipcifar.errors import ConfigError

SECTIONS = ("dataset", "split", "model", "embed", "prompts", "linear_probe", "mlp_probe", "projection")
NO_PATH = "data/none"  # what a `path` key holds when no local file is used: DVC needs a path that exists
MAX_BYTES = 1_000_000
MAX_NODES = 200_000  # after aliases are followed, so that a few lines cannot fill the memory

T = TypeVar("T")


class _StrictLoader(yaml.SafeLoader):
    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]


def _resolve(tag: str, pattern: str, first: str) -> None:
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))


_resolve("null", r"^(?:~|null|Null|NULL|)$", "~nN")
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^$"), [""])
_resolve("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF")
_resolve("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789")
_resolve("float", r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789")
_MISLEADING = re.compile(
    r"^(?:[-+]?0[0-9]+|[-+]?0[xob][0-9a-fA-F_]+|[-+]?[0-9.]*_[0-9_.eE+-]*|[-+]?\.(?:inf|Inf|INF)"
    r"|\.(?:nan|NaN|NAN)|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}.*|=|<<)$"
)


def _refuse(node: yaml.Node, what: str, fix: str) -> typing.NoReturn:
    mark = node.start_mark
    raise ConfigError(what, where=f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}", fix=fix)


def _check(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Refuse duplicate keys, misleading scalars and exploding aliases; return the expanded size."""
    if id(node) in sizes:
        if sizes[id(node)] == 0:
            _refuse(node, "this value contains itself", "remove the alias")
        return sizes[id(node)]
    sizes[id(node)] = 0
    size = 1
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                _refuse(key, f"the key {key.value!r} is not text", "put the key in quotes")
            _check(key, sizes)
            if key.value in seen:
                _refuse(key, f"the key {key.value!r} is given twice", "keep one of the two")
            seen.add(key.value)
            size += _check(value, sizes)
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_check(item, sizes) for item in node.value)
    elif isinstance(node, yaml.ScalarNode) and node.style is None and _MISLEADING.match(node.value):
        _refuse(
            node,
            f"{node.value!r} means different things to different YAML readers",
            "put it in quotes if it is text, or write it as a plain decimal number",
        )
    if size > MAX_NODES:
        _refuse(node, f"the file expands to more than {MAX_NODES:,} values", "remove the aliases")
    sizes[id(node)] = size
    return size


def load(path: Path) -> dict[str, Any]:
    """Read params.yaml into plain dicts, lists and scalars.

    Raises:
        ConfigError: not YAML, not a mapping, an unknown top-level section, a duplicate key, an
            unknown tag, a value that contains itself, or a scalar that YAML readers disagree on.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if len(text) > MAX_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_BYTES:,} characters", where=str(path))
        loader = _StrictLoader(text)
        loader.name = str(path)
        try:
            node = loader.get_single_node()
            if node is not None:
                _check(node, {})
            settings = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"cannot read {path}: {error}", where=str(path)) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"not valid YAML: {problem}", where=where, fix="see the line named") from error
    if not isinstance(settings, dict):
        raise ConfigError("the file is not a mapping of sections", where=str(path))
    check_keys(settings, SECTIONS, where=str(path), what="section")
    return settings


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """A fix line for a misspelt name: the nearest known one, or all of them."""
    known = list(known)
    if not known:
        return "there is none yet: add it"
    near = difflib.get_close_matches(wrong, known, n=1)
    return f"did you mean {near[0]}?" if near else f"use one of: {', '.join(known)}"


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


@dataclass(frozen=True)
class Range:
    """Inclusive bounds of a number, for `Annotated[float, Range(0, 1)]`."""

    low: float
    high: float = math.inf

    def __str__(self) -> str:
        return f"{self.low} or more" if self.high == math.inf else f"{self.low} to {self.high}"


def read(settings: Mapping[str, Any], section: str, model: type[T]) -> T:
    """Read one section into the dataclass `model`, checking every key, type and bound.

    Raises:
        ConfigError: names the key, what was found and what was expected.
    """
    values = settings.get(section)
    if not isinstance(values, dict):
        raise ConfigError(f"the section {section!r} is missing or is not a mapping", where="params.yaml")
    fields = [field.name for field in dataclasses.fields(typing.cast(Any, model))]
    check_keys(values, fields, where=f"params.yaml: {section}")
    hints = typing.get_type_hints(model, include_extras=True)
    return model(**{name: _convert(values[name], hints[name], f"{section}.{name}") for name in fields})


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
        return None if value is None else _convert(value, arguments[0], key)
    if origin is tuple:
        if not isinstance(value, list) or not value:
            raise _wrong(key, value, "a list with at least one item")
        return tuple(_convert(item, arguments[0], f"{key}[{index}]") for index, item in enumerate(value))
    if hint is float and type(value) in (int, float):
        if not math.isfinite(value):
            raise _wrong(key, value, "a finite number")
        return float(value)
    if hint in (int, str, bool, dict) and type(value) is hint:
        return value
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", dict: "a mapping"}
    raise _wrong(key, value, names[hint])


def _wrong(key: str, value: Any, expected: str) -> ConfigError:
    shown = repr(value)
    if len(shown) > 60:
        shown = shown[:57] + "..."
    return ConfigError(
        f"{key} is {shown} ({type(value).__name__}), expected {expected}", where=f"params.yaml: {key}"
    )
