"""YAML in the one meaning that DVC gives it too.

PyYAML follows YAML 1.1 and DVC follows YAML 1.2: `1e-3`, `no` and duplicate keys differ. The loader
here resolves scalars as DVC does and refuses the few spellings on which a person would be misled
(octal, underscores, dates, merge keys, tags).
"""

from __future__ import annotations

import re
import typing
from pathlib import Path
from typing import Any, ClassVar

import yaml

from clipcifar.core.errors import ConfigError
from clipcifar.core.files import fault_behind

MAX_BYTES = 1_000_000
MAX_NODES = 200_000  # after aliases are followed, so that a few lines cannot fill the memory


class _StrictLoader(yaml.SafeLoader):
    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            _refuse(event, f"the tag {tag} means different things to YAML readers", "remove the tag")
        return super().compose_node(parent, index)


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
_HALVES = re.compile("[\ud800-\udfff]")  # of characters, which no file and no terminal takes
_OTHER_BREAKS = re.compile("[\x85\u2028\u2029]")
_MERGE_MARKS = re.compile("^<<<<<<< ", re.MULTILINE)


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
    if isinstance(node, yaml.ScalarNode) and _HALVES.search(node.value):
        _refuse(node, r"\ud800 to \udfff are halves of characters", "write the character itself")
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                shown = repr(key.value) if isinstance(key, yaml.ScalarNode) else "of this value"
                _refuse(key, f"the key {shown} is not text", "put the key in quotes")
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


def load_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file into plain dicts, lists and scalars.

    Raises:
        ConfigError: not YAML, not a mapping, a duplicate key, a tag, a value that contains
            itself, or a scalar that YAML readers disagree on.
        EnvironmentFault: it is there and cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            text = stream.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_BYTES:,} characters", where=str(path))
        if breaks := _OTHER_BREAKS.search(text):
            line = text.count("\n", 0, breaks.start()) + 1
            raise ConfigError(
                f"the character U+{ord(breaks[0]):04X} ends a line for some YAML readers only",
                where=f"{path}, line {line}",
                fix="remove it",
            )
        loader = _StrictLoader(text)
        loader.name = str(path)
        try:
            node = loader.get_single_node()
            if node is not None:
                _check(node, {})
            if loader.yaml_version is not None:
                raise ConfigError("the file asks for a YAML version", where=str(path), fix="remove %YAML")
            settings = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (OSError, ValueError, OverflowError, RecursionError) as error:
        raise fault_behind(error, path) or ConfigError(
            f"cannot read {path}: {error}", where=str(path)
        ) from error
    except yaml.YAMLError as error:
        if marks := _MERGE_MARKS.search(text):
            line = text.count("\n", 0, marks.start()) + 1
            raise ConfigError(
                "git has merged two versions, and marked where they differ",
                where=f"{path}, line {line}",
                fix="keep one side of each place, and remove the lines <<<<<<<, ======= and >>>>>>>",
            ) from error
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"not valid YAML: {problem}", where=where, fix="see the line named") from error
    if not isinstance(settings, dict):
        raise ConfigError("the file is not a mapping of sections", where=str(path))
    return settings
