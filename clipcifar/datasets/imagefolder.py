"""A folder of photographs as a dataset: `train/<class>/…`, `test/<class>/…`, and `val/<class>/…` if given.

The folder is listed, every file is decoded once to be sure that it can be, and what is kept is a
manifest of ids, labels and digests. No pixel is held.
"""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import ClipcifarError, DataError, EnvironmentFault
from clipcifar.core.files import explained, fault_behind
from clipcifar.core.progress import progress
from clipcifar.datasets.decode import SUFFIXES, decode
from clipcifar.datasets.plain_files import printable, shortened

MAX_BYTES = 1_000_000_000  # of a file; 100 million pixels of 16-bit colour take less uncompressed


@dataclass(frozen=True)
class Manifest:
    """The images of one official split of a folder.

    Attributes:
        labels: (N,) int64.
        ids: N paths relative to the folder, with forward slashes; also the sample ids.
        digests: N hex sha256 of the files.
    """

    labels: NDArray[np.int64]
    ids: list[str]
    digests: list[str]


@dataclass(frozen=True)
class ImageFolder:
    """A listed folder; train holds the images of `val/` too, marked by their id."""

    train: Manifest
    test: Manifest
    class_names: list[str]
    bad: list[str]


def list_folder(root: Path, *, on_bad_image: Literal["error", "skip"]) -> ImageFolder:
    """List and check a folder of photographs.

    Symbolic links are not followed; only regular files with an image's suffix count.

    Args:
        root: holds `train/` and `test/`, and `val/` if the user splits off val.
        on_bad_image: "error" refuses the folder when a file is not an image, "skip" leaves it out.

    Raises:
        DataError: a split is missing or empty, the splits have other classes, or images are bad;
            all bad files in one report.
        EnvironmentFault: files or folders are there and cannot be read.
    """
    with explained(root):
        candidates = {split: _list_split(root, split) for split in ("train", "val", "test")}
    _check_classes(root, candidates)
    paths = [path for split in candidates.values() for _, path in split]
    checked = dict(zip(paths, _check_files(root, paths), strict=True))
    problems = {path: check for path, check in checked.items() if isinstance(check, ClipcifarError)}
    unread = [error for error in problems.values() if isinstance(error, EnvironmentFault)]
    if unread:  # they may be whole: `skip` must not make the set smaller for a moment's trouble
        raise EnvironmentFault(
            f"{len(unread)} of {len(paths)} images cannot be read:\n    "
            + "\n    ".join(shortened([error.what for error in unread])),
            where=str(root),
            fix=unread[0].fix,
        )
    bad = [f"{printable(path)}: {error.what}" for path, error in problems.items()]
    if bad and on_bad_image == "error":
        raise DataError(
            f"{len(bad)} of {len(paths)} images cannot be used:\n    " + "\n    ".join(shortened(bad)),
            where=str(root),
            fix="mend or remove them, or set dataset.on_bad_image: skip",
        )
    usable = {
        split: [(class_name, path) for class_name, path in files if isinstance(checked[path], str)]
        for split, files in candidates.items()
    }
    class_names = _check_classes(root, usable)
    manifests = []
    for splits in (("train", "val"), ("test",)):
        rows = [
            (class_names.index(class_name), path, str(checked[path]))
            for split in splits
            for class_name, path in usable[split]
        ]
        labels, ids, digests = zip(*rows, strict=True)
        manifests.append(Manifest(np.array(labels, dtype=np.int64), list(ids), list(digests)))
    return ImageFolder(manifests[0], manifests[1], class_names, bad)


def _check_classes(root: Path, files: Mapping[str, list[tuple[str, str]]]) -> list[str]:
    """The class names, in label order; DataError unless every split has images of every class."""
    class_names = sorted({class_name for class_name, _ in files["train"]})
    odd = [name for name in class_names if any(unicodedata.category(letter) == "Cc" for letter in name)]
    if odd:
        raise DataError(
            f"the class name {odd[0]!r} holds a control character", where=str(root), fix="rename the folder"
        )
    for split in ("train", "test"):
        if not files[split]:
            raise DataError(
                f"no images in {root / split}",
                where=str(root / split),
                fix="dataset.path must hold train/<class>/… and test/<class>/… with image files; "
                "symbolic links are not followed",
            )
    for split in ("val", "test"):
        other = sorted({class_name for class_name, _ in files[split]} ^ set(class_names))
        if files[split] and other:
            raise DataError(
                f"train and {split} have different classes: {', '.join(map(printable, other))}",
                where=str(root),
                fix="give every split a folder with images for every class",
            )
    return class_names


def _list_split(root: Path, split: str) -> list[tuple[str, str]]:
    """(class name, path relative to the root) of every candidate file, sorted."""
    if (root / split).is_symlink():
        raise DataError(
            "a symbolic link, which is not followed",
            where=str(root / split),
            fix="put the folder itself here",
        )
    candidates = []
    try:
        classes = [
            entry
            for entry in os.scandir(root / split)
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
        ]
    except (FileNotFoundError, NotADirectoryError):
        return []
    for class_entry in classes:
        for folder, folders, names in os.walk(class_entry.path, followlinks=False, onerror=_refuse):
            folders[:] = [
                name for name in folders if not name.startswith(".")
            ]  # .ipynb_checkpoints and the like
            for name in names:
                path = os.path.join(folder, name)
                if name.startswith(".") or os.path.splitext(name)[1].lower() not in SUFFIXES:
                    continue
                if stat.S_ISREG(os.lstat(path).st_mode):
                    candidates.append((class_entry.name, Path(path).relative_to(root).as_posix()))
    return sorted(candidates)


def _refuse(error: OSError) -> None:
    """A folder that cannot be read is an error; `os.walk` would leave its images out without a word."""
    raise error


def _check_files(root: Path, paths: list[str]) -> list[str | ClipcifarError]:
    """The digest of every file, or what is wrong with it."""
    results: list[str | ClipcifarError] = []
    with (
        warnings.catch_warnings(),  # the filters are the process's: the threads must not change them
        ThreadPoolExecutor() as pool,
        progress(total=len(paths), unit="images", what="checking images") as bar,
    ):
        warnings.simplefilter("ignore")
        for result in pool.map(lambda path: _check_file(root, path), paths):
            results.append(result)
            bar.update()
    return results


def _check_file(root: Path, path: str) -> str | ClipcifarError:
    try:
        path.encode()
        if (size := os.lstat(root / path).st_size) > MAX_BYTES:
            return DataError(f"{size:,} bytes, more than {MAX_BYTES:,}")
        content = (root / path).read_bytes()
        decode(content, path)
        return hashlib.sha256(content).hexdigest()
    except UnicodeEncodeError:
        return DataError("its name is not UTF-8")
    except OSError as error:
        return fault_behind(error, printable(path)) or DataError(f"cannot be read: {error.strerror}")
    except DataError as error:
        return error
