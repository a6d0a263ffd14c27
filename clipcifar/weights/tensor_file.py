"""The header of a safetensors file, checked before anything is allocated for what it claims.

The format: 8 bytes of header length, little-endian; a JSON header of name, dtype, shape and offsets;
then the tensors (github.com/huggingface/safetensors, README, "Format"). Its own reader takes the last
of two entries of one name; here that is refused, as is all else that would read differently elsewhere.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from clipcifar.core.errors import DataError
from clipcifar.core.files import explained

MAX_HEADER = 10_000_000  # bytes; ten thousand tensors take one
MAX_DIMENSIONS = 64
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}


def check(path: Path) -> None:
    """Raise DataError unless the file is a whole safetensors file, every byte of it one tensor's."""
    with explained(path), open(path, "rb") as stream:
        size = path.stat().st_size
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= min(MAX_HEADER, size - 8):
            raise _damaged(path, f"its header is said to have {length:,} bytes, the file has {size:,}")
        content = stream.read(length)
    try:
        header = json.loads(
            content.decode(), object_pairs_hook=_without_duplicates, parse_constant=_no_constant
        )
        end = _covered({name: entry for name, entry in header.items() if name != "__metadata__"})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"its header is damaged: {error}") from error
    if end != size - 8 - length:
        raise _damaged(path, f"its tensors end after {end:,} bytes, the file after {size - 8 - length:,}")


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"not a safetensors file: {what}", where=str(path), fix="fetch the file again")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a name occurs twice")
    return mapping


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _is_size(number: object) -> bool:
    return type(number) is int and 0 <= number < 2**63


def _covered(entries: dict[str, Any]) -> int:
    """Where the last tensor ends; ValueError when two overlap, or one is not as long as its shape."""
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        shape, (first, last) = entry["shape"], entry["data_offsets"]
        if len(shape) > MAX_DIMENSIONS or not all(map(_is_size, (*shape, first, last))):
            raise ValueError(f"{name!r} has the shape {shape} at {first} to {last}")
        if first != end:
            raise ValueError(f"{name!r} begins at {first}, the tensor before it ends at {end}")
        if (last - first) * 8 != math.prod(shape) * _BITS[entry["dtype"]]:
            raise ValueError(f"{name!r} of {entry['dtype']} {shape} has {last - first} bytes")
        end = last
    return end
