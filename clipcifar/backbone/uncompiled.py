"""Imports of open_clip and torchvision without torch's compiler, which is a third of them and not used here.

torchvision and timm import it for two small things, which are put off here until they are called: what a
function says to it (`torch.compiler.disable`), and a question (`is_compile_supported`).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_COMPILER, _QUESTIONS = "torch._dynamo", "torch._dynamo.utils"


@contextmanager
def uncompiled() -> Iterator[None]:
    """Imports within it leave the compiler to whoever first compiles something; nothing else changes."""
    import torch

    if _COMPILER in sys.modules:
        yield
        return
    disable = torch.compiler.disable
    torch.compiler.disable = functools.partial(_put_off, disable)
    sys.modules[_QUESTIONS] = _Questions(_QUESTIONS)
    try:
        yield
    finally:
        torch.compiler.disable = disable
        if isinstance(sys.modules.get(_QUESTIONS), _Questions):
            del sys.modules[_QUESTIONS]


def _put_off(disable: Callable[..., Any], fn: Any = None, *args: Any, **kwargs: Any) -> Any:
    """A function that the compiler is told to leave alone when there is one."""
    if fn is None:
        return lambda fn: _put_off(disable, fn, *args, **kwargs)
    if isinstance(fn, type):
        return disable(fn, *args, **kwargs)

    @functools.wraps(fn)
    def called(*own: Any, **named: Any) -> Any:
        told = disable(fn, *args, **kwargs) if _COMPILER in sys.modules else fn
        return told(*own, **named)

    return called


class _Questions(ModuleType):
    """Stands for the compiler's module while others are imported; asked for anything else, it is that one."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # whoever looks through all modules, as `inspect` does
            raise AttributeError(name)
        if name == "is_compile_supported":
            return lambda *asked: _answering().is_compile_supported(*asked)
        if sys.modules.get(_QUESTIONS) is self:
            del sys.modules[_QUESTIONS]
        return getattr(_answering(), name)


def _answering() -> Any:
    """The compiler's module itself."""
    from torch._dynamo import utils

    return utils
