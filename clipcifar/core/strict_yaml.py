"""YAML in the one meaning that DVC gives it too.

PyYAML follows YAML 1.1 and DVC follows YAML 1.2: `1e-3`, `no` and duplicate keys differ. The loader
here resolves scalars as DVC does and refuses the few spellings on which a person would be misled
(octal, underscores, dates, merge keys, tags).
"""

from __future__ import annotations

import io
import re
import typing
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import yaml

from clipcifar.core.errors import ConfigError
from clipcifar.core.files import fault_behind

MAX_BYTES = 1_000_000
DEEPEST = 2  # a mapping and the lists in it, of `load_lists`
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


def _refuse(node: Any, what: str, fix: str) -> typing.NoReturn:
    mark = node.start_mark
    raise ConfigError(what, where=f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}", fix=fix)


def _check_plain(scalar: Any) -> None:
    """Refuse a scalar without quotes, node or event, that readers disagree on."""
    if _MISLEADING.match(scalar.value):
        _refuse(
            scalar,
            f"{scalar.value!r} means different things to different YAML readers",
            "put it in quotes if it is text, or write it as a plain decimal number",
        )


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
    elif isinstance(node, yaml.ScalarNode) and node.style is None:
        _check_plain(node)
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
    text = _text(path, MAX_BYTES)
    with _explained(path, text):
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
    if not isinstance(settings, dict):
        raise ConfigError("the file is not a mapping of sections", where=str(path))
    return settings


def load_lists(path: Path, *, max_characters: int) -> Any:
    """Read a YAML file of lists, or mappings to lists, of text: as strictly, and a hundred times as fast.

    By libyaml where PyYAML was built with it, event by event: what nests deeper, and aliases, are refused
    before they are built, so that neither depth nor size can be made to explode.

    Raises:
        ConfigError, EnvironmentFault: as `load_mapping`; or an anchor, an alias, or what nests deeper.
    """
    text = _text(path, max_characters)
    with _explained(path, text):
        stream: Any = io.StringIO(text)
        stream.name = str(path)
        return _built(yaml.parse(stream, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def _built(events: Iterable[Any]) -> Any:
    """The lists and mappings that events of one document speak of."""
    root: list[Any] = []
    stack: list[Any] = [root]  # what is being filled, from the outermost
    keys: list[str | None] = [None]  # of each, the key that waits for its value
    for event in events:
        if getattr(event, "tag", None) is not None:
            _refuse(event, f"the tag {event.tag} means different things to YAML readers", "remove the tag")
        if getattr(event, "anchor", None) is not None:
            _refuse(event, "anchors and aliases are not read here", "write the text itself")
        if getattr(event, "version", None):
            _refuse(event, "the file asks for a YAML version", "remove %YAML")
        if isinstance(event, yaml.DocumentStartEvent) and root:
            _refuse(event, "the file holds more than one document", "keep one of them")
        if isinstance(event, yaml.CollectionEndEvent):
            stack.pop()
            keys.pop()
        if not isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent)):
            continue
        target, kind = stack[-1], dict if isinstance(event, yaml.MappingStartEvent) else list
        value: Any = _scalar(event) if isinstance(event, yaml.ScalarEvent) else kind()
        if isinstance(target, list):
            target.append(value)
        elif keys[-1] is not None:
            target[keys[-1]], keys[-1] = value, None
        elif not isinstance(value, str):
            shown = repr(event.value) if isinstance(event, yaml.ScalarEvent) else "of this value"
            _refuse(event, f"the key {shown} is not text", "put the key in quotes")
        elif value in target:
            _refuse(event, f"the key {value!r} is given twice", "keep one of the two")
        else:
            keys[-1] = value
        if isinstance(event, yaml.CollectionStartEvent):
            if len(stack) > DEEPEST:
                deep = "write a class and its list of sentences; one with a colon goes in quotes"
                _refuse(event, "lists and mappings nest too deep", deep)
            stack.append(value)
            keys.append(None)
    return root[0] if root else None


def _scalar(event: Any) -> Any:
    """The value of a scalar, as `load_mapping` would have it."""
    text: str = event.value
    if _HALVES.search(text):
        _refuse(event, r"\ud800 to \udfff are halves of characters", "write the character itself")
    if not event.implicit[0]:  # in quotes
        return text
    _check_plain(event)
    for tag, pattern in _StrictLoader.yaml_implicit_resolvers.get(text[:1], []):
        if pattern.match(text):
            return _PLAIN[tag.rpartition(":")[2]](text)
    return text


_PLAIN: dict[str, Callable[[str], Any]] = {
    "null": lambda text: None,
    "bool": lambda text: text.lower() == "true",
    "int": int,
    "float": float,
}


def _text(path: Path, max_characters: int) -> str:
    """A file's text, which all YAML readers divide into the same lines."""
    try:
        with path.open(encoding="utf-8") as stream:
            text = stream.read(max_characters + 1)
    except (OSError, ValueError) as error:
        raise fault_behind(error, path) or _unreadable(path, error) from error
    if len(text) > max_characters:
        raise ConfigError(f"{path} is larger than {max_characters:,} characters", where=str(path))
    if breaks := _OTHER_BREAKS.search(text):
        line = text.count("\n", 0, breaks.start()) + 1
        raise ConfigError(
            f"the character U+{ord(breaks[0]):04X} ends a line for some YAML readers only",
            where=f"{path}, line {line}",
            fix="remove it",
        )
    return text


def _unreadable(path: Path, error: Exception) -> ConfigError:
    fix = "save it in UTF-8" if isinstance(error, UnicodeError) else ""
    return ConfigError(f"cannot read {path}: {error}", where=str(path), fix=fix)


@contextmanager
def _explained(path: Path, text: str) -> Iterator[None]:
    """Let what is wrong with a file's YAML be said in words."""
    try:
        yield
    except (ValueError, OverflowError, RecursionError) as error:
        raise _unreadable(path, error) from error
    except yaml.YAMLError as error:
        if marks := _MERGE_MARKS.search(text):
            line = text.count("\n", 0, marks.start()) + 1
            raise ConfigError(
                "git has merged two versions, and marked where they differ",
                where=f"{path}, line {line}",
                fix="keep one side of each place, and remove the lines <<<<<<<, ======= and >>>>>>>",
            ) from error
        problem, mark = getattr(error, "problem", None) or error, getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(path)
        fix = "see the line named: text that begins with [ or {, or holds a colon, stands in quotes"
        raise ConfigError(f"not valid YAML: {problem}", where=where, fix=fix) from error
