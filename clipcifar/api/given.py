"""What a caller passes, taken for nothing that it is not."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral

from clipcifar.core.errors import ConfigError


def texts(values: object, *, what: str) -> list[str]:
    """Several texts as a list, whatever they stand in.

    A single text is refused: Python takes it for a list of letters, and each would be embedded.

    Args:
        values: what was given.
        what: one of them is, for the message: "sentence".

    Raises:
        ConfigError: it is no list of texts, or one is not UTF-8.

    >>> texts(("a cat", "a dog"), what="label")
    ['a cat', 'a dog']
    >>> texts("a cat", what="label")
    Traceback (most recent call last):
    clipcifar.core.errors.ConfigError: expected a list of labels, found str
      fix:   write ["a label", "another label"]
    """
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise ConfigError(
            f"expected a list of {what}s, found {type(values).__name__}",
            fix=f'write ["a {what}", "another {what}"]',
        )
    return [checked_text(item, where=f"{what} {i} of the list") for i, item in enumerate(values)]


def checked_text(value: object, *, where: str) -> str:
    """One text; ConfigError where it is none, or is not UTF-8."""
    if not isinstance(value, str):
        raise ConfigError(f"expected text, found {type(value).__name__}", where=where)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"not UTF-8: {value!r}", where=where) from error
    return value


def checked_number(value: object, *, what: str) -> int:
    """A whole number from 1, such as NumPy's, too; ConfigError where it is none."""
    if not isinstance(value, Integral) or value < 1:
        raise ConfigError(f"{what} is {value!r}, expected a whole number from 1")
    return int(value)
