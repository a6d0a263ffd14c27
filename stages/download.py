"""Fetch the dataset's archives, unless local files are given, and lay out sets of photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar.core import files, params
from clipcifar.core.counts import count_of
from clipcifar.core.errors import ConfigError
from clipcifar.datasets import download, photo_sets, plain_files
from clipcifar.datasets.params import FOLDERS, DatasetParams
from clipcifar.datasets.registry import located, registered
from stages import run


def main(settings: dict[str, Any], raw: Path) -> None:
    dataset = params.read(settings, "dataset", DatasetParams)
    entry = registered(dataset.name)
    _check_path(dataset, raw)
    files.require_writable(raw)
    unlisted = 0
    if dataset.path == params.NO_PATH:
        downloads = files.cache_folder("downloads")
        archives = [(archive, download.fetch(archive, downloads=downloads)) for archive in entry.archives]
    else:
        archives = [(archive, located(archive, dataset, raw)) for archive in entry.archives]
    if entry.photographs is not None:
        for archive, path in archives:
            download.check(path, archive)
        print(f"unpacking {dataset.name}", flush=True)
        listed, unlisted = photo_sets.lay_out(archives, entry.photographs, raw)
        print(
            count_of(listed, "photograph")
            + (f", and {unlisted:,} that its lists do not name" if unlisted else "")
        )
    elif dataset.path == params.NO_PATH:
        for archive, path in archives:
            files.copy_file(path, raw / archive.filename)
    urls = [archive.url for archive in entry.archives]
    made = {"dataset": dataset.name, "archives": urls, "unlisted": unlisted}
    files.write_json(raw / download.SOURCE_FILE, made)


def _check_path(dataset: DatasetParams, raw: Path) -> None:
    """Refuse what later stages, or DVC before them, could not read."""
    path, where = Path(dataset.path), "params.yaml: dataset.path"
    if "://" in dataset.path:  # which may hold a password: it is not repeated
        fix = "name a folder with lists of URLs of shards, train.txt and test.txt; see docs/shards.md"
        raise ConfigError("dataset.path is a URL", where=where, fix=fix)
    if not path.exists():
        raise ConfigError(
            f"{path} does not exist", where=where, fix="give the whole path; ~ and $HOME are not expanded"
        )
    if dataset.name in FOLDERS:
        if not path.is_dir():
            fix = f"set it to the folder that holds {FOLDERS[dataset.name]}"
            raise ConfigError(f"{dataset.name} needs a folder", where=where, fix=fix)
        plain_files.check_hashable(path)
        return
    needed = [located(archive, dataset, raw) for archive in registered(dataset.name).archives]
    for file in [] if dataset.path == params.NO_PATH else needed or [path]:
        if not file.is_file():
            raise ConfigError(
                f"{file} is not a file", where=where, fix=f"set it to the archive, or to {params.NO_PATH}"
            )


if __name__ == "__main__":
    run(main)
