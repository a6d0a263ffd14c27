"""Write a prompt set into params.yaml as a person would: comments and order stay."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.error import YAMLError

from clipcifar.core import params
from clipcifar.core.errors import ConfigError
from clipcifar.core.files import write_atomically
from clipcifar.prompts.folding import fold
from clipcifar.prompts.params import PromptsParams
from clipcifar.prompts.sets import expand_set
from clipcifar.prompts.templates import expand_alternatives


def edit_params(path: Path, change: Callable[[Any], object]) -> None:
    """Change params.yaml in place, atomically; what is not changed keeps its comments and its form.

    Args:
        path: of params.yaml.
        change: edits the document, nested dicts and lists.

    Raises:
        ConfigError: DVC would not read what was written as it is meant; the file is left as it was.
    """
    editor = YAML()
    editor.preserve_quotes = True
    editor.width = 4096  # never fold a sentence
    editor.indent(mapping=2, sequence=4, offset=2)
    editor.representer.add_representer(  # null stays "null", not nothing
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    text = path.read_bytes().decode()
    document = editor.load(text.replace("\r\n", "\n"))  # a comment would keep the \r
    before = _dumped(editor, document)
    change(document)
    written = _dumped(editor, document)
    parted = _parted(before, written)
    if _reads_as(parted, document):
        written = parted
    elif not _reads_as(written, document):  # text with a colon loses its quotes inside braces
        raise ConfigError(
            "the change does not fit into the form of this file",
            where=str(path),
            fix="write its mappings one key a line, without braces",
        )
    write_atomically(path, (written.replace("\n", "\r\n") if "\r\n" in text else written).encode())


def _dumped(editor: YAML, document: Any) -> str:
    stream = io.StringIO()
    editor.dump(document, stream)
    return stream.getvalue()


def _reads_as(text: str, document: Any) -> bool:
    try:
        return bool(YAML(typ="safe").load(text) == document)
    except YAMLError:
        return False


def _parted(before: str, after: str) -> str:
    """The text after lines were added at a section's end, with what parts it from the next below them.

    The library takes blank lines, and comments that stand further left, for the end of the entry above.
    """
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    start = next((i for i, (was, line) in enumerate(zip(old, new, strict=False)) if was != line), len(old))
    end = start + len(new) - len(old)
    if end <= start or old[start:] != new[end:]:
        return after  # more than one place, or nothing, was added to
    margin = _margin(new[start])
    top = start
    while top and (
        not new[top - 1].strip() or (new[top - 1].lstrip()[0] == "#" and _margin(new[top - 1]) < margin)
    ):
        top -= 1
    return "".join([*new[:top], *new[start:end], *new[top:start], *new[end:]])


def _margin(line: str) -> int:
    return len(line) - len(line.lstrip())


def overlay(settings: Any, changes: Mapping[str, Any]) -> None:
    """Lay nested mappings over each other in place, key by key."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(settings.get(key), Mapping):
            overlay(settings[key], value)
        else:
            settings[key] = value


def compact(values: Mapping[str, Any]) -> dict[str, Any]:
    """A prompt set of the same readings in fewer lines, alternatives in brackets.

    Args:
        values: as params.yaml has it; its templates hold no brackets yet.
    """
    if "templates" not in values:
        return dict(values)
    folded = fold(values["templates"])
    if "weights" not in values:
        return {**values, "templates": folded}
    weight_of = dict(zip(values["templates"], values["weights"], strict=True))
    readings = [reading for line in folded for reading in expand_alternatives(line)]
    return {**values, "templates": folded, "weights": [weight_of[reading] for reading in readings]}


def save_set(
    path: Path, name: str, values: Mapping[str, Any], *, class_names: list[str], dataset: str
) -> str:
    """Add a prompt set; the active set stays.

    Args:
        path: of params.yaml.
        name: letters, digits, _ and -.
        values: the set as params.yaml holds it (template_mode, templates, …).
        class_names: the dataset's C class names in label order.
        dataset: its registry name.

    Returns:
        What to do next, for a person.

    Raises:
        ConfigError: the name is taken, or the name, the file or a sentence is not valid; the file is
            left as it was.
    """
    for own in values.get("sentences", {}).values():
        if any(set("[]{}") & set(sentence) for sentence in own):
            raise ConfigError(
                "a class name holds brackets or braces, which a saved set would read as its own",
                where=str(path),
            )
    expand_set(name, dict(values), class_names=class_names, dataset=dataset)
    if name in params.read(params.load(path), "prompts", PromptsParams).sets:
        fix = "choose another name, or remove that set first"
        raise ConfigError(f"there is a prompt set {name!r} already", where=str(path), fix=fix)
    written = dict(values)
    if "weights" in written:
        written["weights"] = CommentedSeq(written["weights"])
        written["weights"].fa.set_flow_style()  # a line of hundreds, not hundreds of lines
    edit_params(path, lambda document: document["prompts"]["sets"].update({name: written}))
    return f"saved in {path}; to use it set prompts.active: {name} and run `dvc repro`"
