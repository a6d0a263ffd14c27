"""`clipcifar export`: what a project holds as files of other programs."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from zipfile import ZipFile, ZipInfo

from clipcifar.cli.command import Command, complete_files, in_project
from clipcifar.cli.formats import csv_lines
from clipcifar.core import files
from clipcifar.core.errors import ConfigError
from clipcifar.core.terminal import note

if TYPE_CHECKING:
    from clipcifar.api.export import Export

WHAT = {
    "embeddings": "the images: id, label, split, embedding",
    "sentences": "those of the prompt sets: set, class, sentence, embedding",
    "predictions": "test images: id, label, and of every method predicted, probability, margin",
    "heads": "what turns embeddings into scores, as arrays (.npz)",
}


def _export_arguments(parser: ArgumentParser) -> None:
    said = "; ".join(f"{name}: {meaning}" for name, meaning in WHAT.items())
    parser.add_argument("what", choices=list(WHAT), help=said)
    complete_files(
        parser.add_argument("file", type=Path, metavar="FILE", help="a new .npz, .csv or .parquet")
    )
    parser.add_argument("--force", action="store_true", help="write over FILE")


def _export(arguments: Namespace) -> str:
    what, path = arguments.what, arguments.file
    write = _writer(what, path)
    _check_target(path, force=arguments.force)
    with in_project():  # the file is where the user is
        from clipcifar.api import export
        from clipcifar.api.opened import Opened

        exported: Export = getattr(export, what)(Opened(Path.cwd(), on_note=note))
    num_bytes = sum(array.nbytes for array in exported.arrays.values())
    with files.placing(path, num_bytes) as stream:
        write(stream, exported)
    rows = next(iter(exported.rows.values()), ())
    return f"{path}: {len(rows):,} rows" if len(rows) else f"{path}: {len(exported.arrays)} arrays"


def _writer(what: str, path: Path) -> Callable[[BinaryIO, Export], None]:
    """What writes a file of that name.

    Raises:
        ConfigError: nothing does.
    """
    known = {".npz": _write_npz} if what == "heads" else _WRITERS
    suffix = path.suffix.lower()
    if suffix not in known:
        raise ConfigError(
            f"{what} cannot be written as {path.suffix or 'a file without suffix'}",
            where=str(path),
            fix=f"name a file that ends in {' or '.join(known)}",
        )
    if suffix == ".parquet":
        _check_parquet()
    return known[suffix]


def _check_parquet() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "Parquet is written by pyarrow: run `pip install pyarrow`, or name a .csv or .npz"
        ) from error


def _check_target(path: Path, *, force: bool) -> None:
    """Raise ConfigError where the file cannot be, or is there: nobody could bring back what it held."""
    if not path.parent.is_dir():
        raise ConfigError(
            f"there is no folder {path.parent}", where=str(path), fix="make it, or name another file"
        )
    if path.is_dir():
        raise ConfigError(f"{path} is a folder", where=str(path), fix="name a file in it")
    if path.exists() and not force:
        raise ConfigError(f"{path} exists", where=str(path), fix="name another file, or add --force")


def _write_npz(stream: BinaryIO, exported: Export) -> None:
    """As `numpy.savez` writes it, but without times, so that equal arrays give equal bytes, and no pickle."""
    import numpy as np

    with ZipFile(stream, "w") as archive:
        for name, array in exported.arrays.items():
            with archive.open(ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def _write_csv(stream: BinaryIO, exported: Export) -> None:
    columns = dict(exported.rows)
    embeddings = columns.pop("embedding", None)
    lines = csv_lines(columns)
    if embeddings is not None:  # numbers need no quotes, and the csv module would look at every digit
        header = [f"embedding_{i}" for i in range(embeddings.shape[1])]
        rows = chain([header], embeddings)
        lines = (",".join([line, *map(str, row)]) for line, row in zip(lines, rows, strict=True))
    stream.writelines(f"{line}\n".encode() for line in lines)


def _write_parquet(stream: BinaryIO, exported: Export) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {
        name: pyarrow.array(array)
        if array.ndim == 1
        else pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(array.ravel()), array.shape[1])
        for name, array in exported.rows.items()
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), stream)


_WRITERS = {".npz": _write_npz, ".csv": _write_csv, ".parquet": _write_parquet}

EXPORT = Command(
    _export,
    help="embeddings, predictions and heads for other programs",
    description="Write what the project holds to a file, in the format that its name ends in. What is stale "
    "is refused; docs/export.md has every column and array.",
    arguments=_export_arguments,
)
