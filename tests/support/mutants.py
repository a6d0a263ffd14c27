"""A file with flipped bits and cut short, given to its reader in a process that may crash of it.

Usage: python -m tests.support.mutants <file> <mutant> <reader> <number of flips>
"""

from __future__ import annotations

import dataclasses
import random
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clipcifar.core.errors import DataError
from clipcifar.store import container, heads
from clipcifar.store.dataset import read_dataset
from clipcifar.store.embeddings import read_texts
from clipcifar.store.images import MANIFEST, read_images
from clipcifar.store.predictions import read_predictions, read_set_predictions
from clipcifar.store.splits import read_splits

READERS: dict[str, Callable[[Path], object]] = {
    "texts": read_texts,
    "dataset": read_dataset,
    "predictions": read_predictions,
    "set predictions": read_set_predictions,
    "head": heads.read,
}


def plain(value: Any) -> Any:
    """What a reader gives, as values that can be compared."""
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if dataclasses.is_dataclass(value):
        return [(field.name, plain(getattr(value, field.name))) for field in dataclasses.fields(value)]
    if isinstance(value, Mapping):
        return sorted((key, plain(item)) for key, item in value.items())
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def reader_of_splits(source: Path) -> Callable[[Path], object]:
    """It wants to know of which dataset the file must be."""
    split = container.read(source, kind="splits")
    ids, digest = container.decode_strings(split.arrays["ids"]), str(split.attributes["dataset_digest"])
    return lambda path: read_splits(path, ids, dataset_digest=digest)


def reader_of_images(source: Path, name: str) -> Callable[[Path], object]:
    """One file of a folder is put in another's place, and the others stay where they are."""
    if name == "manifest":
        return lambda path: read_images(path, part_of=source.parent.joinpath)
    return lambda path: read_images(source.parent / MANIFEST, part_of=lambda _: path)


def reader_named(name: str, source: Path) -> Callable[[Path], object]:
    if name == "splits":
        return reader_of_splits(source)
    return reader_of_images(source, name) if name in ("manifest", "part") else READERS[name]


def main(source: Path, target: Path, name: str, flips: int) -> None:
    reader = reader_named(name, source)
    whole, wanted = source.read_bytes(), plain(reader(source))

    def judge(label: str, content: bytes) -> str:
        print(label, flush=True)  # the last line names the mutant that crashed the process
        target.write_bytes(content)
        try:
            found = plain(reader(target))
        except DataError as error:
            found, refusal = None, error
        if found is None:
            assert (refusal.exit_code, refusal.where) == (3, str(target)), refusal
            return "refused"
        assert found == wanted, "wrong data was accepted"
        return "same"

    rng = random.Random(0)
    counts = {"refused": 0, "same": 0}
    for _ in range(flips):
        bit = rng.randrange(8 * len(whole))
        mutant = bytearray(whole)
        mutant[bit // 8] ^= 1 << bit % 8
        counts[judge(f"bit {bit}", bytes(mutant))] += 1
    lengths = {*range(0, 100), *range(0, len(whole), len(whole) // 200), *range(len(whole) - 100, len(whole))}
    for length in sorted(lengths):
        assert judge(f"length {length}", whole[:length]) == "refused", length
    print("done", counts["refused"], counts["same"], len(lengths))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
