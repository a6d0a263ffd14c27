"""A property that is computed once, whichever of several threads asks first."""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class once(Generic[T]):
    """Decorate a method with it; the others of its object wait for none but their own."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute, self._name = compute, compute.__name__
        self.__doc__ = compute.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> T:
        known = vars(instance)
        with known.setdefault(f"_lock_of_{self._name}", RLock()):
            if self._name not in known:  # a later look does not come here
                known[self._name] = self._compute(instance)
        value: T = known[self._name]
        return value
