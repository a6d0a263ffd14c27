"""The header of a safetensors file: what is whole passes, what misleads is refused, and quickly."""

from __future__ import annotations

import json
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given, settings, strategies as st
from safetensors import SafetensorError

from clipcifar.core.errors import DataError
from clipcifar.weights import tensor_file

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.float64]


def file_of(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: Any, first: Any, last: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "seven bytes": bytes(7),
    "no header": bytes(8),
    "a header of petabytes": file_of(b"{}", length=2**60),
    "a header of all 64 bits": file_of(b"{}", length=2**64 - 1),
    "a header longer than the file": file_of(b"{}", length=3),
    "no JSON": file_of(b"{{{{"),
    "not UTF-8": file_of(b'{"\xff": 1}'),
    "UTF-16": file_of("{}".encode("utf-16")),
    "a list": file_of([]),
    "bottomless": file_of(b"[" * 200_000),
    "an entry that is no entry": file_of({"a": 1}),
    "a key less": file_of({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)),
    "unknown type": file_of({"a": entry([1], 0, 4, "F31")}, bytes(4)),
    "type of another kind": file_of({"a": entry([1], 0, 4, ["F32"])}, bytes(4)),
    "negative shape": file_of({"a": entry([-1, -4], 0, 16)}, bytes(16)),
    "negative offset": file_of({"a": entry([4], -16, 0)}, bytes(16)),
    "a fraction": file_of({"a": entry([1.0], 0, 4)}, bytes(4)),
    "true for one": file_of({"a": entry([True], 0, 4)}, bytes(4)),
    "NaN": file_of(b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 4]}}', bytes(4)),
    "offsets the wrong way": file_of({"a": entry([1], 4, 0)}, bytes(4)),
    "three offsets": file_of({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}}, bytes(4)),
    "10^18 rows": file_of({"a": entry([10**18], 0, 4 * 10**18)}, bytes(4)),
    "a product beyond all bounds": file_of({"a": entry([2**62] * 65, 0, 4)}, bytes(4)),
    "a number of a thousand digits": file_of({"a": entry([10**1000], 0, 4)}, bytes(4)),
    "longer than its shape": file_of({"a": entry([1], 0, 8)}, bytes(8)),
    "overlap": file_of({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)),
    "twice the same bytes": file_of({"a": entry([2], 0, 8), "b": entry([2], 0, 8)}, bytes(8)),
    "a hole": file_of({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, bytes(12)),
    "a tail": file_of({"a": entry([1], 0, 4)}, bytes(8)),
    "cut": file_of({"a": entry([2], 0, 8)}, bytes(7)),
    "one name twice": file_of(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"a":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}',
        bytes(4),
    ),
    "one key of an entry twice": file_of(
        b'{"a":{"dtype":"F32","dtype":"I32","shape":[1],"data_offsets":[0,4]}}', bytes(4)
    ),
}


@pytest.mark.parametrize("trick", HOSTILE)
def test_a_header_built_to_mislead_is_refused_at_once_and_without_allocating(
    trick: str, tmp_path: Path
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(HOSTILE[trick])
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(DataError, match="not a safetensors file") as caught:
        tensor_file.check(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (caught.value.exit_code, caught.value.where) == (3, str(path))
    assert caught.value.fix
    assert time.process_time() - started < 2
    assert peak < 5e6


def test_the_formats_own_reader_takes_the_last_of_two_entries(tmp_path: Path) -> None:
    """Negative control: that is why there is a check of ours."""
    (tmp_path / "w").write_bytes(HOSTILE["one name twice"])
    assert safetensors.numpy.load_file(tmp_path / "w")["a"].dtype == np.int32


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=4)),
        max_size=5,
    )
)
@settings(max_examples=40, derandomize=True)
def test_whatever_the_library_writes_passes(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, tuple[torch.dtype, list[int]]]
) -> None:
    path = tmp_path_factory.mktemp("t") / "w.safetensors"
    named = {name: torch.zeros(shape, dtype=dtype) for name, (dtype, shape) in tensors.items()}
    named.pop("__metadata__", None)
    safetensors.torch.save_file(named, path, metadata={"format": "pt"})
    tensor_file.check(path)


@given(st.data())
@settings(max_examples=150, derandomize=True)
def test_what_passes_the_formats_own_reader_takes_too(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any byte of the header changed: never anything else than a DataError or a file that can be read."""
    path = tmp_path_factory.mktemp("t") / "w.safetensors"
    whole = bytearray(file_of({"a": entry([2], 0, 8), "b": entry([1, 3], 8, 14, "BF16")}, bytes(14)))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(
            st.sampled_from(b'0123489"[]{},:-FBI e\x80')
        )
    path.write_bytes(whole)
    try:
        tensor_file.check(path)
    except DataError:
        return
    try:
        safetensors.torch.load_file(path)
    except (SafetensorError, KeyError) as error:
        pytest.fail(f"{bytes(whole)!r}: {error}")
