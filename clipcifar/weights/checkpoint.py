"""A file of weights, whatever made it, to one safetensors file as open_clip calls its tensors."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import safetensors.torch
import torch
from open_clip.convert import load_big_vision_weights
from safetensors import SafetensorError, safe_open

from clipcifar.core.errors import ConfigError, DataError
from clipcifar.core.files import copy_file, explained, fault_behind, require_space
from clipcifar.store.model import LOCAL_DIR, WEIGHTS_FILE
from clipcifar.weights import layout, tensor_file
from clipcifar.weights.file_kind import kind_of

_OBJECT = re.compile(r"GLOBAL ([\w.]+)")


def place(source: Path, folder: Path, allow_pickle: bool) -> None:
    """Put the weights of a file into `folder`, which holds the config already.

    A safetensors file in open_clip's layout is copied as it is; wrappers and the layouts of other
    libraries are undone where that is unambiguous.

    Raises:
        ConfigError: it is a pickle and none is allowed.
        DataError: it is damaged, something else, or of a layout that is not known.
        EnvironmentFault: the weights cannot be written.
    """
    kind = kind_of(source)
    if kind == "npz":
        _save(_from_big_vision(source, folder), folder / WEIGHTS_FILE)
    elif kind == "pickle":
        if not allow_pickle:
            raise ConfigError(
                f"{source.name} is not a safetensors file",
                where=str(source),
                fix="convert it, or set model.allow_pickle: true to read it without executing code",
            )
        _save(_translated(_unpickled(source), source), folder / WEIGHTS_FILE)
    else:
        tensor_file.check(source)
        names = _names(source)
        renamed = layout.open_clip_names(names)
        layout.check(renamed.values(), source)
        if layout.is_transformers(renamed.values()) or renamed != {name: name for name in names}:
            _save(_translated(safetensors.torch.load_file(source), source), folder / WEIGHTS_FILE)
        else:
            copy_file(source, folder / WEIGHTS_FILE)


def place_random(folder: Path, seed: int) -> None:
    """Put random weights into `folder`, of the architecture in its config."""
    torch.manual_seed(seed)
    model = _without_weights(folder)
    _save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / WEIGHTS_FILE)


def _without_weights(folder: Path) -> Any:
    logging.disable(logging.WARNING)  # open_clip warns that the model is random, which was asked for
    try:
        return open_clip.create_model(f"{LOCAL_DIR}{folder}", pretrained_text=False, load_weights=False)
    finally:
        logging.disable(logging.NOTSET)


def _names(source: Path) -> list[str]:
    with _damage_explained(source), safe_open(source, framework="numpy") as file:
        return list(file.keys())


def _unpickled(source: Path) -> layout.Tensors:
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises many types on hostile input
        of_others = _OBJECT.search(str(error))  # torch's own advice is to execute what the file holds
        held = f"it holds {of_others[1]}" if of_others else str(error).strip().partition("\n")[0][:200]
        raise fault_behind(error, source) or DataError(
            f"cannot be read as plain tensors: {held}",
            where=str(source),
            fix="if you trust it, save its tensors alone with the code that made it: "
            "torch.save(model.state_dict(), 'w.pt'), or torch.save(checkpoint['state_dict'], 'w.pt')",
        ) from error
    return layout.state_dict_in(content, source)


def _translated(tensors: layout.Tensors, source: Path) -> layout.Tensors:
    renamed = layout.open_clip_names(tensors)
    layout.check(renamed.values(), source)
    named = {new: tensors[old] for old, new in renamed.items()}
    if layout.is_transformers(named):
        with _damage_explained(source):
            named = layout.from_transformers(named)
    return {name: tensor.clone().contiguous() for name, tensor in named.items()}


def _from_big_vision(source: Path, folder: Path) -> layout.Tensors:
    """SigLIP's weights as Google gives them, read by open_clip; numpy executes nothing in them."""
    model = _without_weights(folder)
    try:
        with open(source, "rb") as stream:  # a name would be left open
            load_big_vision_weights(model, stream)
    except Exception as error:  # of a missing array, another shape, another tower
        raise fault_behind(error, source) or DataError(
            f"{source.name} holds no weights of big_vision that fit this architecture: "
            f"{type(error).__name__}: {str(error)[:200]}",
            where=str(source),
            fix="of numpy archives only big_vision's SigLIP is read, under the architecture of its size",
        ) from error
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


def _save(tensors: layout.Tensors, target: Path) -> None:
    require_space(target.parent, sum(tensor.nbytes for tensor in tensors.values()))
    with explained(target):
        target.unlink(missing_ok=True)  # through a link, some versions would write into DVC's cache
        try:
            safetensors.torch.save_file(tensors, target)
        except SafetensorError as error:  # also what it makes of a full disk
            raise OSError(str(error)) from error


@contextmanager
def _damage_explained(source: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a tensor too few, or of another shape
        raise fault_behind(error, source) or DataError(
            f"{source.name} cannot be read: {type(error).__name__}: {error}",
            where=str(source),
            fix="fetch the file again",
        ) from error
