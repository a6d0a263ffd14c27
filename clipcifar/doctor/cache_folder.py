"""What `clipcifar doctor` says of the cache folder: what is kept on purpose, and what killed runs left."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from clipcifar.core import files, first_use, run_lock
from clipcifar.core.counts import count_of
from clipcifar.core.files import CachePart
from clipcifar.doctor.files import RESULTS, Found, megabytes
from clipcifar.store.model import UNFINISHED

# Work that a run takes up where it stopped, and removes once it is done.
STOPPED: dict[CachePart, str] = {"extraction": "stopped extractions", "finetune": "stopped trainings"}
# What later runs read, and what it costs to do without.
KEPT: dict[CachePart, tuple[str, str]] = {
    "downloads": ("downloaded archives", "downloading them again"),
    "embeddings": ("embeddings of other backbones", "embedding the images again"),
    "models": ("other backbones", "fetching them again"),
    "speeds": ("measured speeds", "measuring them again"),
}


def scratch(repository: Path, settings: Mapping[str, Any]) -> Found:
    """Every part of the cache folder, and what killed runs have left there and in the project."""
    known = first_use.known_files()
    for part, what in STOPPED.items():
        yield from _stopped(files.cache_folder(part), what)
    for part, (what, cost) in KEPT.items():
        yield from _kept(files.cache_folder(part), what, cost)
    yield from _unfinished(files.cache_folder("models"))
    yield from _unknown(files.cache_folder())
    linked = (part for part in files.cache_folder().glob("*/") if part.is_symlink())  # to a larger disk
    folders = [*(repository / name for name in RESULTS), files.cache_folder(), *linked]
    left = [path for folder in folders for path in folder.rglob(".*.tmp") if files.is_abandoned(path)]
    if left:
        yield f"files of killed writes: {len(left):,}, {megabytes(left)}; rm -f {_quoted(left)}"
    yield f"{count_of(len(known), 'downloaded file is', 'downloaded files are')} remembered"


def _stopped(root: Path, what: str) -> Found:
    """The folders of a part that hold unfinished work, less those that a process is working in."""
    contents = {folder: _content(folder) for folder in sorted(root.glob("*/"))}
    idle = {}
    for folder, content in contents.items():
        if process := run_lock.holder(folder):
            yield f"process {process} is at work in {folder}, {megabytes(content)} so far; leave it"
        elif content:
            idle[folder] = content
    if idle:
        size = megabytes(path for content in idle.values() for path in content)
        yield f"{what}: {len(idle):,}, {size}; the next run goes on from its own, or rm -rf {_quoted(idle)}"


def _kept(root: Path, what: str, cost: str) -> Found:
    content = [path for path in _content(root) if not path.relative_to(root).parts[0].startswith(UNFINISHED)]
    entries = {path.relative_to(root).parts[0] for path in content}
    if entries:
        yield (
            f"{what}: {len(entries):,}, {megabytes(content)}, kept for later runs; "
            f"rm -rf {_quoted([root])} costs {cost}"
        )


def _unfinished(root: Path) -> Found:
    """Models of which a killed run had fetched a part."""
    left = [folder for folder in root.glob(f"{UNFINISHED}*/") if not run_lock.holder(folder)]
    if left:
        size = megabytes(path for folder in left for path in _content(folder))
        yield f"other backbones fetched in part: {len(left):,}, {size}; rm -rf {_quoted(left)}"


def _unknown(root: Path) -> Found:
    """Folders that no part of this version writes to."""
    strange = [folder for folder in root.glob("*/") if folder.name not in get_args(CachePart)]
    if strange:
        size = megabytes(path for folder in strange for path in _content(folder))
        yield f"folders of other versions: {len(strange):,}, {size}; rm -rf {_quoted(strange)}"


def _content(folder: Path) -> list[Path]:
    """The files below a folder, without locks and what is being written."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".lock", ".holder", ".tmp")
    ]


def _quoted(paths: Iterable[Path]) -> str:
    return " ".join(sorted(shlex.quote(str(path)) for path in paths))
